"""Cumulative sums against weights that shrink, with a small number against the division by zero, as recurrences.

`exp(g_k) sum_j x_j / (exp(g_j) + e)` with `g_k` the sum of all `z_j` up to k is how parallel scans without a scan write
`h_k = exp(z_k) h_{k-1} + x_k`; it is that exactly where what is written is `x_k exp(g_k) / (exp(g_k) + e)`, which is
`x_k sigmoid(g_k - log e)`: sums that grow without bound, and lose what they hold in few bits, are not needed.
"""

from __future__ import annotations

import numpy as np

from ssmc.frontend.graph.builder import Builder, Operand, features_of
from ssmc.ir.graph import Graph, Node, Value
from ssmc.ir.op import Array
from ssmc.statespace import StateSpace

EXACT = 1e-12
LARGEST = 1e-3  # of what is added so that nothing is divided by zero (ours)


def recognise_growing_weights(graph: Graph) -> dict[str, str]:
    """Replace such sums, in place; a system that is no more is renamed to the recurrence."""
    renamed: dict[str, str] = {}
    for node in list(graph.nodes("binary")):
        if node.name in graph and node.op["fn"] == "mul":
            for slot in (0, 1):
                if _replaced(graph, node, slot, renamed):
                    break
    graph.prune()
    return renamed


def _replaced(graph: Graph, product: Node, slot: int, renamed: dict[str, str]) -> bool:
    total, weight = (_behind(graph, graph.operand(product.name, s)) for s in (slot, 1 - slot))
    exponent = _exponent(graph, weight)
    if exponent is None or not _is_sum(graph, total):
        return False
    quotient = _behind(graph, graph.operand(total.node, 0))
    if graph.op(quotient.node).name != "binary" or graph.op(quotient.node)["fn"] != "div":
        return False
    divisor = _behind(graph, graph.operand(quotient.node, 1))
    small = _added(graph, divisor, weight)
    steps = _summed(graph, exponent)
    shape = features_of(graph, Value(product.name))
    if small is None or steps is None or features_of(graph, quotient) != shape:
        return False
    builder = Builder(graph)
    with builder.origin(tuple(dict.fromkeys((*graph.node(total.node).provenance, *product.provenance)))):
        rate, gains = steps
        each = builder.binary("mul", builder.reshape(rate, (len(gains), 1)), gains)
        decay = builder.unary("exp", builder.reshape(each, shape))
        known = builder.binary("sub", builder.reshape(exponent, shape), np.asarray(np.log(small)))
        written = builder.binary("mul", graph.operand(quotient.node, 0), builder.unary("sigmoid", known))
        y, _ = builder.recurrent("recurrence", [decay, builder.broadcast(written, shape), None])
    graph.replace_uses(Value(product.name), y)
    renamed[total.node] = y.node
    return True


def _behind(graph: Graph, value: Value | None) -> Value:
    """The value without the reshapes that it went through."""
    assert value is not None
    while graph.op(value.node).name == "reshape":
        value = graph.operand(value.node, 0)
    return value


def _exponent(graph: Graph, value: Value) -> Value | None:
    op = graph.op(value.node)
    return graph.operand(value.node, 0) if op.name == "unary" and op["fn"] == "exp" else None


def _added(graph: Graph, value: Value, weight: Value) -> float | None:
    """e where the value is weight + e."""
    op = graph.op(value.node)
    if op.name != "binary" or op["fn"] != "add":
        return None
    first, second = (_behind(graph, graph.operand(value.node, s)) for s in (0, 1))
    constant = second if first == weight else first
    other = graph.op(constant.node)
    if weight not in (first, second) or other.name != "constant" or np.ptp(other["value"].array):
        return None
    small = float(other["value"].array.reshape(-1)[0])
    return small if 0 < small <= LARGEST else None


def _integrator(graph: Graph, value: Value) -> StateSpace | None:
    """The system where it sums up what it is given, group by group, one state each."""
    op = graph.op(value.node)
    if op.name != "ssm" or value.index or op["reverse"] or graph.operands(value.node)[1:] not in ([], [None, None]):
        return None
    system: StateSpace = op["system"]
    plain = system.diagonal and system.discrete and not system.is_complex and not system.read_before
    if not plain or system.x0 is not None or system.states != 1 or system.B.shape[2] != 1:
        return None
    return system if np.allclose(system.A, 1.0, 0, EXACT) and not np.any(system.D) else None


def _is_sum(graph: Graph, value: Value) -> bool:
    """Is it the running sum of its operand, word by word?"""
    system = _integrator(graph, value)
    return system is not None and system.C.shape[1] == 1 and np.allclose(_gains(system), 1.0, 0, EXACT)


def _summed(graph: Graph, exponent: Value) -> tuple[Operand, Array] | None:
    """What the exponent is the running sum of: an operand, a number a group, and (groups, outputs) gains of it."""
    value = _behind(graph, exponent)
    system = _integrator(graph, value)
    return None if system is None else (graph.operand(value.node, 0), _gains(system))


def _gains(system: StateSpace) -> Array:
    return np.asarray(system.gain * system.C[:, :, 0] * system.B[:, :, 0])
