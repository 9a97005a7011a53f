"""Recurrences of the vector unit that are not linear: neurons that fire, states that are rounded at every step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from backends.epochcore.simulate.machine import Machine
from backends.epochcore.simulate.plan import Action
from backends.epochcore.simulate.planner import Planner, Rule
from backends.epochcore.simulate.recurrence import order
from backends.epochcore.simulate.rounding import narrow
from backends.epochcore.simulate.vector import dst, src
from isa import Instruction
from ssmc.ir.op import Array
from ssmc.ir.ops.rounded import GRID, count_rows, grids_in, places_of, rounded_step
from ssmc.ir.ops.rounded_sums import GATED, TERM, sums
from ssmc.ir.ops.spiking import neuron_step

Step = Callable[[Array, Array], tuple[Array, Array]]  # of what is held and driven: what it reaches, and what is kept


def spike(plan: Planner, ins: Instruction) -> Action:
    words, or_equal, immediate = int(ins["words"]), bool(ins["or_equal"]), bool(ins["immediate"])

    def of(held: Array) -> Step:
        return partial(neuron_step, list(held.reshape(5, words)), or_equal, immediate)

    return _recurrent(plan, ins, 5 * words, of, kept=False)


def rounded(plan: Planner, ins: Instruction) -> Action:
    words, is_complex, rounding = int(ins["words"]), bool(ins["complex"]), str(ins["rounding"])
    places = places_of(ins.__getitem__)

    def of(held: Array) -> Step:
        rows = held.reshape(-1, words)
        return partial(rounded_step, rows[0], grids_in(rows, places), rounding, is_complex)

    return _recurrent(plan, ins, count_rows(ins.__getitem__) * words, of, kept=not ins["reached"])


def rounded_sums(plan: Planner, ins: Instruction) -> Action:
    words, count, rounding = int(ins["words"]), int(ins["terms"]), str(ins["rounding"])
    split, size = len(GRID) * words, len(GATED if ins["gated"] else TERM) * count

    def of(held: Array) -> Step:
        return sums(held[:split].reshape(-1, words), held[split:].reshape(-1, count), rounding).step

    return _recurrent(plan, ins, split + size, of, kept=not ins["reached"])


def _recurrent(plan: Planner, ins: Instruction, size: int, of: Callable[[Array], Step], *, kept: bool) -> Action:
    """Steps `of` so many numbers; what leaves is what is `kept` of each, what it reaches, or what was there before."""
    words = int(ins["words"])
    v, rows = src(plan, ins, words), plan.read(int(ins["rows"]), size)
    state = plan.read(int(ins["state"]), words)
    y = dst(plan, ins, words)
    plan.write(int(ins["state"]), words)
    reverse, before = bool(ins["reverse"]), bool(ins["before"])

    def run(machine: Machine) -> None:
        step = of(machine.rows(rows)[0, 0])
        drive, out, row = machine.rows(v), machine.rows(y), machine.rows(state)[0]
        x = row.copy()
        for k in order(len(drive), reverse):
            reached, following = step(x, drive[k])
            if not plan.ideal:
                reached, following = narrow(reached), narrow(following)
            out[k] = x if before else following if kept else reached
            x = following
        row[...] = x

    return run


NONLINEAR: dict[str, Rule] = {"spike": spike, "rounded": rounded, "rounded.sums": rounded_sums}
