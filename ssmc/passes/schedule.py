"""When each node runs."""

from __future__ import annotations

from dataclasses import dataclass

from ssmc.diagnostics import UserError
from ssmc.ir import Graph, Node, Place, SequenceType, StreamType
from ssmc.passes.base import Context, Pass

PHASES = ("before", "steps", "after")


@dataclass(frozen=True)
class Schedule(Pass):
    """Give every node a place: once before the time loop, in it, or once after it; and its position there.

    before  %y = tile.matmul(%x)
    after   %y = tile.matmul(%x) place(0, 4, steps)

    On targets that know several forms of a system the cheapest is taken: `form` names one instead, `window` the steps
    of its windows, and `steps` the length of sequence that costs are compared for (0: that of the calibration data or
    of the model's file, else the target's own).

    Streams run in the loop. A value of one per sequence runs after it if it depends on a stream (a pooled head, a
    last state), else before it. Within a phase nodes keep the graph's stable topological order.
    """

    name = "schedule"
    form: str = ""
    window: int = 0
    steps: int = 0

    def run(self, graph: Graph, context: Context) -> Graph:
        """Raises UserError where a step needs what is known only after the last step."""
        out = graph.copy()
        phase: dict[str, int] = {}
        for node in out.nodes():
            phase[node.name] = _phase(out, node, phase)
        order = sorted(out.order(), key=lambda name: phase[name])  # stable
        for position, name in enumerate(order):
            out.set_place(name, Place(0, position, PHASES[phase[name]]))
        steps = self.steps or context.usual_steps(out)
        asked = {"form": self.form, "window": self.window, "steps": steps}
        out.attributes["schedule"] = {name: value for name, value in asked.items() if value}
        return out


def _phase(graph: Graph, node: Node, phase: dict[str, int]) -> int:
    """0 before, 1 in, 2 after the time loop."""
    sources = [value.node for value in graph.operands(node.name) if value is not None]
    latest = max((phase[source] for source in sources), default=0)
    if any(isinstance(kind, StreamType) for kind in node.types):
        late = [source for source in sources if phase[source] == 2 or _is_last(graph, node, source, phase)]
        if late:
            origin = f" (from {', '.join(node.provenance[:3])})" if node.provenance else ""
            raise UserError(
                f"every step of '{node.name}' needs '{late[0]}', which is known only after the last step",
                where=f"pass 'schedule', node '{node.name}'{origin}",
                why="a program runs through the sequence once",
                hint="split the model there, and run the second part on the first part's result",
            )
        return 1
    return 2 if latest >= 1 else 0  # it reads a stream, or a last state that the loop leaves


def _is_last(graph: Graph, node: Node, source: str, phase: dict[str, int]) -> bool:
    """Whether `node` reads a last state: what a node of the loop leaves once per sequence."""
    read = [value for value in graph.operands(node.name) if value is not None and value.node == source]
    return phase[source] == 1 and any(isinstance(graph.type(value), SequenceType) for value in read)
