"""What a program computes: crossbars, devices, converters and state banks, over blocks of steps."""
