"""The mode `tri` in fixed point: x <- (a + b u) x + b u in every element, Re(c x) summed down the columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.formats import mantissas, saturate, state_unit
from backends.epochcore.machine import Machine
from backends.epochcore.parameters import Element
from backends.epochcore.plan import Access, Action, Planner
from backends.epochcore.recurrence import Decay, order, run_fixed
from isa import Instruction

Array = NDArray[Any]
Parts = tuple[Array, ...]


def by_row(values: Array) -> Parts:
    """(halves, cols, rows) as a (rows, 1, cols) array for each half."""
    return tuple(np.ascontiguousarray(half.T)[:, None, :] for half in values)


def read_out(states: Parts, c: Parts) -> Array:
    """Re(c x) summed over the rows: (rows, batch, cols) to (batch, cols)."""
    terms = states[0] * c[0]
    if len(c) == 2:
        terms -= states[1] * c[1]
    return np.asarray(np.add.reduce(terms, axis=0))


def liquid_fixed(plan: Planner, ins: Instruction, e: Element, u: Access, y: Access) -> Action:
    """In fixed point: the sum a + b u is formed first, then 1 - (a + b u) is rounded to a parameter's mantissa."""
    numbers = plan.arch.numbers
    unit = state_unit(numbers)
    own, b, c = by_row(e.decay * e.decay_unit), by_row(e.b * e.b_unit), by_row(e.c)
    worth = e.gain.T[:, None, :]
    y_unit = e.c_unit[0, :, 0] * unit
    reverse, before, accumulate = bool(ins["reverse"]), bool(ins["before"]), bool(ins["accumulate"])

    def run(machine: Machine) -> None:
        integers, exponent = mantissas(machine.rows(u), numbers.activation_bits, -1)
        out = machine.rows(y)
        total = np.empty(integers.shape)
        for k in order(len(integers), reverse):
            v = tuple(half * (integers[k] * exponent[k]) for half in b)
            # b is in units of the gain, the decay is not
            distance = np.stack([part - half * worth for part, half in zip(own, v, strict=True)])
            kept, kept_unit = mantissas(distance, numbers.parameter_bits, 0)
            states = machine.states
            drive = tuple(np.rint(half / unit) for half in v)
            following, outside = run_fixed(Decay(tuple(kept), kept_unit[0]), states, drive, numbers.state_bits)
            machine.saturated(outside)
            total[k] = read_out(states if before else following, c)
            machine.states = following
        sums, outside = saturate(total, numbers.accumulator_bits)
        machine.saturated(outside)
        value = sums * y_unit + integers * exponent * (e.d * e.d_unit)
        out[...] = out + value if accumulate else value

    return run
