"""What is read of a system: all that follows linearly from its outputs, and how that is put in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from ssmc.ir import Graph, Node, Op, Tensor, Value
from ssmc.ir.op import Array
from ssmc.passes.linear_maps import Matrix, Terms, itself, terms_of, words
from ssmc.passes.regroup import LEAST_DECAY, Regrouped, at_end
from ssmc.passes.rewrite import constant_sources, recast
from ssmc.statespace import StateSpace


@dataclass(frozen=True)
class Readout:
    """What is read of a system: streams, and last steps of streams, with the pooling nodes that take them."""

    terms: dict[Value, Terms]
    streams: tuple[Value, ...]
    lasts: tuple[tuple[Value, str], ...]
    sources: tuple[str, ...]  # where what is folded came from

    @property
    def values(self) -> tuple[Value, ...]:
        return (*self.streams, *dict.fromkeys(value for value, _ in self.lasts))


def readout(graph: Graph, node: Node, system: StateSpace) -> Readout:
    """Everything that follows linearly from a system's outputs, and where that ends."""
    root = Value(node.name)
    found: dict[Value, Terms] = {root: itself(graph, root)}
    sources: list[str] = []

    def of(value: Value) -> Terms:
        return found[value] if value in found else itself(graph, value)

    for other in graph.nodes():
        operands = [value for value in graph.operands(other.name) if value is not None]
        if any(value in found for value in operands):
            terms = terms_of(graph, other, of)
            if terms is not None:
                found[Value(other.name)] = terms
                sources += [*other.provenance, *constant_sources(graph, other)]
    ends_in_states = _ends_in_states(system, bool(node.op["reverse"]))
    streams, lasts = dict[Value, None](), []
    for value in found:
        for user, _ in graph.users(value):
            if Value(user) in found:
                continue
            if ends_in_states and graph.op(user).name == "pool" and graph.op(user)["kind"] == "last":
                lasts.append((value, user))
            else:
                streams[value] = None
    kept = tuple((value, user) for value, user in lasts if value not in streams)
    return Readout(found, tuple(streams), kept, tuple(dict.fromkeys(sources)))


def _ends_in_states(system: StateSpace, reverse: bool) -> bool:
    """Whether the last step's outputs follow from the states after it."""
    if reverse or not system.read_before:
        return not reverse
    return system.discrete and system.diagonal and bool((np.abs(system.A) >= LEAST_DECAY).all())


def is_real(read: Readout) -> bool:
    return all(part.im is None for value in read.values for part in read.terms[value].values())


def rows_of(read: Readout, root: Value) -> Matrix:
    """The streams, one's words after the other's, as sums of the words of `root`."""
    return sparse.vstack([read.terms[value][root].re for value in read.streams], "csr")


# -- writing -----------------------------------------------------------------------------------------------------


def replaced(
    graph: Graph, node: Node, system: StateSpace, read: Readout, made: Regrouped, y: Value, u: Value | None
) -> None:
    """What was read of `node`, a `system` driven by `u` (None: by silence), is now read of `made`, whose outputs are
    `y`."""
    root, last, start = Value(node.name), _last(graph, node, made, y), 0
    for value in read.streams:
        stop = start + words(graph, value)
        part = taken(graph, node, y, made.place[start:stop], f".{value.node}")
        _settle(graph, value.node, [part, *_others(graph, read.terms[value], root, value.node, pooled=False)])
        start = stop
    for value, pool in read.lasts:
        of_states, of_inputs = at_end(system, read.terms[value][root].re)
        parts = [_linear(graph, graph.node(pool), last, of_states, ".states")]
        if of_inputs.nnz and u is not None:
            parts.append(_linear(graph, graph.node(pool), _pooled(graph, pool, u, ".input"), of_inputs, ".through"))
        _settle(graph, pool, [*parts, *_others(graph, read.terms[value], root, pool, pooled=True)])
    graph.replace_uses(Value(node.name, 1), last)


