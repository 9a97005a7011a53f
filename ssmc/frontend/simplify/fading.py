"""Sums over the steps whose weights fade geometrically from the last step backwards: a leaky integrator's last state.

`sum_k a^(T-1-k) c u_k` is the last state of `x_k = a x_{k-1} + c u_k`: no table of weights, and no stream that is read
from its end.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from ssmc.frontend.findings import Lift
from ssmc.frontend.graph.builder import Builder, features_of
from ssmc.ir.graph import Graph, Node, Value
from ssmc.ir.op import Array
from ssmc.statespace import StateSpace

NEAR = 1e-9  # relative: what float64 leaves of a power
FEWEST = 4  # rows that tell a geometric sequence (ours)
DISGUISE = "weights of a sum that fade from the last step"


def recognise_fading(graph: Graph, whole: Collection[str]) -> list[Lift]:
    """Replace such sums in place; the systems that they are. `whole` are tables with a row for each step there is."""
    lifts = []
    for node in list(graph.nodes("pool")):
        summed = graph.operand(node.name, 0)
        product = graph.node(summed.node)
        if node.op["kind"] != "sum":
            continue
        alone = _weights(graph, summed, whole, alone=True)
        if alone is not None:
            ones = Builder(graph).stream(np.ones(features_of(graph, summed)), _without_counter(graph, summed))
            lifts.append(_replaced(graph, node, ones, product, *alone))
        if product.op.name != "binary" or product.op["fn"] != "mul":
            continue
        for slot in (0, 1):
            weights = _weights(graph, graph.operand(product.name, slot), whole)
            if weights is not None:
                drive = graph.operand(product.name, 1 - slot)
                lifts.append(_replaced(graph, node, drive, product, *weights))
                break
    graph.prune()
    return lifts


def _weights(graph: Graph, value: Value, whole: Collection[str], alone: bool = False) -> tuple[Array, Array] | None:
    """c and a, in the shape of the value, where it is c a^(T-1-k) at step k; `alone`, c a^k is as good."""
    inner = value
    while graph.op(inner.node).name == "reshape":
        inner = graph.operand(inner.node, 0)
    backwards = graph.op(inner.node).name == "reverse"
    inner = graph.operand(inner.node, 0) if backwards else inner
    op = graph.op(inner.node)
    if (
        op.name != "embed"
        or not (backwards or alone or inner.node in whole)
        or not _counts(graph, graph.operand(inner.node, 0))
    ):
        return None
    rows = op["table"].array
    rows = rows[::-1] if inner.node in whole and not backwards else rows
    if len(rows) < FEWEST or not np.all(rows[0]):
        return None
    decay = rows[1] / rows[0]
    powers = decay ** np.arange(len(rows))[:, None]
    if np.any(np.abs(decay) >= 1) or np.any(np.abs(rows - rows[0] * powers) > NEAR * np.abs(rows[0])):
        return None
    shape = features_of(graph, value)
    return rows[0].reshape(shape), decay.reshape(shape)


def _counts(graph: Graph, value: Value) -> bool:
    """Is it the number of the step?"""
    while graph.op(value.node).name == "reshape":
        value = graph.operand(value.node, 0)
    op = graph.op(value.node)
    if op.name != "ssm" or graph.op(graph.operand(value.node, 0).node).name != "spread":
        return False
    system: StateSpace = op["system"]
    one = [getattr(system, name).reshape(-1).tolist() for name in "ABCD"]
    return one == [[1.0], [1.0], [1.0], [-1.0]] and system.x0 is None and not op["reverse"]


def _without_counter(graph: Graph, value: Value) -> Value:
    """The stream whose steps are counted for a table that is looked up."""
    while graph.op(value.node).name != "spread":
        value = graph.operand(value.node, 0)
    return graph.operand(value.node, 1)


def _replaced(graph: Graph, total: Node, drive: Value, product: Node, gain: Array, decay: Array) -> Lift:
    builder, shape = Builder(graph), features_of(graph, Value(product.name))
    where = tuple(dict.fromkeys((*product.provenance, *total.provenance)))
    with builder.origin(where):
        flat = builder.reshape(builder.broadcast(drive, shape), (int(np.prod(shape)),))
        a, b = (np.broadcast_to(x, shape).reshape(-1) for x in (decay, gain))
        ones = np.ones((len(a), 1, 1))
        system = StateSpace(A=a[:, None], B=b[:, None, None], C=ones, D=0 * ones)
        y, _ = builder.recurrent("ssm", [flat], system=system)
        last = builder.reshape(builder.add("pool", [y], kind="last"), shape)
    assert isinstance(last, Value)
    graph.replace_uses(Value(total.name), last)
    return Lift(y.node, DISGUISE, where, 0.0)
