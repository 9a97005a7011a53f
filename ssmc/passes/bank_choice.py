"""Which bank holds a layer's states: what each would cost and err, and why it may not."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass, replace

import numpy as np

from ssmc.ir import Graph, Node
from ssmc.ir.op import Array
from ssmc.passes.banks import Demand, demand, objection
from ssmc.passes.choices import Alternative, BankChoice
from ssmc.passes.machine import Machine, StateBank, StateCost
from ssmc.passes.pieces import weights_per_array
from ssmc.passes.surroundings import Sides, energy_of, error_of, in_basis, sides_of


def candidates(graph: Graph, node: Node, machine: Machine) -> list[BankChoice]:
    """Every bank of the machine for one node, in the machine's order of preference."""
    want, sides, rows = demand(node), sides_of(graph, node), machine.array_rows
    around = energy_of(sides, machine.product_cost), error_of(sides, want, machine.errors)
    other, apart = around, None if want.matrix is None else want.poles
    if want.matrix is not None and any(not bank.dense for bank in machine.banks):
        other, apart = _in_eigenbasis(sides, want.matrix, machine)
    found = []
    for bank in machine.banks:
        joules = energy(bank, want, rows)
        alone = want if bank.dense or apart is None else in_eigenbasis(apart)
        error = expected_error(bank, alone)
        more, lost = around if bank.dense else other
        whole = None if joules is None or more is None else joules + more
        why = objection(bank, want, machine)
        found.append(BankChoice(node.name, bank.kind, joules, error, why, whole, math.hypot(error, lost)))
    return found


def _in_eigenbasis(sides: Sides, matrix: Array, machine: Machine) -> tuple[tuple[float | None, float], Array | None]:
    """What B and C take and lose where the states go their own way, and the poles; unknown where they cannot."""
    try:
        turned, poles = in_basis(sides, matrix, *weights_per_array(machine))
    except np.linalg.LinAlgError:
        return (None, math.inf), None
    cost = energy_of(turned, machine.product_cost)
    return (cost, error_of(turned, in_eigenbasis(poles), machine.errors)), poles


def energy(bank: StateBank, want: Demand, rows: int) -> float | None:
    """Joules of a step, with so many `rows` an array.

    A bank that only decays pays for rotating what turns, there and back; one with multipliers for the arithmetic, twice
    as much where states are complex, and for the decay of an elapsed time; one that holds A in arrays for all of A.
    Elsewhere states that feed each other are those of A's eigenbasis, whose matrices B and C take up (see `sides`).
    """
    cost = bank.cost
    if cost is None:
        return None
    if bank.dense:
        words = want.states * (2 if want.is_complex else 1)
        return words * -(-words // rows) * cost.update + words**2 * cost.pair
    if want.matrix is not None:
        return None if want.poles is None else energy(bank, in_eigenbasis(want.poles), rows)
    words = want.states * (2 if want.is_complex else 1)
    if bank.decay_only:
        return want.size(bank) * (cost.update + (cost.turn if want.turns else 0.0))
    timed = cost.timed if want.asynchronous else 0.0
    return words * (cost.update * (2 if want.is_complex else 1) + timed)


def in_eigenbasis(poles: Array) -> Demand:
    """States that go their own way, one of each conjugate pair; real ones are complex where others are."""
    is_complex = bool((np.abs(poles.imag) > 0).any())
    kept = poles[poles.imag >= 0] if is_complex else poles.real
    return Demand(len(kept), is_complex, kept, False, False)


def sides(bank: StateBank, words: int, inputs: int, outputs: int) -> float:
    """Joules of a step of B and C in arrays, by the costs of a bank that has A there: so many words of states, each
    with its `inputs` and `outputs`."""
    cost = bank.cost or StateCost(0.0)
    return words * (cost.update + (inputs + outputs) * cost.pair)


def expected_error(bank: StateBank, want: Demand) -> float:
    """Rms, relative, of the response: by the spread of decays, or by products that err at every step."""
    return feedback_error(bank, want) if bank.dense else spread_error(bank, want)


def feedback_error(bank: StateBank, want: Demand) -> float:
    """Errors of the products A x, fed back.

    White inputs give states of covariance X = A X A^T + I, products of covariance X - I. A product errs by
    `product_error` s of its largest output, which we take as 1.5 standard deviations of the largest one (ours),
    independently: the errors of states obey the same recursion, driven by (1.5 s)^2 max_i (X - I)_ii I instead of I,
    and so the relative error is 1.5 s sqrt(max_i (X - I)_ii).
    """
    if want.poles is None or not bank.product_error:
        return 0.0
    if (np.abs(want.poles) >= 1).any():
        return math.inf
    if want.matrix is None:
        q = float((np.abs(want.poles) ** 2).max(initial=0.0))
        largest = q / (1 - q)
    else:
        from scipy.linalg import solve_discrete_lyapunov

        covariance = solve_discrete_lyapunov(want.matrix, np.eye(len(want.matrix)))
        largest = max(float(np.diag(covariance).max(initial=1.0)) - 1.0, 0.0)
    return float(1.5 * bank.product_error * np.sqrt(largest))


def spread_error(bank: StateBank, want: Demand) -> float:
    """`spread` times the sensitivity of `|a|^k` to the logarithm of its time constant, rms over the states.

    `sum_k (k ln|a| |a|^k)^2 / sum_k |a|^2k = (ln|a|)^2 q (1 + q) / (1 - q)^2`, `q = |a|^2`.
    """
    if not bank.spread or want.poles is None:
        return 0.0
    size = np.abs(want.poles)
    size = size[(size > 0) & (size < 1)]
    if not size.size:
        return 0.0
    q = size**2
    sensitivity = np.log(size) ** 2 * q * (1 + q) / (1 - q) ** 2
    return float(bank.spread * np.sqrt(sensitivity.mean()))


@dataclass(frozen=True)
class Rule:
    """A bank counts if its error is within `tolerated`, or no more than `worse` times that of the best. Of those the
    one that takes the least energy (where all banks tell it); of several within `margin` of it the one that errs least;
    then the machine's order.
    """

    worse: float = 1.5
    tolerated: float = 0.02
    margin: float = 0.05


def choose(found: list[Alternative], full: Container[str], rule: Rule) -> list[Alternative]:
    """The same with one `chosen` (none where no bank can hold the states), and `why` each was or was not; banks whose
    kind is in `full` have no room left."""
    legal = [i for i, one in enumerate(found) if not one.objection and one.bank not in full]
    if not legal:
        return [replace(one, why=one.objection or "it is full") for one in found]
    most = max(rule.tolerated, rule.worse * min(found[i].error for i in legal))
    fair = [i for i in legal if found[i].error <= most]
    told = all(found[i].joules is not None for i in fair)
    cost = {i: (found[i].joules or 0.0) if told else 0.0 for i in fair}
    least = min(cost.values())
    near = [i for i in fair if cost[i] <= (1 + rule.margin) * least]
    won = min(near, key=lambda i: (found[i].error, i))

    def why(i: int) -> str:
        if i not in legal:
            return found[i].objection or "it is full"
        if i == won:
            if len(legal) == 1:
                return "no other can hold them"
            if len(near) > 1:
                return "none takes less energy, and it errs least"
            return "it takes the least energy" if len(fair) > 1 else "the others err too much"
        if i not in fair:
            return f"it errs by more than {most:.2g}"
        return (
            "it takes as little energy, but errs more or comes later"
            if i in near
            else f"it takes {cost[i] / least:.2f} times the least energy"
        )

    return [replace(one, chosen=i == won, why=why(i)) for i, one in enumerate(found)]
