"""How many examples a test draws whose every example is compiled, simulated or lifted."""

from __future__ import annotations

from hypothesis import settings


def examples(most: int) -> int:
    """`most` with the profile `search`, which draws others each time; half in the suite, which draws the same ones."""
    return max(1, most // 2) if settings().derandomize else most
