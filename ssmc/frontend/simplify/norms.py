"""Layer and RMS norms that were spelled out in several nodes, recognised by structure and by value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssmc.frontend.graph.builder import Builder, features_of
from ssmc.ir.graph import Graph, Value
from ssmc.ir.op import Array
from ssmc.ir.table import spec_of
from ssmc.ir.tensor import Tensor
from ssmc.ir.types import ConstantType, SequenceType, StreamType

INSIDE = frozenset(["unary", "binary", "reduce", "broadcast", "reshape"])
DEEPEST = 16  # nodes of a spelled-out norm, at most
SCALES = (1.0, 3e-3, 40.0)  # of what it is tried on: small enough that the epsilon shows
ROWS = 6
TOLERANCE = 1e-9  # relative


@dataclass(frozen=True)
class _Norm:
    kind: str
    epsilon: float
    scale: Array
    shift: Array


def recognise_norms(graph: Graph) -> dict[str, str]:
    """Replace what divides by a root of a mean square by `norm`, in place; nothing is renamed."""
    for name in [n.name for n in graph.nodes("unary") if n.op["fn"] in ("sqrt", "rsqrt")]:
        for quotient in _quotients(graph, Value(name)) if name in graph else ():
            if quotient in graph and _replaced(graph, Value(quotient)):
                break
    graph.prune()
    return {}


def _quotients(graph: Graph, root: Value) -> list[str]:
    """Products and quotients that a root takes part in, directly or as its reciprocal."""
    found, waiting = [], [root]
    while waiting:
        for user, _ in graph.users(waiting.pop()):
            op = graph.op(user)
            if op.name == "binary" and op["fn"] in ("mul", "div"):
                found.append(user)
                if any(isinstance(graph.type(v), ConstantType) for v in graph.operands(user) if v is not None):
                    waiting.append(Value(user))
            elif op.name in ("broadcast", "reshape") or (op.name == "unary" and op["fn"] == "reciprocal"):
                waiting.append(Value(user))
    return found


def _replaced(graph: Graph, quotient: Value) -> bool:
    """Put a norm in the place of the quotient if it is one of the deepest value that it is a function of."""
    best: tuple[Value, _Norm] | None = None
    nodes: set[str] = set()
    root: Value | None = quotient
    while root is not None and (root := _root(graph, root, quotient, nodes)) is not None:
        norm = _recognised(graph, quotient, root, nodes)
        best = best if norm is None else (root, norm)
    if best is None:
        return False
    root, norm = best
    builder = Builder(graph)
    with builder.origin(tuple(dict.fromkeys(p for name in sorted(nodes) for p in graph.node(name).provenance))):
        scale = None if np.all(norm.scale == 1.0) else Tensor(norm.scale)
        shift = Tensor(norm.shift) if np.any(norm.shift) else None
        new = builder.add("norm", [root], kind=norm.kind, epsilon=norm.epsilon, scale=scale, shift=shift)
    graph.replace_uses(quotient, new)
    return True


def _root(graph: Graph, start: Value, quotient: Value, nodes: set[str]) -> Value | None:
    """The next value, as wide as the quotient, that alone determines it through `nodes`, which grow; or None."""
    order = {name: i for i, name in enumerate(_ancestry(graph, start))}
    frontier = {start}
    while True:
        latest = max(frontier, key=lambda v: order.get(v.node, -1))
        op = graph.op(latest.node)
        if op.name not in INSIDE or len(nodes) == DEEPEST:
            return None
        nodes.add(latest.node)
        frontier.remove(latest)
        operands = [v for v in graph.operands(latest.node) if v is not None]
        frontier |= {v for v in operands if not isinstance(graph.type(v), ConstantType)}
        if len(frontier) == 1:
            (only,) = frontier
            if graph.type(only) == graph.type(quotient):
                return only
        if not frontier:
            return None


def _ancestry(graph: Graph, value: Value) -> list[str]:
    """Nodes near a value, those that others need first."""
    found: list[str] = []

    def visit(name: str, depth: int) -> None:
        if name in found or depth > DEEPEST:
            return
        for operand in graph.operands(name):
            if operand is not None and graph.op(name).name in INSIDE:
                visit(operand.node, depth + 1)
        found.append(name)

    visit(value.node, 0)
    return found


def _recognised(graph: Graph, quotient: Value, root: Value, nodes: set[str]) -> _Norm | None:
    """The norm that the quotient is of the root, told by its values."""
    if not any(graph.op(name).name == "reduce" for name in nodes):
        return None
    shape = features_of(graph, root)
    if not shape or shape[-1] < 2:
        return None
    rng = np.random.default_rng(17)
    tried = [rng.standard_normal((ROWS, *shape)) * scale + 0.3 * scale for scale in SCALES]
    answers = [_evaluated(graph, quotient, root, x) for x in tried]
    if any(not np.isfinite(y).all() for y in answers):
        return None
    for epsilon in _epsilons(graph, nodes, shape[-1]):
        for kind in ("layer", "rms"):
            found = _fitted(kind, epsilon, tried, answers)
            if found is not None:
                return found
    return None


def _fitted(kind: str, epsilon: float, tried: list[Array], answers: list[Array]) -> _Norm | None:
    """Scale and shift, a number a feature, that make the norm's answers the quotient's."""
    bare = [_normal(x, kind, epsilon) for x in tried]
    n, y = bare[0], answers[0]
    centre = n - n.mean(0)
    weight = (centre * centre).sum(0)
    if (weight == 0).any():
        return None
    scale = (centre * y).sum(0) / weight
    shift = y.mean(0) - scale * n.mean(0)
    size = float(np.abs(y).max())
    shift = np.where(np.abs(shift) <= TOLERANCE * size, 0.0, shift)
    rows = scale.reshape(-1, scale.shape[-1]), shift.reshape(-1, shift.shape[-1])
    if any(np.ptp(r, axis=0).max() > TOLERANCE * size for r in rows):
        return None  # heads with scales of their own
    scale, shift = rows[0][0], rows[1][0]
    scale = np.where(np.abs(scale - 1.0) <= 1e-12, 1.0, scale)
    for n, y in zip(bare, answers, strict=True):
        if np.abs(n * scale + shift - y).max() > TOLERANCE * np.abs(y).max():
            return None
    return _Norm(kind, epsilon, scale, shift)


def _normal(x: Array, kind: str, epsilon: float) -> Array:
    centred = x - x.mean(-1, keepdims=True) if kind == "layer" else x
    return np.asarray(centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon))


def _epsilons(graph: Graph, nodes: set[str], width: int) -> list[float]:
    """Small numbers that are added inside; to a sum of squares they count for less."""
    found: list[float] = []
    for name in sorted(nodes):
        if graph.op(name).name != "binary" or graph.op(name)["fn"] != "add":
            continue
        for value in graph.operands(name):
            if value is not None and graph.op(value.node).name == "constant":
                array = graph.op(value.node)["value"].array.reshape(-1)
                if array.size and np.ptp(array) == 0 and 0 < array[0] < 1:
                    found += [float(array[0]), float(array[0]) / width, float(array[0]) / (width - 1)]
    return found


def _evaluated(graph: Graph, value: Value, root: Value, x: Array) -> Array:
    """The value where the root is x (rows, *features): each row a step."""
    known: dict[Value, Array] = {root: x[None]}

    def at(here: Value) -> Array:
        if here not in known:
            op, operands = graph.op(here.node), graph.operands(here.node)
            if op.name == "constant":
                known[here] = op["value"].array
            else:
                kinds = [None if v is None else _stepwise(graph, v) for v in operands]
                arrays = [None if v is None else at(v) for v in operands]
                known[here] = np.asarray(spec_of(op.name).evaluate(op, arrays, kinds)[0])
        return known[here]

    with np.errstate(all="ignore"):
        return np.asarray(at(value)[0])


def _stepwise(graph: Graph, value: Value) -> object:
    """A value's type, one of a sequence taken for a stream's."""
    kind = graph.type(value)
    return StreamType(kind.shape, kind.element) if isinstance(kind, SequenceType) else kind
