"""One state of each conjugate pair is enough where the output is real."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ssmc.ir import Graph, Node, Op, Tensor, Value
from ssmc.ir.op import Array
from ssmc.passes.base import Context, Pass
from ssmc.passes.diagonalize import change_basis
from ssmc.passes.rewrite import add_constant, constant_of, recast
from ssmc.statespace import Halving, StateSpace, halve


@dataclass(frozen=True)
class HalveConjugates(Pass):
    """Keep one state of each conjugate pair and read 2 Re(C x); the last states are put together again.

    before  ssm(%u) {system = statespace<A (1, 8) complex>}
    after   ssm(%u) {system = statespace<A (1, 4) complex, halved>}

    A complex output of which only the real part is read becomes a real output first. A system that starts from
    states which the user gives is left alone, unless they are known to come in conjugate pairs. Where nothing
    was halved, a note tells why.
    """

    name = "halve-conjugates"

    def run(self, graph: Graph, context: Context) -> Graph:
        out = graph.copy()
        for node in graph.nodes("ssm"):
            _read_real(out, node)
        for node in list(out.nodes("ssm")):
            if node.op["system"].is_complex and not node.op["system"].halved:
                reason = _halve(out, node)
                if reason:
                    context.note(self, node.name, f"not halved: {reason}")
        out.prune()
        return out


def _read_real(graph: Graph, node: Node) -> None:
    """`real(C x + D u)` is `Re(C x) + Re(D) u`: the system gives it by itself."""
    system: StateSpace = node.op["system"]
    readers = list(dict.fromkeys(user for user, _ in graph.users(Value(node.name))))
    if system.real_output or not readers or any(graph.op(reader).name != "real" for reader in readers):
        return
    first = readers[0]
    op = node.op.with_attrs(system=replace(system, D=system.D.real, real_output=True))
    recast(graph, first, op, graph.operands(node.name), node.provenance)
    for reader in readers[1:]:
        graph.add_provenance(first, *graph.node(reader).provenance)
        graph.replace_uses(Value(reader), Value(first))
        graph.remove(reader)
    graph.replace_uses(Value(node.name, 1), Value(first, 1))
    graph.remove(node.name)


def _halve(graph: Graph, node: Node) -> str:
    """Halve one system; why not, where it has pairs and was not."""
    old: StateSpace = node.op["system"]
    operands = graph.operands(node.name)
    start = operands[2] if len(operands) > 2 else None
    system, halving = halve(old if start is None else replace(old, x0=None))
    if halving.reason:
        return ""
    system = _fill_padding(system, halving)
    if start is not None:
        kept = _kept_start(graph, node, start, halving)
        if kept is None:
            return "it starts from states that the user gives, which need not come in conjugate pairs"
        operands[2] = kept
    users = graph.users(Value(node.name, 1))
    recast(graph, node.name, node.op.with_attrs(system=system), operands)
    if users:
        last = _whole(graph, node, halving, old.states)
        for user, slot in users:
            graph.connect(user, slot, last)
    return ""


def _fill_padding(system: StateSpace, halving: Halving) -> StateSpace:
    """Silent states that only fill up a group decay like its first one: a decay of 0 no volatile bank could hold."""
    return replace(system, A=np.where(halving.kept >= 0, system.A, system.A[:, :1]))


def _kept_start(graph: Graph, node: Node, start: Value, halving: Halving) -> Value | None:
    """The kept half of a start that `diagonalize` made from real states, rows of T^-1 in conjugate pairs; else None."""
    if graph.op(start.node).name != "reshape":
        return None
    turned = graph.operand(start.node, 0).node
    if graph.op(turned).name != "contract" or graph.op(turned)["equation"] != "gn,gmn->gm":
        return None
    grouped, basis = graph.operand(turned, 0), constant_of(graph, graph.operand(turned, 1))
    kind = graph.type(grouped)
    if basis is None or getattr(kind, "element", "") != "real":
        return None
    rows = _rows(basis, halving.kept)
    mirrored = _rows(basis, halving.mirror)
    expected = np.where((halving.mirror >= 0)[:, :, None], halving.scale[:, :, None] * rows.conj(), 0)
    if np.abs(mirrored - expected).max() > 1e-12 * np.abs(basis).max():
        return None
    source = graph.operand(grouped.node, 0) if graph.op(grouped.node).name == "reshape" else grouped
    return change_basis(graph, node, source, rows, ".half")


def _rows(basis: Array, index: Array) -> Array:
    """Rows (G, N', N) of (G, M, N) at `index` (G, N'), zero where it is -1."""
    found = np.take_along_axis(basis, np.maximum(index, 0)[:, :, None], axis=1)
    return np.where((index >= 0)[:, :, None], found, 0)


def _whole(graph: Graph, node: Node, halving: Halving, states: int) -> Value:
    """All last states from the kept ones: `x_mirror = scale conj(x_kept)`."""
    groups, width = halving.kept.shape

    def add(op: str, operands: list[Value], part: str, **attrs: object) -> Value:
        return graph.add(Op(op, attrs), operands, name=f"{node.name}.last.{part}", provenance=node.provenance)

    kept = Value(node.name, 1)
    opposite = add("unary", [add("imag", [kept], "imag")], "opposite", fn="neg")
    conjugate = add("complex", [add("real", [kept], "real"), opposite], "conjugate")
    if not (halving.scale == 1).all():
        scale = add_constant(graph, halving.scale.reshape(-1), node, ".last.scale")
        conjugate = add("binary", [conjugate, scale], "mirror", fn="mul")
    index = np.zeros((groups, states), np.int64)
    place = np.arange(groups * width).reshape(groups, width)
    for g in range(groups):
        for there, offset in ((halving.kept[g], 0), (halving.mirror[g], groups * width)):
            index[g, there[there >= 0]] = offset + place[g, there >= 0]
    both = add("concat", [kept, conjugate], "both", axis=-1)
    return add("take", [both], "whole", axis=-1, index=Tensor(index.reshape(-1)))
