"""The mode `tri` in fixed point: x <- (a + b u) x + b u in every element, Re(c x) summed down the columns."""

from __future__ import annotations

import numpy as np

from backends.epochcore.formats import drives, entering, parameters, state_unit
from backends.epochcore.program.parameters import Element
from backends.epochcore.simulate.buffers import Access
from backends.epochcore.simulate.machine import Machine
from backends.epochcore.simulate.plan import Action
from backends.epochcore.simulate.planner import Planner
from backends.epochcore.simulate.recurrence import Decay, by_row, order, run_machine
from backends.epochcore.simulate.sums import Readings
from isa import Instruction


def liquid_machine(plan: Planner, ins: Instruction, e: Element, u: Access, y: Access) -> Action:
    """In the machine's numbers: the sum a + b u is formed first, then 1 - (a + b u) is rounded as a parameter is."""
    numbers = plan.arch.numbers
    distance = numbers.decay == "one-minus"
    unit = state_unit(numbers)
    own, b = by_row(e.decay * e.decay_unit), by_row(e.b * e.b_unit)
    readings = Readings(by_row(e.c), numbers)
    worth = e.gain.T[:, None, :]
    y_unit = e.c_unit[0, :, 0] * unit
    reverse, before, accumulate = bool(ins["reverse"]), bool(ins["before"]), bool(ins["accumulate"])

    def run(machine: Machine) -> None:
        integers, exponent, outside = entering(machine.rows(u), numbers)
        machine.overflowed(outside)
        exponent = np.broadcast_to(exponent, (*integers.shape[:-1], 1))
        out = machine.rows(y)
        total = np.empty(integers.shape)
        for k in order(len(integers), reverse):
            v = tuple(half * (integers[k] * exponent[k]) for half in b)
            # b is in units of the gain, the decay is not
            sign = -worth if distance else worth
            full = np.stack([part + half * sign for part, half in zip(own, v, strict=True)])
            kept, kept_unit, outside = parameters(full, numbers)
            machine.overflowed(outside)
            states = machine.states
            drive = tuple(drives(half / unit, numbers) for half in v)
            following, outside = run_machine(Decay(tuple(kept), kept_unit[0], distance), states, drive, numbers)
            machine.overflowed(outside)
            total[k], outside = readings.of(states if before else following)
            machine.overflowed(outside)
            machine.states = following
        value = total * y_unit + integers * exponent * (e.d * e.d_unit)
        out[...] = out + value if accumulate else value

    return run
