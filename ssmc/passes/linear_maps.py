"""Values of a graph as linear functions of others: sparse matrices over the words of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from scipy import sparse

from ssmc.ir import Graph, Node, StreamType, Value
from ssmc.ir.contraction import contraction_matrix
from ssmc.ir.interpreter import run_node
from ssmc.ir.op import Array
from ssmc.passes.rewrite import constant_of

Matrix = Any  # scipy's csr_matrix
SHAPES = ("reshape", "slice", "take", "transpose", "broadcast")


@dataclass(frozen=True)
class Part:
    """Real and imaginary part of a value, (words, columns) each, of what it is a function of: its real words, then its
    imaginary ones where it is complex. `im` is None for a real value."""

    re: Matrix
    im: Matrix | None

    def map(self, change: Callable[[Matrix], Matrix]) -> Part:
        """The same real matrix applied to both."""
        return Part(change(self.re), None if self.im is None else change(self.im))


Terms = Mapping[Value, Part]  # a sum over these values


def words(graph: Graph, value: Value) -> int:
    """Numbers of a value, at one step where it is a stream."""
    kind: Any = graph.type(value)
    return prod(kind.shape)


def itself(graph: Graph, value: Value) -> Terms:
    """A value as a function of itself."""
    count, kind = words(graph, value), graph.type(value)
    one = sparse.identity(count, format="csr")
    if getattr(kind, "element", "real") != "complex":
        return {value: Part(one, None)}
    none = sparse.csr_matrix((count, count))
    return {value: Part(sparse.hstack([one, none], "csr"), sparse.hstack([none, one], "csr"))}


def terms_of(graph: Graph, node: Node, of: Callable[[Value], Terms]) -> Terms | None:
    """The first result of `node` by the terms of its streams, `of` each; None where it is no linear function."""
    rule = RULES.get(node.op.name)
    kind = node.types[0]
    if rule is None or not isinstance(kind, StreamType) or kind.element not in ("real", "complex"):
        return None
    return rule(graph, node, of)


def _combined(parts: Iterable[tuple[Terms, Callable[[Matrix], Matrix]]]) -> Terms:
    """The sum of terms with a real matrix applied to each."""
    total: dict[Value, Part] = {}
    for terms, change in parts:
        for value, part in terms.items():
            new = part.map(change)
            old = total.get(value)
            total[value] = new if old is None else Part(old.re + new.re, _plus(old.im, new.im))
    return total


def _plus(a: Matrix | None, b: Matrix | None) -> Matrix | None:
    return b if a is None else a if b is None else a + b


def _numbered(shape: tuple[int, ...], first: int = 0) -> Array:
    """The words of a step, each with its number, as an array with batch and time."""
    return (first + np.arange(prod(shape))).reshape(1, 1, *shape)


def _moved(graph: Graph, node: Node, of: Callable[[Value], Terms]) -> Terms:
    """Words in another order."""
    operands = [value for value in graph.operands(node.name) if value is not None]
    kind: Any = graph.type(operands[0])
    (index,) = run_node(node, [_numbered(kind.shape)], [StreamType(kind.shape)])
    return _combined([(of(operands[0]), lambda m: m[index.ravel()])])


def _joined(graph: Graph, node: Node, of: Callable[[Value], Terms]) -> Terms | None:
    operands = [value for value in graph.operands(node.name) if value is not None]
    kinds: list[Any] = [graph.type(value) for value in operands]
    if not all(isinstance(kind, StreamType) for kind in kinds):
        return None
    first = np.cumsum([0, *(prod(kind.shape) for kind in kinds)])
    numbers = [_numbered(kind.shape, start) for kind, start in zip(kinds, first, strict=False)]
    (index,) = run_node(node, numbers, [StreamType(kind.shape) for kind in kinds])
    order = index.ravel()

    def into(start: int, stop: int) -> Callable[[Matrix], Matrix]:
        rows = np.flatnonzero((order >= start) & (order < stop))
        shape = (order.size, stop - start)
        place = sparse.csr_matrix((np.ones(rows.size), (rows, order[rows] - start)), shape)
        return lambda m: place @ m

    pairs = zip(operands, first, first[1:], strict=False)
    return _combined((of(value), into(start, stop)) for value, start, stop in pairs)


def _spread_index(shape: tuple[int, ...], wide: tuple[int, ...]) -> Array:
    """Which word of an operand each word of a result reads."""
    return np.broadcast_to(np.arange(prod(shape)).reshape(shape), wide).ravel()


def _binary(graph: Graph, node: Node, of: Callable[[Value], Terms]) -> Terms | None:
    a, b = (value for value in graph.operands(node.name) if value is not None)
    kinds: list[Any] = [graph.type(a), graph.type(b)]
    wide: Any = node.types[0]
    index = [_spread_index(kind.shape, wide.shape) for kind in kinds]
    fn, streams = node.op["fn"], [isinstance(kind, StreamType) for kind in kinds]
    if fn in ("add", "sub") and all(streams):
        sign = 1.0 if fn == "add" else -1.0
        return _combined([(of(a), lambda m: m[index[0]]), (of(b), lambda m: sign * m[index[1]])])
    if fn == "mul" and streams[1] and not streams[0]:
        a, b, index = b, a, index[::-1]
    elif not (fn in ("mul", "div") and streams[0] and not streams[1]):
        return None
    factor = constant_of(graph, b)
    if factor is None or (fn == "div" and not factor.all()):
        return None
    scale = (1 / factor if fn == "div" else factor).ravel()[index[1]]
    return _times(_combined([(of(a), lambda m: m[index[0]])]), scale)


def _times(terms: Terms, scale: Array) -> Terms:
    """Every word times a constant of its own, complex perhaps."""
    re = sparse.diags(scale.real).tocsr()
    if not np.iscomplexobj(scale):
        return _combined([(terms, lambda m: re @ m)])
    im = sparse.diags(scale.imag).tocsr()
    found = {}
    for value, part in terms.items():
        other = part.im if part.im is not None else sparse.csr_matrix(part.re.shape)
        found[value] = Part(re @ part.re - im @ other, im @ part.re + re @ other)
    return found


def _unary(graph: Graph, node: Node, of: Callable[[Value], Terms]) -> Terms | None:
    x = graph.operand(node.name, 0)
    return _combined([(of(x), lambda m: -m)]) if node.op["fn"] == "neg" else None


def _reduce(graph: Graph, node: Node, of: Callable[[Value], Terms]) -> Terms | None:
    if node.op["fn"] not in ("sum", "mean"):
        return None
    x, result = graph.operand(node.name, 0), node.types[0]
    kind: Any = graph.type(x)
    kept = tuple(1 if axis - len(kind.shape) in node.op["axes"] else d for axis, d in enumerate(kind.shape))
    rows = _spread_index(kept, kind.shape)
    share = words(graph, Value(node.name)) / rows.size if node.op["fn"] == "mean" else 1.0
    total = sparse.csr_matrix((np.full(rows.size, share), (rows, np.arange(rows.size))), (prod(kept), rows.size))
    assert isinstance(result, StreamType)
    return _combined([(of(x), lambda m: total @ m)])


def _contract(graph: Graph, node: Node, of: Callable[[Value], Terms]) -> Terms | None:
    """A product with a real constant, summed."""
    operands = graph.operands(node.name)
    if len(operands) != 2:
        return None
    constants = [constant_of(graph, value) for value in operands]
    which = 0 if constants[0] is None else 1
    x, weight = operands[which], constants[1 - which]
    if x is None or weight is None or np.iscomplexobj(weight) or not isinstance(graph.type(x), StreamType):
        return None
    kind: Any = graph.type(x)
    matrix = contraction_matrix(node.op["equation"], 1 - which, weight, kind.shape)
    return None if matrix is None else _combined([(of(x), lambda m: matrix @ m)])


def _part(graph: Graph, node: Node, of: Callable[[Value], Terms]) -> Terms:
    terms = of(graph.operand(node.name, 0))
    if node.op.name == "real":
        return {value: Part(part.re, None) for value, part in terms.items()}
    return {
        value: Part(sparse.csr_matrix(part.re.shape) if part.im is None else part.im, None)
        for value, part in terms.items()
    }


RULES: dict[str, Callable[[Graph, Node, Callable[[Value], Terms]], Terms | None]] = {
    **dict.fromkeys(SHAPES, _moved),
    "concat": _joined,
    "binary": _binary,
    "unary": _unary,
    "reduce": _reduce,
    "contract": _contract,
    "real": _part,
    "imag": _part,
}
