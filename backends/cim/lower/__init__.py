"""Placed tile ops -> a program: registers, lines, banks, rules op by op, copies and loads."""
