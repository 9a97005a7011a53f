"""What a program's instructions are and touch: words, tiles, rates, tokens, rounds, the order they are issued in."""
