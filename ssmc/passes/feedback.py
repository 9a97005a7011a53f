"""Systems whose own matrix A lies in weight arrays: when they are worth it, and how they are tiled."""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import block_diag

from ssmc.ir import Node, Tensor, Value
from ssmc.ir.op import Array
from ssmc.passes.bank_choice import Rule, energy, expected_error, in_eigenbasis, sides
from ssmc.passes.banks import Demand, objection
from ssmc.passes.grid import column_grid
from ssmc.passes.machine import Machine
from ssmc.passes.pieces import Block, cut, weights_per_array
from ssmc.passes.surroundings import error_of, in_basis, sides_of_system
from ssmc.passes.tiling import Ports, Tiling, real_form
from ssmc.statespace import StateSpace

WORSE = 0.5  # of an eigenbasis's error, from which A in arrays is worth its products (ours)
LARGEST = 512  # words of states whose covariance is solved for


def fed_back(system: StateSpace, is_complex: bool) -> tuple[Array, list[Block]]:
    """A of all groups, transposed, in real form for halves re|im, and the blocks of it that may not be zero."""
    groups, states, _ = system.A.shape
    count = groups * states
    whole = real_form(block_diag(*system.A).T, is_complex)
    halves = (0, count) if is_complex else (0,)
    blocks = [
        (k + g * states, k + (g + 1) * states, n + g * states, n + (g + 1) * states)
        for k in halves
        for n in halves
        for g in range(groups)
    ]
    return whole, blocks


def kept_dense(
    system: StateSpace, machine: Machine | None, most: float, has_basis: bool, cheapest: bool
) -> tuple[bool, str]:
    """Whether A shall stay in arrays as it is, and why, or why not; "" where the machine has no bank for it."""
    banks = [] if machine is None else [bank for bank in machine.banks if bank.dense]
    if machine is None or not banks:
        return False, ""
    matrix = fed_back(system, system.is_complex)[0].T
    want = Demand(len(matrix), False, np.linalg.eigvals(matrix), False, False, matrix=matrix)
    bank, error = banks[0], expected_error(banks[0], want)
    what = f"A in arrays (bank '{bank.kind}')"
    if error > most:
        return False, f"{what} would let the response err by {error:.3g}, more than {most:g}"
    if not has_basis:
        return True, f"{what}: it has no eigenbasis; expected error {error:.3g}"
    mine, theirs = _whole_errors(system, want, machine)
    if theirs > most and mine < WORSE * theirs:
        return True, f"{what}: with B and C it errs by {mine:.3g}, in an eigenbasis by {theirs:.3g}"
    own = energy(bank, want, machine.array_rows)
    if not cheapest or own is None:
        return False, f"{what} is possible (expected error {error:.3g}), but an eigenbasis comes first"
    alone = in_eigenbasis(np.linalg.eigvals(matrix) if want.poles is None else want.poles)
    words = alone.states * (2 if alone.is_complex else 1)
    ends = system.B.shape[2], system.C.shape[1]  # of a group
    own += sides(bank, len(matrix), *ends)
    others = [
        joules + sides(bank, words, *ends)
        for other in machine.banks
        if not other.dense and not objection(other, alone, machine)
        if (joules := energy(other, alone, machine.array_rows)) is not None
    ]
    least = min(others, default=np.inf)
    told = f"{what}, B and C take {own:.3g} J a step, {least:.3g} J in an eigenbasis; expected error {error:.3g}"
    rule = Rule()
    fair = mine <= max(rule.tolerated, rule.worse * theirs)
    return fair and own * (1 + rule.margin) < least, told if fair else f"{told}, {theirs:.3g} in an eigenbasis"


def _whole_errors(system: StateSpace, want: Demand, machine: Machine) -> tuple[float, float]:
    """Expected errors of the response with B and C in arrays, too: A as it is, and in its eigenbasis; 0 where nothing
    errs or the system is too large for that."""
    if machine.errors is None or want.matrix is None or len(want.matrix) > LARGEST:
        return 0.0, 0.0
    size = weights_per_array(machine)
    sides = sides_of_system(system, *size)
    bank = next(bank for bank in machine.banks if bank.dense)
    mine = math.hypot(expected_error(bank, want), error_of(sides, want, machine.errors))
    turned, poles = in_basis(sides, want.matrix, *size)
    return mine, error_of(turned, in_eigenbasis(poles), machine.errors)


def tile_feedback(
    t: Tiling, node: Node, system: StateSpace, drive: Value, ports: Ports, bits: int | None
) -> tuple[Value, Value]:
    """The states of a discrete system with A in arrays, and the last ones."""
    matrix, blocks = fed_back(system, ports.is_complex)
    weight: Tensor = column_grid(matrix, bits)
    x = t.emit(
        node,
        "tile.feedback",
        [drive, ports.x0],
        ".x",
        weight=weight,
        pieces=cut(weight, t.machine, blocks),
        read_before=system.read_before,
        reverse=ports.reverse,
    )
    return x, Value(x.node, 1)
