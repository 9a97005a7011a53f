"""Stretches of time on copies of a pass's parameters (`segments` and `span` of a preload).

The steps of a chunk, in the order in which they are taken, are cut every `span`; copy g takes stretch g. The chunk may
end early: its last stretch is shorter, and copies after it have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isa import Instruction

if TYPE_CHECKING:
    from backends.epochcore.machine import Machine

Array = NDArray[Any]
Body = Callable[["Machine", Sequence[Array], Sequence[Array]], None]
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


def by_stretch(held: Instruction, reverse: bool, body: Body) -> Body:
    """`body` for the rows and the states of one stretch after the other."""
    if copies(held) == 1:
        return body
    cols = int(held["cols"])

    def run(machine: Machine, sources: Sequence[Array], results: Sequence[Array]) -> None:
        every = tuple(np.array(part, np.float64) for part in machine.states)
        for number, low, high in stretches(held, len(sources[0]), reverse):
            own = slice(number * cols, (number + 1) * cols)
            machine.states = tuple(np.ascontiguousarray(part[..., own]) for part in every)
            body(machine, [part[low:high] for part in sources], [part[low:high] for part in results])
            for part, value in zip(every, machine.states, strict=True):
                part[..., own] = value
            machine.latest = number
        machine.states = every

    return run
