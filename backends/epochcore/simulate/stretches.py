"""A pass whose parameters are there several times: each copy takes a stretch of time, with states of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from backends.epochcore.program.stretches import copies, stretches
from backends.epochcore.simulate.machine import Machine
from isa import Instruction
from ssmc.ir.op import Array

Body = Callable[[Machine, Sequence[Array], Sequence[Array]], None]


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
