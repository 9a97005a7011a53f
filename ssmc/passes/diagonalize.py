"""Dense systems in a basis where each state goes its own way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ssmc import statespace
from ssmc.ir import Graph, Node, Value
from ssmc.ir.op import Array
from ssmc.passes.base import Context, Pass
from ssmc.passes.feedback import kept_dense
from ssmc.passes.rewrite import add_constant, recast
from ssmc.passes.tile_triangular import levels
from ssmc.statespace import StateSpace


@dataclass(frozen=True)
class Diagonalize(Pass):
    """Write each dense A as T Lambda T^-1 and count the states in the eigenbasis, x = T x'.

    before  %y, %last = ssm(%u, _, %x0) {system = statespace<A (1, 4, 4)>}
    after   %y', %last' = ssm(%u, _, T^-1 %x0) {system = statespace<A (1, 4) complex>};  %last = Re(T %last')

    A group whose eigenvectors are worse conditioned than `max_condition` (a defective A has none) becomes triangular by
    an orthogonal T (Schur), unless it is a cascade as it stands, like a shift register: then `tile` makes it one of
    states in levels. A note tells why. Condition numbers are noted for the others. `tolerance` is what
    the pass promises; a larger `max_condition` may need a larger one.

    Where the target has a bank that holds A itself in weight arrays, a dense A stays as it is if it has no such basis
    and is no cascade (`feedback=needed`), or also if that takes less energy than its states would take elsewhere and
    errs not much more (`cheapest`, as `choose-banks` has it), but only if its response then errs by no more than
    `feedback_error` (rms, relative, expected). It stays, too, where B and C of the eigenbasis let the response err by
    more than that, and by twice as much as here.
    """

    name = "diagonalize"
    max_condition: float = 1e5  # rounding errors grow by it; 1e5 leaves 1e-9 of float64 with room to spare
    tolerance: float = 1e-9
    feedback: Literal["never", "needed", "cheapest"] = "cheapest"
    feedback_error: float = 0.1

    def run(self, graph: Graph, context: Context) -> Graph:
        dense = [node for node in graph.nodes("ssm") if not node.op["system"].diagonal]
        if not dense:
            return graph
        out = graph.copy()
        for node in dense:
            old = node.op["system"]
            system, basis = statespace.diagonalize(old, self.max_condition)
            reasons = list(dict.fromkeys(reason for reason in basis.reasons if reason))
            worst = float(basis.condition.max())
            context.note(
                self, node.name, f"not diagonal: {'; '.join(reasons)}" if reasons else f"condition of T {worst:.3g}"
            )
            if self.feedback != "never" and old.discrete and levels(old.A) is None:
                cheapest = self.feedback == "cheapest"
                keep, told = kept_dense(old, context.machine, self.feedback_error, basis.diagonal, cheapest)
                if told:
                    context.note(self, node.name, told)
                if keep:
                    continue
            into, back = basis.inverse, basis.T
            if not basis.diagonal:
                if levels(old.A) is not None or not old.discrete:
                    continue
                system, into, back = _triangular(old, self.max_condition)
            operands = out.operands(node.name)
            operands += [None] * (3 - len(operands))
            start = operands[2]
            if start is not None:
                operands[2] = change_basis(out, node, start, into, ".start")
            recast(out, node.name, node.op.with_attrs(system=system), operands)
            _restore_last(out, node, back, old.is_complex or not system.is_complex)
        return out


def _triangular(system: StateSpace, max_condition: float) -> tuple[StateSpace, Array, Array]:
    """The system in a basis where each group is diagonal or, by Schur, upper triangular; and `T^-1` and `T`."""
    from scipy.linalg import schur

    forms, bases, inverses = [], [], []
    for g, a in enumerate(system.A):
        one = slice(g, g + 1)
        alone = replace(system, A=a[None], B=system.B[one], C=system.C[one], D=system.D[one], x0=None)
        diagonal, basis = statespace.diagonalize(alone, max_condition)
        if basis.diagonal:
            form, t, inverse = np.diag(diagonal.A[0]), basis.T[0], basis.inverse[0]
        else:
            form, t = schur(a, output="complex")
            form, inverse = np.triu(form), t.conj().T
        forms.append(form)
        bases.append(t)
        inverses.append(inverse)
    form, back, into = np.stack(forms), np.stack(bases), np.stack(inverses)
    x0 = None if system.x0 is None else np.einsum("gnm,gm->gn", into, system.x0)
    return replace(system, A=form, B=into @ system.B, C=system.C @ back, x0=x0), into, back


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
