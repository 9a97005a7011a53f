"""What a node's states ask of a bank, and why a bank may not be able to give it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssmc.ir import Node, StreamType
from ssmc.ir.op import Array
from ssmc.passes.machine import Machine, StateBank

SHOWN = 4  # poles named in a message


@dataclass(frozen=True)
class Demand:
    """What the states of one node need: `poles` are Abar, of a unit step where the decay follows the elapsed time."""

    states: int
    is_complex: bool
    poles: Array | None  # None: the decay is computed at run time
    asynchronous: bool
    fused: bool
    liquid: bool = False
    matrix: Array | None = None  # A in real form, where states feed each other

    @property
    def turns(self) -> bool:
        """Whether a bank that can only decay needs rotating frames: poles that are complex, or negative."""
        return self.is_complex or (self.poles is not None and bool((np.real(self.poles) < 0).any()))

    def size(self, bank: StateBank) -> int:
        """Real state nodes that the states take in a bank."""
        if bank.decay_only:
            return self.states * (2 if self.turns else 1)
        return self.states * (2 if self.is_complex and not bank.native_complex else 1)

    def hint(self) -> str:
        if self.poles is not None and (np.abs(self.poles) >= 1).any():
            return "train the model with |Abar| < 1, or choose a target with a digital state bank"
        return "choose a target with another state bank"


def demand(node: Node) -> Demand:
    """What a `tile.state`, `tile.ssm`, `tile.recurrence` or `tile.feedback` asks for."""
    op = node.op
    if op.name == "tile.feedback":
        matrix = op["weight"].array.T
        return Demand(len(matrix), False, np.linalg.eigvals(matrix), False, False, matrix=matrix)
    if op.name == "tile.recurrence":
        kind = node.types[0]
        assert isinstance(kind, StreamType)
        return Demand(kind.shape[0] // (2 if op["is_complex"] else 1), op["is_complex"], None, False, False)
    decay = op["decay"]
    asynchronous = op.name == "tile.state" and op["asynchronous"]
    poles = np.exp(decay.array) if asynchronous else decay.array
    fused = op.name == "tile.ssm"
    return Demand(decay.array.size, decay.is_complex, poles.ravel(), asynchronous, fused, fused and op["liquid"])


def objection(bank: StateBank, want: Demand, machine: Machine) -> str:
    """Why `bank` cannot hold these states; empty where it can.

    A bank that decays by itself takes 0 < |Abar| < 1: a complex pole or a negative one turns in a frame that
    rotates with it, where its decay is |Abar| (z_k = exp(-i w t_k) x_k).
    """
    if want.matrix is not None:
        return "" if bank.dense else "the states feed each other, and it holds each by itself"
    if bank.dense:
        return "A is diagonal here, and needs no array"
    if want.fused and not bank.fused:
        return "it does not hold whole single-input systems"
    if want.fused and bank.liquid != want.liquid:
        return f"it holds {'liquid' if bank.liquid else 'linear'} systems"
    if want.poles is None:
        return "" if bank.computed_decay else "it takes no computed decay"
    if want.asynchronous and not (bank.decay_only or bank.timed_decay):
        return "it does not decay with the elapsed time"
    if not bank.decay_only:
        return ""
    size = np.abs(want.poles)
    if (size >= 1).any():
        poles = dict.fromkeys(f"{p:.6g} (|Abar| = {abs(p):.6g})" for p in np.unique(want.poles[size >= 1]))
        told = ", ".join(list(poles)[:SHOWN]) + (f" and {len(poles) - SHOWN} more" if len(poles) > SHOWN else "")
        return f"it can only decay, and {(size >= 1).sum()} of {size.size} states do not: Abar = {told}"
    if (size == 0).any():
        return f"it cannot forget at once, and {(size == 0).sum()} of {size.size} states do (Abar = 0)"
    rates = -np.log(size) / (bank.unit if want.asynchronous else 1.0)
    if rates.max(initial=0.0) > bank.fastest * (1 + 1e-9) or rates.min(initial=np.inf) < bank.slowest * (1 - 1e-9):
        return (
            f"its time constants lie between {1 / bank.fastest:.4g} and {1 / bank.slowest:.4g} steps, and the layer's "
            f"between {1 / rates.max():.4g} and {1 / rates.min():.4g}"
        )
    levels = np.unique(np.round(np.log(size), 12)).size
    if machine.decay_levels is not None and levels > machine.decay_levels:
        return f"it has {machine.decay_levels} decays, and the layer {levels}; share-decays brings them down"
    return ""


def wanted(node: Node, machine: Machine) -> list[int]:
    """Indices of the banks that may hold a node's states: the one that it names first, then in the machine's order."""
    want, named = demand(node), node.op.get("bank", "")
    legal = [i for i, bank in enumerate(machine.banks) if not objection(bank, want, machine)]
    return sorted(legal, key=lambda i: (machine.banks[i].kind != named, i))