def _last(graph: Graph, node: Node, made: Regrouped, y: Value) -> Value:
    """The last states in the order and the shape of the old ones."""
    last, kind = Value(y.node, 1), node.types[1]
    if not np.array_equal(made.order, np.arange(made.order.size)):
        last = taken(graph, node, last, np.argsort(made.order), ".last")
    if kind == graph.type(last) or not graph.users(Value(node.name, 1)):
        return last
    attrs = {"shape": getattr(kind, "shape", ())}
    return graph.add("reshape", [last], attrs, name=f"{node.name}.last.shaped", provenance=node.provenance)


def constant(graph: Graph, like: Node, array: Array, suffix: str) -> Value:
    return graph.add("constant", [], {"value": Tensor(array)}, name=like.name + suffix, provenance=like.provenance)


def _flat(graph: Graph, like: Node, value: Value, suffix: str) -> Value:
    shape = (words(graph, value),)
    if getattr(graph.type(value), "shape", ()) == shape:
        return value
    name = f"{like.name}{suffix}.flat"
    return graph.add("reshape", [value], {"shape": shape}, name=name, provenance=like.provenance)


def taken(graph: Graph, like: Node, value: Value, index: Array, suffix: str) -> Value:
    """Words of a value."""
    flat = _flat(graph, like, value, suffix)
    if np.array_equal(index, np.arange(words(graph, value))):
        return flat
    attrs = {"axis": -1, "index": Tensor(index)}
    return graph.add("take", [flat], attrs, name=like.name + suffix, provenance=like.provenance)


def _linear(graph: Graph, like: Node, value: Value, matrix: Matrix, suffix: str) -> Value:
    """The real part of `matrix` times the words of a value."""
    matrix = sparse.csr_matrix(matrix)
    matrix.eliminate_zeros()
    counts = np.diff(matrix.indptr)
    if counts.size and counts.max() <= 1:
        index = np.zeros(len(counts), np.int64)
        scale = np.zeros(len(counts), matrix.dtype)
        index[counts == 1], scale[counts == 1] = matrix.indices, matrix.data
        scale = scale.real if np.iscomplexobj(scale) and not scale.imag.any() else scale
        found = taken(graph, like, value, index, f"{suffix}.words")
        if not (scale == 1).all():
            factor = constant(graph, like, scale, f"{suffix}.scale")
            name = f"{like.name}{suffix}.scaled"
            found = graph.add("binary", [found, factor], {"fn": "mul"}, name=name, provenance=like.provenance)
    else:
        weight = matrix.toarray().T
        attrs = {"weight": Tensor(weight)}
        flat = _flat(graph, like, value, suffix)
        found = graph.add("linear", [flat], attrs, name=f"{like.name}{suffix}", provenance=like.provenance)
    kind: Any = graph.type(found)
    if kind.element == "complex":
        found = graph.add("real", [found], {}, name=f"{like.name}{suffix}.real", provenance=like.provenance)
    return found


def _pooled(graph: Graph, pool: str, value: Value, suffix: str) -> Value:
    node = graph.node(pool)
    return graph.add("pool", [value], {"kind": "last"}, name=f"{pool}{suffix}", provenance=node.provenance)


def _others(graph: Graph, terms: Terms, root: Value, name: str, *, pooled: bool) -> list[Value]:
    """What else than the system's outputs adds to a value."""
    found = []
    for number, (value, part) in enumerate(terms.items()):
        if value == root or not part.re.nnz:
            continue
        kind: Any = graph.type(value)
        half = words(graph, value)
        matrix = part.re if kind.element != "complex" else part.re[:, :half] - 1j * part.re[:, half:]
        suffix = f".plus{number}"
        source = _pooled(graph, name, value, f"{suffix}.last") if pooled else value
        found.append(_linear(graph, graph.node(name), source, matrix, suffix))
    return found


def _settle(graph: Graph, name: str, parts: Sequence[Value]) -> None:
    """Node `name` becomes the sum of its parts, in its own shape."""
    node, total = graph.node(name), parts[0]
    for number, part in enumerate(parts[1:]):
        attrs = {"fn": "add"}
        total = graph.add("binary", [total, part], attrs, name=f"{name}.sum{number}", provenance=node.provenance)
    kind: Any = node.types[0]
    recast(graph, name, Op("reshape", {"shape": kind.shape}), [total])
