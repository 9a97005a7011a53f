"""What a program's instructions are and touch: decoded fields, registers they read and write, codes of constants."""
