"""How many cycles every processing element computes in a run: counted from what each pass occupies, step by step.

A weight takes its element one cycle a step. A sum that stays in place takes one cycle a term. A state takes as many as
the machine needs to step it, in every element of its gang; elements that hold several step them one after the other.
Waiting for ports, filling and draining are not counted, nor are elements beyond the rows and columns in use.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Arch
from backends.epochcore.clock.array import layout_of
from backends.epochcore.program.dispatch import Op, dispatch
from backends.epochcore.program.passes import PASSES
from backends.epochcore.program.rounds import rounds_of
from backends.epochcore.program.stretches import copies
from backends.epochcore.program.tiles import tiles
from isa import Instruction, Program

Counts = NDArray[np.int64]


def occupancy(program: Program, arch: Arch, batch: int, steps: int) -> Counts:
    """Cycles (rows, cols) in which each element computes, for `batch` sequences of `steps` steps."""
    total = np.zeros((arch.array.rows, arch.array.cols), np.int64)
    known: dict[tuple[int, int, int], tuple[Op, int]] = {}
    full, rest = divmod(batch, each := rounds_of(program).together)
    # rounds are alike: what the first one runs, every one does
    for samples, rounds in ((each, full), (rest, min(rest, 1))):
        for op in dispatch(program, samples if rounds else 0, steps, shadow=arch.array.shadow):
            times = rounds if op.sample == 0 else int(samples == each)
            if op.ins.mnemonic in PASSES and op.held is not None:
                key = op.index, op.steps, op.samples
                known[key] = op, known.get(key, (op, 0))[1] + times
    for op, times in known.values():
        assert op.held is not None
        total += times * of_pass(op.held, op.steps, arch, op.samples)
    return total


def of_pass(held: Instruction, steps: int, arch: Arch, samples: int = 1) -> Counts:
    """Cycles of every element in one pass of `steps` steps of so many samples."""
    high, wide = arch.array.rows, arch.array.cols
    rows, cols = int(held["rows"]), int(held["cols"])
    if held["mode"] == "mac":
        owner, number = (np.arange(high) // rows, np.arange(wide) // cols), samples * tiles(held)
        return number * np.where(owner[0][:, None] == owner[1], taken(held, steps, owner[1]), 0)
    if held["mode"] == "mac.os":
        # step after step goes to the next row, from the first one again when all have one
        folds = steps * samples // high + (np.arange(high) < steps * samples % high)
        return tiles(held) * rows * np.outer(folds, np.arange(wide) < cols).astype(np.int64)
    layout, segments = layout_of(held, arch, samples), copies(held)
    group, below = np.transpose([layout.group(row) for row in range(high // layout.gang)])
    places = np.arange(wide // layout.gang)
    found = np.zeros((len(group), len(places)), np.int64)
    for number in range(layout.lanes * layout.groups):
        # the copies of the columns that lie in one group, one lane
        own = (places + number * layout.cols) // cols
        channels = np.where(own < segments * samples, taken(held, steps, own % segments), 0)
        states = np.where(group == number % layout.groups, np.clip(rows - below * layout.deep, 0, layout.deep), 0)
        found += np.outer(states, channels)
    whole = layout.gang * found.repeat(layout.gang, 0).repeat(layout.gang, 1)
    return np.pad(whole, [(0, high - len(whole)), (0, wide - whole.shape[1])])


def taken(held: Instruction, steps: int, copy: Counts) -> Counts:
    """Steps that copies of the parameters take."""
    if copies(held) == 1:
        return np.where(copy == 0, steps, 0)
    spans = np.clip(steps - copy * int(held["span"]), 0, int(held["span"]))
    return np.where(copy < copies(held), spans, 0)
