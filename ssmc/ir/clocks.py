"""Inputs that tell the time of events, of which elapsed times are the differences."""

from __future__ import annotations

from math import prod

from ssmc.ir.graph import Graph
from ssmc.ir.types import StreamType


def timestamps(graph: Graph) -> set[str]:
    """Names of the inputs of one number a step from which the elapsed time of an asynchronous system is computed.

    They grow from step to step, for elapsed times are not negative. An input that is the elapsed time is none.
    """
    waiting = []
    for node in graph.nodes("ssm"):
        operands = graph.operands(node.name)
        if len(operands) > 1 and operands[1] is not None:
            waiting.append(operands[1].node)
    found: set[str] = set()
    seen = set(waiting)
    while waiting:
        node = graph.node(waiting.pop())
        kind = node.types[0]
        if node.op.name == "input" and node.op["role"] != "dt" and isinstance(kind, StreamType):
            found |= {node.op["name"]} if kind.element == "real" and prod(kind.shape) == 1 else set()
        for value in graph.operands(node.name):
            if value is not None and value.node not in seen:
                seen.add(value.node)
                waiting.append(value.node)
    return found


__all__ = ["timestamps"]
