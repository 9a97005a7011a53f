"""Stretches of time on copies of a pass's parameters (`segments` and `span` of a preload).

The steps of a chunk, in the order in which they are taken, are cut every `span`; copy g takes stretch g. The chunk may
end early: its last stretch is shorter, and copies after it have none.
"""

from __future__ import annotations

from collections.abc import Iterator

from isa import Instruction

MODES = ("mac", "fri", "fri.x")


def copies(held: Instruction) -> int:
    """How often a preload's parameters are there."""
    return int(held["segments"])


def longest(held: Instruction, steps: int) -> int:
    """Steps of the longest stretch: those of a pass over `steps`."""
    return steps if copies(held) == 1 else min(int(held["span"]), steps)


def count(held: Instruction, steps: int) -> int:
    """Stretches that have steps, the first one where there are none."""
    return 1 if copies(held) == 1 else max(1, -(-steps // int(held["span"])))


def stretches(held: Instruction, steps: int, reverse: bool) -> Iterator[tuple[int, int, int]]:
    """(copy, first step, step after the last one), in the order in which they follow each other."""
    span = steps if copies(held) == 1 else int(held["span"])
    for number, low in enumerate(range(0, steps, max(1, span))):
        high = min(low + span, steps)
        yield (number, steps - high, steps - low) if reverse else (number, low, high)
