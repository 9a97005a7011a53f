"""States counted in units of what drives them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ssmc.ir import Graph, Node, Value
from ssmc.passes.base import Context, Pass
from ssmc.statespace import StateSpace


@dataclass(frozen=True)
class ScaleStates(Pass):
    """Count each state in units of the largest weight that drives it, where columns may charge state nodes directly.

    before  ssm(%u) {system = statespace<Abar, B, C>}
    after   ssm(%u) {system = statespace<Abar, S^-1 B, C S>}    S = diag(max_i |B_ni|)

    A change of basis, exact. A column's current has no digital scale on its way to a node: all columns must stand for
    the same at full conductance, and so the rows of B must be alike, or small ones would lose levels. What a state is
    counted in then stands in the columns of C, in front of its rounding. Real diagonal systems with several inputs
    only, whose states nobody sees or sets, and which are not to go to another bank.
    """

    name = "scale-states"

    def run(self, graph: Graph, context: Context) -> Graph:
        coupling = None if context.machine is None else context.machine.coupling
        if context.ideal or coupling is None or not coupling.into:
            return graph
        out, changed = graph.copy(), False
        banks = context.machine.banks if context.machine is not None else ()
        digital = {bank.kind for bank in banks if not bank.decay_only}
        for node in graph.nodes("ssm"):
            if node.op["bank"] not in digital and (system := _scaled(graph, node)) is not None:
                out.set_op(node.name, node.op.with_attrs(system=system))
                changed = True
        return out if changed else graph


def _scaled(graph: Graph, node: Node) -> StateSpace | None:
    system: StateSpace = node.op["system"]
    seen = len(graph.operands(node.name)) > 2 and graph.operands(node.name)[2] is not None
    seen = seen or system.x0 is not None or bool(graph.users(Value(node.name, 1)))
    if seen or system.is_complex or not system.diagonal or system.B.shape[2] == 1:
        return None
    largest = np.abs(system.B).max(2, keepdims=True)  # (G, N, 1)
    if np.ptp(largest) == 0:
        return None
    largest = np.where(largest == 0, 1.0, largest)
    return replace(system, B=system.B / largest, C=system.C * largest.swapaxes(1, 2))
