"""Which bank holds a layer's states: what each would cost and err, and why it may not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssmc.ir import Node
from ssmc.passes.banks import Demand, demand, objection
from ssmc.passes.machine import Machine, StateBank


@dataclass(frozen=True)
class BankChoice:
    """One bank as a place for a layer's states. `joules` is the energy of a step (None: the target does not say);
    `error` what the bank's spread of decays does to the states' response, rms, relative (H2, expected); `objection`
    says why it cannot hold them, empty where it can."""

    node: str
    bank: str
    joules: float | None
    error: float
    objection: str
    chosen: bool = False


def candidates(node: Node, machine: Machine) -> list[BankChoice]:
    """Every bank of the machine for one node, in the machine's order of preference."""
    want = demand(node)
    return [
        BankChoice(node.name, bank.kind, energy(bank, want), spread_error(bank, want), objection(bank, want, machine))
        for bank in machine.banks
    ]


def energy(bank: StateBank, want: Demand) -> float | None:
    """Joules of a step.

    A bank that only decays pays for rotating what turns, there and back; one with multipliers for the arithmetic, twice
    as much where states are complex, and for the decay of an elapsed time.
    """
    cost = bank.cost
    if cost is None:
        return None
    words = want.states * (2 if want.is_complex else 1)
    if bank.decay_only:
        turning = want.is_complex or (want.poles is not None and bool((np.real(want.poles) < 0).any()))
        words = 2 * want.states if turning else words
        return words * (cost.update + (cost.turn if turning else 0.0))
    timed = cost.timed if want.asynchronous else 0.0
    return words * (cost.update * (2 if want.is_complex else 1) + timed)


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


def by_choice(found: list[BankChoice], cheapest: bool, most: float) -> list[int]:
    """Banks that may hold the states, the wanted first: those that err by no more than `most`, in the machine's order
    or by energy; then the others, those that err least first."""
    legal = [i for i, choice in enumerate(found) if not choice.objection]

    def rank(i: int) -> tuple[float, float, int]:
        choice = found[i]
        if choice.error > most:
            return (1.0, choice.error, i)
        known = choice.joules if cheapest and choice.joules is not None else 0.0
        return (0.0, known, i)

    return sorted(legal, key=rank)
