"""Functions of one number that were spelled out in several nodes, recognised by their values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, reduce

import numpy as np

from ssmc.frontend.graph.builder import Builder
from ssmc.ir.functions import BINARY, UNARY
from ssmc.ir.graph import Graph, Node, Value
from ssmc.ir.op import Array
from ssmc.ir.types import ConstantType

NEAR = np.concatenate([np.linspace(-8.0, 8.0, 321) + 0.0123, [1e-3, -1e-3, 0.3, -0.7]])
FAR = np.array([30.0, 150.0, 300.0, 1e5, 1e10])  # where a limit shows; a spelled-out exp may overflow there
GRID = np.concatenate([NEAR, FAR, -FAR])
ROOTS = 6  # values that a value is looked at as a function of, the nearest
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
# What has no name of its own: log(sigmoid(x)), of which float32 knows little below -15 and nothing below -88.
STABLE = {"logsigmoid": ("neg", "softplus", "neg")}


@dataclass(frozen=True, eq=False)
class _Curve:
    """A value as a function of one other, elementwise: its values where the other takes those of GRID."""

    root: Value
    values: Array
    nodes: int


def recognise_activations(graph: Graph) -> None:
    """Replace spelled-out activations by their names, and products with a gated value by `gate`, in place."""
    curves: dict[Value, dict[Value, _Curve]] = {}
    with np.errstate(all="ignore"):
        for node in list(graph.nodes("unary", "binary", "select")):
            curves[Value(node.name)] = _curves(graph, node, curves)
    for value, found in reversed(list(curves.items())):
        if value.node not in graph or not graph.users(value):
            continue
        for curve in sorted(found.values(), key=lambda curve: -curve.nodes):
            name = _name(curve.values) if curve.nodes > 1 else None
            if name is not None:
                builder = Builder(graph)
                with builder.origin(_sources(graph, value, curve.root)):
                    new = curve.root
                    for fn in STABLE.get(name, (name,)):
                        new = builder.add("unary", [new], fn=fn)
                graph.replace_uses(value, new)
                graph.prune()
                break
    _gates(graph)
    graph.prune()


def _curves(graph: Graph, node: Node, curves: dict[Value, dict[Value, _Curve]]) -> dict[Value, _Curve]:
    """The node's result as a function of each value, at most ROOTS of them, that alone determines it."""
    constants: dict[int, Array] = {}
    moving: dict[int, dict[Value, _Curve]] = {}
    for slot, value in enumerate(graph.operands(node.name)):
        assert value is not None
        if isinstance(graph.type(value), ConstantType):
            held = graph.op(value.node)["value"].array if graph.op(value.node).name == "constant" else np.zeros(0)
            if held.size == 0 or np.any(held != held.flat[0]):
                return {}
            constants[slot] = np.full(GRID.shape, held.reshape(-1)[0], np.float64)
        else:
            moving[slot] = {**curves.get(value, {}), value: _Curve(value, GRID, 0)}
    if not moving:
        return {}
    common = [root for root in next(iter(moving.values())) if all(root in found for found in moving.values())]
    results = {}
    for root in [r for r in common if graph.type(r) == node.types[0]][-ROOTS:]:
        arrays = [
            constants[k] if k in constants else moving[k][root].values for k in range(len(constants) + len(moving))
        ]
        count = 1 + sum(found[root].nodes for found in moving.values())
        results[root] = _Curve(root, np.asarray(_applied(node, arrays)), count)
    return results


def _applied(node: Node, arrays: list[Array]) -> Array:
    match node.op.name:
        case "unary":
            return UNARY[node.op["fn"]](arrays[0])
        case "binary":
            return BINARY[node.op["fn"]](arrays[0], arrays[1])
    return np.where(arrays[0] != 0, arrays[1], arrays[2])


def _name(values: Array) -> str | None:
    seen = np.isfinite(values)
    if not seen[: len(NEAR)].all():
        return None
    close = np.abs(values[: len(NEAR)] - _near()) <= _allowed()
    for name in np.asarray(list(_expected()))[close.all(axis=1)]:
        expected = _expected()[name]
        if (np.abs(values - expected)[seen] <= TOLERANCE * np.maximum(1.0, np.abs(expected[seen]))).all():
            return str(name)
    return None


@cache
def _expected() -> dict[str, Array]:
    with np.errstate(all="ignore"):
        named = {name: UNARY[name](GRID) for name in NAMED}
        return named | {name: reduce(lambda x, fn: UNARY[fn](x), fns, GRID) for name, fns in STABLE.items()}


@cache
def _near() -> Array:
    """What is expected near by, a row a name."""
    return np.stack([values[: len(NEAR)] for values in _expected().values()])


@cache
def _allowed() -> Array:
    return TOLERANCE * np.maximum(1.0, np.abs(_near()))


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
