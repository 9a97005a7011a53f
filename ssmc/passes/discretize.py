"""Continuous systems in discrete time."""

from __future__ import annotations

from dataclasses import dataclass

from ssmc import statespace
from ssmc.diagnostics import UserError
from ssmc.ir import Graph, Node, StreamType, Value
from ssmc.passes.base import Context, Pass
from ssmc.passes.rewrite import recast
from ssmc.statespace import Method, StateSpaceError


@dataclass(frozen=True)
class Discretize(Pass):
    """Give every continuous system its discrete A and B.

    before  ssm(%u) {system = statespace<A, B, delta>}
    after   ssm(%u) {system = statespace<Abar, Bbar>}

    `method`: zoh, bilinear, dirac, euler; async and async-dirac make the decay follow the elapsed time of each
    step, which the model's input of the role `dt` gives. Systems that are discrete or asynchronous stay.
    """

    name = "discretize"
    method: Method = "zoh"

    def run(self, graph: Graph, context: Context) -> Graph:
        """Raises UserError where a system has no such discrete form, or there is no elapsed time for it."""
        continuous = [n for n in graph.nodes("ssm") if not (n.op["system"].discrete or n.op["system"].asynchronous)]
        if not continuous:
            return graph
        out = graph.copy()
        for node in continuous:
            try:
                system = statespace.discretize(node.op["system"], self.method)
            except StateSpaceError as error:
                raise UserError("the system cannot be discretised", where=_where(node), why=str(error)) from error
            operands = out.operands(node.name)
            operands += [None] * (3 - len(operands))
            if system.asynchronous:
                operands[1] = _elapsed(out, node)
            recast(out, node.name, node.op.with_attrs(system=system), operands)
        return out


def _elapsed(graph: Graph, node: Node) -> Value:
    """The model's elapsed time at the rate of the node's stream."""
    rate = next(kind.rate for kind in node.types if isinstance(kind, StreamType))
    for source in graph.inputs():
        if source.op["role"] == "dt" and source.types[0] == StreamType((), rate=rate):
            return Value(source.name)
    raise UserError(
        "the system's decay is to follow the elapsed time, and no input of the model gives it",
        where=_where(node),
        hint="use a method of fixed steps (zoh, bilinear), or give the model an input of the role 'dt'",
    )


def _where(node: Node) -> str:
    return f"pass 'discretize', {node.where}"
