"""Values of the new graph as linear functions of others: y = sum_r M_r r + c at every step, M_r sparse."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from scipy import sparse

from ssmc.frontend.graph.builder import features_of, size_of
from ssmc.ir.contraction import contraction_matrix
from ssmc.ir.graph import Graph, Node, Value
from ssmc.ir.op import Array
from ssmc.ir.table import spec_of
from ssmc.ir.types import ConstantType, StreamType

MOVES = frozenset(["reshape", "transpose", "slice", "take", "broadcast"])


@dataclass(frozen=True, eq=False)
class Form:
    """`matrices` by root, each (outputs, size of the root), and the constant part (outputs,)."""

    matrices: dict[Value, Any]
    offset: Array
    size: int

    @property
    def entries(self) -> int:
        """Multiplications that the form costs."""
        return sum(int(m.nnz) for m in self.matrices.values())

    def scaled(self, rows: Array) -> Form:
        diagonal = sparse.diags_array(rows).tocsr()
        return Form({r: (diagonal @ m).tocsr() for r, m in self.matrices.items()}, self.offset * rows, self.size)

    def rows(self, index: Array) -> Form:
        """The form whose outputs are those at `index`."""
        return Form({r: m[index] for r, m in self.matrices.items()}, self.offset[index], len(index))

    def through(self, matrix: Any, offset: Array | float = 0.0) -> Form:
        """`matrix` applied to the form."""
        found = {r: sparse.csr_array(matrix @ m) for r, m in self.matrices.items()}
        return Form(found, np.asarray(matrix @ self.offset + offset), int(matrix.shape[0]))


def add_forms(a: Form, b: Form, sign: float = 1.0) -> Form:
    """The form of `a + sign b`, of as many numbers each."""
    matrices = dict(a.matrices)
    for root, m in b.matrices.items():
        matrices[root] = (matrices[root] + sign * m).tocsr() if root in matrices else (sign * m).tocsr()
    return Form(matrices, a.offset + sign * b.offset, a.size)


def identity_form(value: Value, size: int) -> Form:
    """The form of a value itself."""
    return Form({value: sparse.eye_array(size, format="csr")}, np.zeros(size), size)


def constant_form(array: Array) -> Form:
    """The form of numbers that depend on nothing."""
    return Form({}, np.asarray(array, np.float64).reshape(-1), int(np.size(array)))


@dataclass(eq=False)
class Linearity:
    """Forms of one graph's values, kept while the graph does not change."""

    graph: Graph
    forms: dict[Value, Form] = field(default_factory=dict)

    def step(self, node: Node, operands: Sequence[Form]) -> Form | None:
        """The form of a node's result from those of its operands; None where the op is not linear in them."""
        kinds: list[Any] = [self.graph.type(v) for v in self.graph.operands(node.name) if v is not None]
        op, result = node.op, node.types[0]
        if isinstance(result, StreamType) and result.element == "complex":
            return None
        shape = features_of(self.graph, Value(node.name))
        match op.name:
            case name if name in MOVES:
                index = np.arange(operands[0].size).reshape(1, 1, *kinds[0].shape)
                kind = StreamType(kinds[0].shape)
                moved = spec_of(op.name).evaluate(op, [index], [kind])[0]
                return operands[0].rows(moved.reshape(-1).astype(np.int64))
            case "concat":
                return _joined(op["axis"], operands, [k.shape for k in kinds])
            case "unary" if op["fn"] == "neg":
                return operands[0].scaled(-np.ones(operands[0].size))
            case "binary":
                return _binary(op["fn"], operands, [k.shape for k in kinds], shape)
            case "linear":
                weight, lead = sparse.csr_array(op["weight"].array.T), prod(kinds[0].shape[:-1])
                matrix = weight if lead == 1 else sparse.kron(sparse.eye_array(lead), weight, format="csr")
                bias = 0.0 if op["bias"] is None else np.tile(op["bias"].array, lead)
                return operands[0].through(matrix, bias)
            case "reduce" if op["fn"] in ("sum", "mean"):
                return _reduced(op, operands[0], kinds[0].shape)
            case "contract":
                return self._contracted(node, operands, kinds)
        return None

    def _contracted(self, node: Node, operands: Sequence[Form], kinds: Sequence[Any]) -> Form | None:
        constant = [i for i, kind in enumerate(kinds) if isinstance(kind, ConstantType)]
        if len(constant) != 1:
            return None
        moving = 1 - constant[0]
        weight = operands[constant[0]].offset.reshape(kinds[constant[0]].shape)
        matrix = contraction_matrix(node.op["equation"], constant[0], weight, kinds[moving].shape)
        return None if matrix is None else operands[moving].through(matrix)

    def parameters(self, node: Node) -> int:
        """Multiplications and additions that a linear node costs by itself."""
        if node.op.name == "linear":
            weight = node.op["weight"].array
            lead = prod(features_of(self.graph, Value(node.name))[:-1])
            return int(np.count_nonzero(weight)) * lead
        if node.op.name == "contract" or (node.op.name == "binary" and node.op["fn"] in ("mul", "div")):
            sizes = [size_of(self.graph, v) for v in self.graph.operands(node.name) if v]
            return max(sizes)
        if node.op.name == "binary":
            return size_of(self.graph, Value(node.name))
        return 0


