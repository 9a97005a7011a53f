"""Functions of one number that were spelled out in several nodes, recognised by their values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssmc.frontend.builder import Builder
from ssmc.ir.functions import BINARY, UNARY
from ssmc.ir.graph import Graph, Node, Value
from ssmc.ir.op import Array
from ssmc.ir.types import ConstantType

GRID = np.concatenate([np.linspace(-8.0, 8.0, 321) + 0.0123, [1e-3, -1e-3, 0.3, -0.7]])
TOLERANCE = 2e-7  # exporters write sqrt(2) and its like in float32
NAMED = (
    "silu",
    "gelu",
    "gelu_tanh",
    "softplus",
    "sigmoid",
    "tanh",
    "relu",
    "elu",
    "selu",
    "hardsigmoid",
    "hardswish",
    "mish",
)


@dataclass(frozen=True, eq=False)
class _Curve:
    """A value as a function of one other, elementwise: its values where the other takes those of GRID."""

    root: Value
    values: Array
    nodes: int


def recognise_activations(graph: Graph) -> None:
    """Replace spelled-out activations by their names, and products with a gated value by `gate`, in place."""
    curves: dict[Value, _Curve] = {}
    with np.errstate(all="ignore"):
        for node in list(graph.nodes("unary", "binary", "select")):
            curve = _curve(graph, node, curves)
            if curve is not None:
                curves[Value(node.name)] = curve
    for value, curve in reversed(list(curves.items())):
        if curve.nodes < 2 or value.node not in graph or not graph.users(value):
            continue
        name = _name(curve.values)
        if name is not None:
            builder = Builder(graph)
            with builder.origin(_sources(graph, value, curve.root)):
                new = builder.add("unary", [curve.root], fn=name)
            graph.replace_uses(value, new)
            graph.prune()
    _gates(graph)
    graph.prune()


def _curve(graph: Graph, node: Node, curves: dict[Value, _Curve]) -> _Curve | None:
    found: list[_Curve | Array] = []
    for value in graph.operands(node.name):
        assert value is not None
        kind = graph.type(value)
        if isinstance(kind, ConstantType):
            constant = graph.op(value.node)["value"].array if graph.op(value.node).name == "constant" else None
            if constant is None or constant.size == 0 or np.ptp(constant) != 0:
                return None
            found.append(np.full(GRID.shape, constant.reshape(-1)[0], np.float64))
        else:
            found.append(curves.get(value) or _Curve(value, GRID, 0))
    own = [item for item in found if isinstance(item, _Curve)]
    roots = {item.root for item in own}
    if len(roots) > 1:  # one operand may be the root of the other
        for root in roots:
            if all(item.root == root or graph_value(item) == root for item in own):
                own = [item if item.root == root else _Curve(root, GRID, 0) for item in own]
                break
        else:
            return None
    if not own or graph.type(own[0].root) != node.types[0]:
        return None
    arrays = []
    rest = iter(own)
    for item in found:
        arrays.append(next(rest).values if isinstance(item, _Curve) else item)
    match node.op.name:
        case "unary":
            values = UNARY[node.op["fn"]](arrays[0])
        case "binary":
            values = BINARY[node.op["fn"]](arrays[0], arrays[1])
        case _:
            values = np.where(arrays[0] != 0, arrays[1], arrays[2])
    return _Curve(own[0].root, np.asarray(values), 1 + max(item.nodes for item in own))


def graph_value(curve: _Curve) -> Value | None:
    return curve.root if curve.nodes == 0 else None


def _name(values: Array) -> str | None:
    if not np.isfinite(values).all():
        return None
    for name in NAMED:
        expected = UNARY[name](GRID)
        if np.abs(values - expected).max() <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            return name
    return None


def _sources(graph: Graph, value: Value, root: Value) -> tuple[str, ...]:
    names: list[str] = []
    waiting, seen = [value], set()
    while waiting:
        here = waiting.pop()
        if here == root or here in seen:
            continue
        seen.add(here)
        names += [n for n in graph.node(here.node).provenance if n not in names]
        waiting += [v for v in graph.operands(here.node) if v is not None]
    return tuple(sorted(names))


def _gates(graph: Graph) -> None:
    """a * sigmoid(b), a * silu(b)."""
    for node in list(graph.nodes("binary")):
        if node.op["fn"] != "mul":
            continue
        a, b = graph.operand(node.name, 0), graph.operand(node.name, 1)
        for value, gate in ((a, b), (b, a)):
            op = graph.op(gate.node)
            if op.name != "unary" or op["fn"] not in ("sigmoid", "silu") or len(graph.users(gate)) != 1:
                continue
            if isinstance(graph.type(value), ConstantType) or graph.type(value) != graph.type(gate):
                continue
            builder = Builder(graph)
            with builder.origin((*node.provenance, *graph.node(gate.node).provenance)):
                new = builder.add("gate", [value, graph.operand(gate.node, 0)], fn=op["fn"])
            graph.replace_uses(Value(node.name), new)
            break
