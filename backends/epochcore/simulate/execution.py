"""A machine goes through a plan: items in their order, loops chunk by chunk, independent steps in several threads."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from backends.epochcore.simulate.machine import Machine, quietly
from backends.epochcore.simulate.plan import Do, Item, Loop, Plan, Rows

# Less is done before another thread has begun, as `machine.WORK_PER_THREAD`; each thread goes through many
# instructions here, which is as much more work for the interpreter.
ROWS_WORK = 1 << 23


def execute(plan: Plan, machine: Machine) -> None:
    """Run the plan once for the machine's whole batch. Raises UserError on a trap."""
    with np.errstate(all="ignore"):
        _items(machine, plan.items)
    machine.layout.give_back(machine.memory)


def _items(machine: Machine, items: tuple[Item, ...]) -> None:
    for item in items:
        if isinstance(item, Do):
            if item.steps is not None and machine.span[item.steps][1] == 0:
                continue
            machine.index = item.index
            item.action(machine)
            if item.index in machine.taps:
                _tap(machine, machine.taps[item.index])
        elif isinstance(item, Rows):
            _rows(machine, item)
        elif item.ins.mnemonic == "samples":
            _items(machine, item.body)
        else:
            _chunks(machine, item)


def _rows(machine: Machine, rows: Rows) -> None:
    """Steps that do not depend on each other, in several threads where that is worth it: each takes its steps through
    all instructions."""
    n, pool = machine.span["n0"][1], None if machine.taps else machine.pool
    shares = min(machine.workers, n, rows.work * n * machine.batch // ROWS_WORK)
    if pool is None or shares < 2:
        _items(machine, rows.dos)
        return
    bounds = [n * k // shares for k in range(shares + 1)]
    parts = [machine.part(low, high) for low, high in pairwise(bounds)]
    others = [pool.submit(quietly, lambda part: _items(part, rows.dos), part) for part in parts[1:]]
    _items(parts[0], rows.dos)
    for other in others:
        other.result()


def _chunks(machine: Machine, loop: Loop) -> None:
    starts = range(0, machine.steps, machine.block)
    machine.backward = bool(loop.ins["backward"])
    for start in reversed(starts) if machine.backward else starts:
        machine.span["n0"] = (start, min(machine.block, machine.steps - start))
        _items(machine, loop.body)
    machine.spare += [machine.streams.pop(number) for number in loop.spent if number in machine.streams]


def _tap(machine: Machine, taps: list[Any]) -> None:
    """Keep what an instruction has left of layers that are looked at."""
    for layer, access, shape, kind in taps:
        value = machine.rows(access)
        if kind == "sequence":
            machine.tapped[layer] = value[0].reshape(machine.batch, *shape).copy()
            continue
        if layer not in machine.tapped:
            machine.tapped[layer] = np.empty((machine.batch, machine.total[access.slot.steps], *shape))
        start, n = machine.span[access.slot.steps]
        machine.tapped[layer][:, start : start + n] = value.transpose(1, 0, 2).reshape(machine.batch, n, *shape)
