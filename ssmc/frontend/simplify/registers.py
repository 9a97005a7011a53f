"""Shift registers: systems whose states are the last inputs, made the filters that they are."""

from __future__ import annotations

import numpy as np

from ssmc.frontend.graph.builder import Builder, Operand, size_of
from ssmc.ir.graph import Graph, Value
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor
from ssmc.statespace import StateSpace, kernel


def recognise_registers(graph: Graph) -> dict[str, str]:
    """Replace systems of one input and one output a group that forget their input after N steps by `fir`, in place.

    A cache of the last inputs before a short convolution is such a system. Returns old name -> new name.
    """
    renamed: dict[str, str] = {}
    for node in list(graph.nodes("ssm")):
        system: StateSpace = node.op["system"]
        order = _places(system)
        if order is not None:
            renamed[node.name] = _replace(graph, node.name, system, order)
    graph.prune()
    return renamed


def _places(system: StateSpace) -> Array | None:
    """Which state of a group holds the newest input, the one before, and so on; None where that is not so."""
    if system.diagonal or system.is_complex or not system.discrete or system.x0 is not None:
        return None
    if system.B.shape[2] != 1 or system.C.shape[1] != 1:
        return None
    if np.any(system.A[:1] != system.A) or np.any(system.B[:1] != system.B):
        return None
    held, places = system.B[0, :, 0], []
    for _ in range(system.states):
        here = np.flatnonzero(held)
        if len(here) != 1 or held[here[0]] != 1.0:
            return None
        places.append(int(here[0]))
        held = system.A[0] @ held
    return None if np.any(held) or len(set(places)) != len(places) else np.asarray(places)


def _replace(graph: Graph, name: str, system: StateSpace, places: Array) -> str:
    """States are oldest first in a filter's history; the place of each in the group is `places`, newest first."""
    builder, node = Builder(graph), graph.node(name)
    groups, depth = system.groups, system.states
    operands = [*graph.operands(name), None, None]
    taps = kernel(system, depth + 1)[:, 0, 0]
    oldest_first = places[::-1]
    with builder.origin(node.provenance):
        history: Operand | None = operands[2]
        if history is not None:
            history = builder.emit("take", [builder.reshape(history, (groups, depth))], index=Tensor(oldest_first))
        u = operands[0]
        assert u is not None and size_of(graph, u) == groups
        y = builder.add("fir", [u, history], kernel=Tensor(taps), reverse=node.op["reverse"])
        last = builder.emit("take", [Value(y.node, 1)], index=Tensor(np.argsort(oldest_first)))
        last = builder.reshape(last, (groups * depth,))
    graph.replace_uses(Value(name), y)
    assert isinstance(last, Value)
    graph.replace_uses(Value(name, 1), last)
    return y.node
