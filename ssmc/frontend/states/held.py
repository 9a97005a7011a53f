"""States that stay as they are behind the end of their sequence, whatever matrix mixes them before: the system runs
on, x' = A x + v, and what is read of it is held from the last step on, h_k = h_{k-1} + m_k (x_k - h_{k-1}).

That is the same where m is 1 up to some step and 0 from there on. What compares the number of the step with a number
of the sequence, as `k < length`, is taken to be so; the proof tells where it is not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssmc.frontend.graph.builder import Builder, Operand
from ssmc.frontend.states.shared_basis import by_blocks, common_blocks, taken
from ssmc.frontend.states.transition import TOLERANCE, Transition
from ssmc.ir.graph import Graph, Value
from ssmc.ir.op import Array
from ssmc.ir.types import StreamType

ORDERED = frozenset(["greater", "greater_or_equal"])


def moving(transitions: Sequence[Transition], index: NDArray[np.int64]) -> Transition | None:
    """The one transition, in blocks of `index`, beside those that change no state; None where there are others."""
    matrices = common_blocks(transitions, index)
    if matrices is None:
        return None
    scale = np.abs(matrices).max(initial=1.0)
    still = np.abs(matrices - np.eye(index.shape[1])).max(axis=(1, 2, 3)) <= TOLERANCE * scale
    others, driven = matrices[~still], np.concatenate([t.offset for t in transitions])[still]
    if not still.any() or driven.any() or np.abs(others - others[:1]).max() > TOLERANCE * scale:
        return None
    batch = len(transitions[0].offset)
    found = Transition(index, np.tile(others[:1], (batch, 1, 1, 1)), transitions[0].offset)
    return (
        found if np.abs(_change(found)).max(1).min() > TOLERANCE * scale else None
    )  # each block tells whether it moves


def direction_of(transition: Transition) -> Array:
    """(n,) a vector that the matrix changes, by which it is told whether it is multiplied by."""
    return np.random.default_rng(2).uniform(0.5, 1.5, transition.index.size)


def going(builder: Builder, transition: Transition, moved: Operand) -> Operand:
    """For each state 1 where it goes on and 0 where it stays, of what became of the direction."""
    change, order = _change(transition), transition.index.reshape(-1)
    rows = change / np.square(change).sum(1, keepdims=True)
    changed = taken(builder, builder.binary("sub", moved, direction_of(transition)), order)
    found = builder.reshape(by_blocks(builder, changed, rows[:, None]), (len(change), 1))
    return taken(builder, builder.reshape(builder.broadcast(found, change.shape), order.shape), np.argsort(order))


def _change(transition: Transition) -> Array:
    """(blocks, width) what the matrix adds to the direction."""
    before = direction_of(transition)[transition.index]
    return np.asarray(np.einsum("gij,gj->gi", transition.matrices[0], before) - before)


def by_length(graph: Graph, value: Operand) -> bool:
    """Does a stream compare the numbers of steps with what is one value a sequence, and read no other streams?"""
    seen, compared = set[Value](), set[str]()
    waiting = [value] if isinstance(value, Value) else []
    while waiting:
        at = waiting.pop()
        if at in seen or not isinstance(graph.type(at), StreamType):
            continue
        seen.add(at)
        op = graph.op(at.node)
        if op.name == "input" or (op.name == "binary" and op["fn"] == "equal"):
            return False
        if op.name == "binary":
            compared.add(op["fn"])
        waiting += [v for v in graph.operands(at.node)[: 1 if op.name == "spread" else None] if v is not None]
    return bool(compared & ORDERED)
