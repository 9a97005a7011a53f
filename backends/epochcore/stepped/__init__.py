"""The slow model: every element, register and token, cycle by cycle. It computes the numbers on the way, from the
memories as they are in that cycle, so that a token too few shows as a wrong result. For small arrays and for tests.

`grid` are the elements, `passes` and `shifts` what goes through them; `lanes` the vector unit, whose rules are in
`vector` (within a step), `carrying` (from step to step) and `streams`; `transfers` the ways to DRAM. `machine` are the
engines that wait for each other's tokens, `streaming` those that hand over step by step, whose instructions are `runs`.
`instructions` lists how each is stepped.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backends.epochcore.arch import Arch
from backends.epochcore.stepped import machine, streaming
from backends.epochcore.stepped.memory import Memory
from isa import Program
from ssmc.ir.op import Array


def start(
    program: Program, arch: Arch, inputs: Mapping[int, Array], outputs: Mapping[int, tuple[int, ...]], steps: int
) -> machine.Machine | streaming.Machine:
    """The machine before its first cycle.

    `inputs` by stream number, (batch, steps, words) or (batch, words); `outputs` the shapes of the streams that are
    written.
    """
    batch = len(next(iter(inputs.values())))
    streams = {
        **{n: np.array(v, float) for n, v in inputs.items()},
        **{n: np.full(s, np.nan) for n, s in outputs.items()},
    }
    ports = {"in": arch.array.port_words_in, "out": arch.array.port_words_out}
    memory = Memory(np.full(arch.memory.scratchpad_words, np.nan), streams, ports)
    build = streaming.machine_of if arch.array.handover_steps else machine.machine_of
    return build(program, arch, memory, batch, steps)


def run(
    program: Program, arch: Arch, inputs: Mapping[int, Array], outputs: Mapping[int, tuple[int, ...]], steps: int
) -> tuple[dict[int, Array], int]:
    """What a program writes to its streams, and how many cycles that takes; operands as those of `start`. Raises
    UserError on a deadlock."""
    built = start(program, arch, inputs, outputs, steps)
    while built.cycle():
        pass
    return {n: built.chip.memory.streams[n] for n in outputs}, built.now
