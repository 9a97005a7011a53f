"""Loops, branches and one-step models: what a body does at each step, and which of its values are states."""
