"""What a program computes: each instruction over blocks of steps, in the formats of the machine."""
