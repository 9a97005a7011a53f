"""Recurrences of the vector unit that are not linear: neurons that fire, states that are rounded at every step."""

from __future__ import annotations

from backends.epochcore.simulate.machine import Machine
from backends.epochcore.simulate.plan import Action
from backends.epochcore.simulate.planner import Planner, Rule
from backends.epochcore.simulate.recurrence import order
from backends.epochcore.simulate.rounding import narrow
from backends.epochcore.simulate.vector import dst, src
from isa import Instruction
from ssmc.ir.ops.rounded import GRID, count_rows, grids_in, places_of, rounded_step
from ssmc.ir.ops.rounded_sums import TERM, sums
from ssmc.ir.ops.spiking import neuron_step


def spike(plan: Planner, ins: Instruction) -> Action:
    words, or_equal, immediate = int(ins["words"]), bool(ins["or_equal"]), bool(ins["immediate"])
    v, rows = src(plan, ins, words), plan.read(int(ins["rows"]), 5 * words)
    state = plan.read(int(ins["state"]), words)
    y = dst(plan, ins, words)
    plan.write(int(ins["state"]), words)
    reverse, before = bool(ins["reverse"]), bool(ins["before"])

    def run(machine: Machine) -> None:
        neurons = machine.rows(rows)[0, 0].reshape(5, words)
        drive, out, row = machine.rows(v), machine.rows(y), machine.rows(state)[0]
        x = row.copy()
        for k in order(len(drive), reverse):
            reached, following = neuron_step(neurons, or_equal, immediate, x, drive[k])
            if not plan.ideal:
                reached, following = narrow(reached), narrow(following)
            out[k] = x if before else reached
            x = following
        row[...] = x

    return run


def rounded(plan: Planner, ins: Instruction) -> Action:
    words, is_complex, rounding = int(ins["words"]), bool(ins["complex"]), str(ins["rounding"])
    places = places_of(ins.__getitem__)
    v, rows = src(plan, ins, words), plan.read(int(ins["rows"]), count_rows(ins.__getitem__) * words)
    state = plan.read(int(ins["state"]), words)
    y = dst(plan, ins, words)
    plan.write(int(ins["state"]), words)
    reverse, before, unrounded = bool(ins["reverse"]), bool(ins["before"]), bool(ins["reached"])

    def run(machine: Machine) -> None:
        held = machine.rows(rows)[0, 0].reshape(-1, words)
        grids = grids_in(held, places)
        drive, out, row = machine.rows(v), machine.rows(y), machine.rows(state)[0]
        x = row.copy()
        for k in order(len(drive), reverse):
            reached, following = rounded_step(held[0], grids, rounding, is_complex, x, drive[k])
            if not plan.ideal:
                reached, following = narrow(reached), narrow(following)
            out[k] = x if before else reached if unrounded else following
            x = following
        row[...] = x

    return run


def rounded_sums(plan: Planner, ins: Instruction) -> Action:
    words, count, rounding = int(ins["words"]), int(ins["terms"]), str(ins["rounding"])
    split = len(GRID) * words
    v, rows = src(plan, ins, words), plan.read(int(ins["rows"]), split + len(TERM) * count)
    state = plan.read(int(ins["state"]), words)
    y = dst(plan, ins, words)
    plan.write(int(ins["state"]), words)
    reverse, before, unrounded = bool(ins["reverse"]), bool(ins["before"]), bool(ins["reached"])

    def run(machine: Machine) -> None:
        held = machine.rows(rows)[0, 0]
        step = sums(held[:split].reshape(-1, words), held[split:].reshape(-1, count), rounding).step
        drive, out, row = machine.rows(v), machine.rows(y), machine.rows(state)[0]
        x = row.copy()
        for k in order(len(drive), reverse):
            reached, following = step(x, drive[k])
            if not plan.ideal:
                reached, following = narrow(reached), narrow(following)
            out[k] = x if before else reached if unrounded else following
            x = following
        row[...] = x

    return run


NONLINEAR: dict[str, Rule] = {"spike": spike, "rounded": rounded, "rounded.sums": rounded_sums}
