"""Recurrences whose decay is a constant plus their drive are liquid systems, with what drives and reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from ssmc.ir import Graph, Node, StreamType, Value
from ssmc.ir.op import Array
from ssmc.passes.base import Context, Pass
from ssmc.passes.linear_maps import SHAPES, Matrix, Part, Terms, itself, terms_of
from ssmc.passes.readout import is_real, readout, replaced, rows_of, taken
from ssmc.passes.regroup import Drive, regrouped
from ssmc.passes.rewrite import constant_of, rewritten
from ssmc.statespace import StateSpace

ONE = Value("")  # what constants are multiples of
WORD_BY_WORD = {*SHAPES, "concat", "binary", "unary", "real", "imag"}
EQUAL = 1e-12  # of numbers that are computed in the same way, relative


@dataclass(frozen=True)
class FoldLiquid(Pass):
    """See `x <- (a + b u) x + b u` (Liquid-S4) in a recurrence, and fold b into it, and what is linear after it.

    before  %v = binary(%u, %b) {fn = "mul"}    %a = binary(%v, %c) {fn = "add"}    %x = recurrence(%a, %v)
            %p = binary(%x, %w) {fn = "mul"}    %y = reduce(%p) {fn = "sum"}
    after   %y = liquid_ssm(%u) {system = statespace<A, B, C>}

    An array then holds a channel's states, takes one word of it in at every step, and gives one out; of a recurrence
    every state's decay, drive and value go through its ports. A word drives each state, and the states that it
    drives are read as one sum. All else stays a recurrence.
    """

    name = "fold-liquid"

    def run(self, graph: Graph, context: Context) -> Graph:
        return rewritten(graph, "recurrence", _fold)


def _fold(graph: Graph, node: Node) -> bool:
    driven = _driven(graph, node)
    if driven is None:
        return False
    drive, system = driven
    read = readout(graph, node, system)
    if not read.streams or not is_real(read) or (read.lasts and system.read_before):
        return False
    made = regrouped(system, rows_of(read, Value(node.name)), drive)
    if made is None or made.system.B.shape[2] != 1 or made.system.C.shape[1] != 1:
        return False
    u = taken(graph, node, drive.source, made.columns, ".drive")
    x0 = (*graph.operands(node.name), None)[2]
    x0 = None if x0 is None else taken(graph, node, x0, made.order, ".start")
    attrs = {"system": made.system, "reverse": node.op["reverse"]}
    provenance = tuple(dict.fromkeys([*node.provenance, *read.sources]))
    y = graph.add("liquid_ssm", [u, x0], attrs, name=f"{node.name}.liquid", provenance=provenance)
    replaced(graph, node, system, read, made, y, None)
    return True


def _driven(graph: Graph, node: Node) -> tuple[Drive, StateSpace] | None:
    """The word that drives each state of a recurrence, and its numbers as a system of a state a group that gives the
    states; None where it is not liquid."""
    known: dict[Value, Terms] = {}
    decay, drive = (dict(_terms(graph, graph.operand(node.name, slot), known)) for slot in range(2))
    constant, offset = decay.pop(ONE, None), drive.pop(ONE, None)
    if (
        constant is None
        or (offset is not None and _matrix(offset).nnz)
        or len(drive) != 1
        or decay.keys() != drive.keys()
    ):
        return None
    ((source, part),) = drive.items()
    kind: Any = graph.type(source)
    of_states, of_decays = _matrix(part), _matrix(decay[source])
    if kind.element != "real" or (np.diff(of_states.indptr) != 1).any():
        return None
    if abs(of_states - of_decays).max() > EQUAL * abs(of_states).max():
        return None
    is_complex = getattr(graph.type(Value(node.name)), "element", "real") == "complex"
    number: Any = np.complex128 if is_complex else np.float64
    b: Array = of_states.data.astype(number)[:, None, None]
    a = _matrix(constant).toarray().astype(number)
    c, d = np.ones_like(b), np.zeros(b.shape)
    before = bool(node.op["read_before"])
    system = StateSpace(a, b, c, d, real_output=not is_complex, read_before=before)
    return Drive(source, of_states.indices, np.ones(len(b))), system


def _matrix(part: Part) -> Matrix:
    """A part as one matrix, without zeros."""
    matrix = sparse.csr_matrix(part.re if part.im is None else part.re + 1j * part.im)
    matrix.eliminate_zeros()
    return matrix


def _terms(graph: Graph, value: Value | None, known: dict[Value, Terms]) -> Terms:
    """A value as multiples of words of others, as far back as every word is one, and of `ONE`."""
    assert value is not None
    if value not in known:
        node = graph.node(value.node)
        found = _rule(graph, node, known) if value.index == 0 else None
        known[value] = itself(graph, value) if found is None else found
    return known[value]


def _rule(graph: Graph, node: Node, known: dict[Value, Terms]) -> Terms | None:
    operands = [value for value in graph.operands(node.name) if value is not None]
    if node.op.name == "spread":
        constant = constant_of(graph, operands[0])
        return None if constant is None else {ONE: _column(constant)}
    if node.op.name == "complex":
        return _paired(*(_terms(graph, value, known) for value in operands))
    if node.op.name not in WORD_BY_WORD:
        return None
    if node.op.name == "binary" and node.op["fn"] in ("add", "sub"):
        return _shifted(graph, node, known)
    return terms_of(graph, node, lambda value: _terms(graph, value, known))


def _column(constant: Array) -> Part:
    column = constant.reshape(-1, 1)
    return Part(sparse.csr_matrix(column.real), sparse.csr_matrix(column.imag) if np.iscomplexobj(column) else None)


def _paired(re: Terms, im: Terms) -> Terms:
    """`re + i im`."""
    found = {}
    for value in (*re, *(value for value in im if value not in re)):
        halves = [part.re if (part := terms.get(value)) is not None else None for terms in (re, im)]
        shape = next(half.shape for half in halves if half is not None)
        found[value] = Part(*(sparse.csr_matrix(shape) if half is None else half for half in halves))
    return found


def _shifted(graph: Graph, node: Node, known: dict[Value, Terms]) -> Terms | None:
    """A stream and a constant, added in the stream's shape."""
    a, b = graph.operand(node.name, 0), graph.operand(node.name, 1)
    kinds: list[Any] = [graph.type(a), graph.type(b)]
    which = next((slot for slot, kind in enumerate(kinds) if not isinstance(kind, StreamType)), None)
    constant = None if which is None else constant_of(graph, (a, b)[which])
    if which is None or constant is None or kinds[1 - which].shape != getattr(node.types[0], "shape", None):
        return None
    shape, minus = kinds[1 - which].shape, node.op["fn"] == "sub"
    if minus and which == 0:
        return None
    terms = dict(_terms(graph, (a, b)[1 - which], known))
    more = _column(np.broadcast_to(-constant if minus else constant, shape))
    before = terms.get(ONE)
    if before is None and more.im is None and all(part.im is None for part in terms.values()):
        return {**terms, ONE: more}
    return None