def _joined(axis: int, operands: Sequence[Form], shapes: Sequence[tuple[int, ...]]) -> Form:
    starts = np.concatenate([[0], np.cumsum([f.size for f in operands])]).astype(np.int64)
    index = np.concatenate(
        [np.arange(a, b).reshape(s) for a, b, s in zip(starts[:-1], starts[1:], shapes, strict=True)], axis=axis
    )
    roots = {root: m.shape[1] for f in operands for root, m in f.matrices.items()}
    stacked = {
        root: sparse.vstack(
            [f.matrices[root] if root in f.matrices else sparse.csr_array((f.size, width)) for f in operands],
            format="csr",
        )
        for root, width in roots.items()
    }
    whole = Form(stacked, np.concatenate([f.offset for f in operands]), int(starts[-1]))
    return whole.rows(index.reshape(-1))


def _binary(
    fn: str, operands: Sequence[Form], shapes: Sequence[tuple[int, ...]], shape: tuple[int, ...]
) -> Form | None:
    wide = [
        f.rows(np.broadcast_to(np.arange(f.size).reshape(s), shape).reshape(-1)) if s != shape else f
        for f, s in zip(operands, shapes, strict=True)
    ]
    a, b = wide
    if fn in ("add", "sub"):
        return add_forms(a, b, 1.0 if fn == "add" else -1.0)
    if fn == "mul" and not b.matrices:
        return a.scaled(b.offset)
    if fn == "mul" and not a.matrices:
        return b.scaled(a.offset)
    if fn == "div" and not b.matrices and np.all(b.offset):
        return a.scaled(1.0 / b.offset)
    return None


def _reduced(op: Any, operand: Form, shape: tuple[int, ...]) -> Form:
    kept = tuple(1 if i - len(shape) in op["axes"] else d for i, d in enumerate(shape))
    target = np.broadcast_to(np.arange(prod(kept)).reshape(kept), shape).reshape(-1)
    weight = 1.0 if op["fn"] == "sum" else prod(kept) / max(prod(shape), 1)
    entries = (np.full(target.size, weight), (target, np.arange(target.size)))
    return operand.through(sparse.csr_array(entries, shape=(prod(kept), target.size)))


def resolve(linearity: Linearity, value: Value, stops: Collection[Value], limit: int = 64) -> Form | None:
    """The form of `value` over the roots in `stops` (and constants); None where it depends on anything else."""
    graph = linearity.graph
    if value in stops:
        return identity_form(value, size_of(graph, value))
    node = graph.node(value.node)
    if node.op.name == "constant":
        return constant_form(node.op["value"].array)
    if limit == 0 or node.op.name in ("input", "ssm", "recurrence", "fir") or value.index:
        return None
    operands: list[Form] = []
    for operand in graph.operands(value.node):
        form = None if operand is None else resolve(linearity, operand, stops, limit - 1)
        if form is None:
            return None
        operands.append(form)
    return linearity.step(node, operands) if operands else None
