"""Dense systems in a basis where each state goes its own way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssmc import statespace
from ssmc.ir import Graph, Node, Value
from ssmc.passes.base import Array, Context, Pass
from ssmc.passes.rewrite import add_constant, recast


@dataclass(frozen=True)
class Diagonalize(Pass):
    """Write each dense A as T Lambda T^-1 and count the states in the eigenbasis, x = T x'.

    before  %y, %last = ssm(%u, _, %x0) {system = statespace<A (1, 4, 4)>}
    after   %y', %last' = ssm(%u, _, T^-1 %x0) {system = statespace<A (1, 4) complex>};  %last = Re(T %last')

    A group whose eigenvectors are worse conditioned than `max_condition` (a defective A has none) keeps the whole
    system dense, in real block form; a note tells why. Condition numbers are noted for the others. `tolerance` is what
    the pass promises; a larger `max_condition` may need a larger one.
    """

    name = "diagonalize"
    max_condition: float = 1e5  # rounding errors grow by it; 1e5 leaves 1e-9 of float64 with room to spare
    tolerance: float = 1e-9

    def run(self, graph: Graph, context: Context) -> Graph:
        dense = [node for node in graph.nodes("ssm") if not node.op["system"].diagonal]
        if not dense:
            return graph
        out = graph.copy()
        for node in dense:
            old = node.op["system"]
            system, basis = statespace.diagonalize(old, self.max_condition)
            operands = out.operands(node.name)
            operands += [None] * (3 - len(operands))
            start = operands[2]
            if start is not None:
                operands[2] = change_basis(out, node, start, basis.inverse, ".start")
            recast(out, node.name, node.op.with_attrs(system=system), operands)
            _restore_last(out, node, basis.T, old.is_complex or not system.is_complex)
            worst = float(basis.condition.max())
            reasons = list(dict.fromkeys(reason for reason in basis.reasons if reason))
            told = f"stays dense: {'; '.join(reasons)}" if reasons else f"diagonal, condition of T {worst:.3g}"
            context.note(self, node.name, told)
        return out


def change_basis(graph: Graph, node: Node, x: Value, matrix: Array, suffix: str) -> Value:
    """`matrix` (G, M, N) applied to the states `x` (G * N,) of each group: (G * M,)."""
    groups, rows, cols = matrix.shape

    def add(op: str, operands: list[Value], part: str, **attrs: object) -> Value:
        return graph.add(op, operands, attrs, name=f"{node.name}{suffix}{part}", provenance=node.provenance)

    grouped = add("reshape", [x], ".grouped", shape=(groups, cols))
    constant = add_constant(graph, np.array(matrix), node, f"{suffix}.basis")
    turned = add("contract", [grouped, constant], ".turned", equation="gn,gmn->gm")
    return add("reshape", [turned], "", shape=(groups * rows,))


def _restore_last(graph: Graph, node: Node, basis: Array, keep_complex: bool) -> None:
    """Let the users of the last states see them in the old basis, real where they were."""
    users = graph.users(Value(node.name, 1))
    if not users:
        return
    last = change_basis(graph, node, Value(node.name, 1), basis, ".last")
    if not keep_complex:
        last = graph.add("real", [last], name=f"{node.name}.last.real", provenance=node.provenance)
    for user, slot in users:
        graph.connect(user, slot, last)
