"""How long a program takes and what energy: costs of instructions, when engines run them, who hands over to whom."""
