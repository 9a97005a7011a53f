"""When each node runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ssmc.diagnostics import UserError
from ssmc.ir import Graph, Node, Place, SequenceType, StreamType
from ssmc.passes.base import Context, Pass

BEFORE, STEPS, AFTER = "before", "steps", "after"
LONGEST = 1 << 20  # ours: steps that costs are compared for, seconds of work
OBJECTIVES = ("cycles", "energy", "edp")


@dataclass(frozen=True)
class Schedule(Pass):
    """Give every node a place: once before the time loop, in it, or once after it; and its position there.

    before  %y = tile.matmul(%x)
    after   %y = tile.matmul(%x) place(0, 4, steps)

    On targets that know several forms of a system the cheapest is taken: `form` names one instead, `window` the steps
    of its windows, `segments` how many stretches of time it takes at once, and `steps` the length of sequence that
    costs are compared for (0: that of the calibration data or of the model's file, else the target's own). `dataflow`
    says what an array keeps of all matrix products: weights, weights-by-rows (the same in another order) or results;
    left out, what makes the whole program fastest. `directions` are those of bidirectional layers: apart, in a loop
    each, or together in one pass over the array. `batch` says how many sequences come at once (0: as many as the
    model's file says, else one), `together` how many of them the machine runs side by side (0: by cost). `groups` says
    into how many groups of rows channels may be packed in a column of an array (1: into none, 0: by cost). The
    `objective` of all these choices is cycles, energy, or edp, the product of both.

    Streams run in the loop. A value of one per sequence runs after it if it depends on a stream (a pooled head, a
    last state), else before it. A stream that needs such a value runs in another loop, where the machine sweeps a
    sequence several times. Within a phase nodes keep the graph's stable topological order.
    """

    name = "schedule"
    form: str = ""
    window: int = 0
    steps: int = 0
    dataflow: str = ""
    segments: int = 0
    directions: str = ""
    batch: int = 0
    together: int = 0
    groups: int = 0
    objective: str = OBJECTIVES[0]

    def __post_init__(self) -> None:
        for name in ("window", "steps", "segments", "batch", "together", "groups"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is 0 or more, not {getattr(self, name)}")
        if self.steps > LONGEST:
            raise ValueError(f"steps is at most {LONGEST}, not {self.steps}: costs are compared step by step")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective is one of {', '.join(OBJECTIVES)}, not '{self.objective}'")

    def run(self, graph: Graph, context: Context) -> Graph:
        """Raises UserError where a step needs what is known only after the last step, and there is one sweep, or where
        this leaves out what an earlier schedule asked for."""
        out = graph.copy()
        phase: dict[str, int] = {}
        several = context.machine is not None and context.machine.sweeps
        for node in out.nodes():
            phase[node.name] = _phase(out, node, phase, several)
        order = sorted(out.order(), key=lambda name: phase[name])  # stable
        for position, name in enumerate(order):
            out.set_place(name, Place(0, position, _named(phase[name])))
        steps = self.steps or context.usual_steps(out)
        asked = {"form": self.form, "window": self.window, "segments": self.segments, "steps": steps}
        asked |= {"dataflow": self.dataflow, "directions": self.directions}
        asked |= {"batch": self._batch(context), "together": self.together, "groups": self.groups}
        asked |= {"objective": self.objective}
        asked |= {"by_file": not self.steps and not context.calibration_steps(out)}
        asked = {name: value for name, value in asked.items() if value}
        self._require_kept(graph.attributes.get("schedule", {}), asked)
        out.attributes["schedule"] = asked
        return out

    def _require_kept(self, earlier: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
        defaults = {option.name: option.default for option in fields(self)}
        lost = {
            name: value
            for name, value in earlier.items()
            if name in defaults and value != asked.get(name) and getattr(self, name) == defaults[name]
        }
        if lost:
            told = ",".join(f"{name}={value}" for name, value in lost.items())
            raise UserError(
                f"an earlier schedule{{{told}}} would have no effect",
                where="pass 'schedule'",
                why="the last schedule counts, and it leaves that out",
                hint=f"put it last, as in 'default,schedule{{{told}}}'",
            )

    def _batch(self, context: Context) -> int:
        """Sequences that come at once. A model that was exported for one of them says nothing about it."""
        alone = context.machine is not None and not context.machine.rounds
        if self.batch or context.batch < 2 or alone:
            return self.batch
        context.note(self, "", f"the file is for {context.batch} sequences at a time, and so the program is scheduled")
        return context.batch


def _named(phase: int) -> str:
    return STEPS if phase % 2 else AFTER if phase else BEFORE


def _phase(graph: Graph, node: Node, phase: dict[str, int], several: bool) -> int:
    """0 before the time loop, 1 in it, 2 after it, 3 in the next one and so on."""
    sources = [value.node for value in graph.operands(node.name) if value is not None]
    latest = max((phase[source] for source in sources), default=0)
    lasts = [source for source in sources if _is_last(graph, node, source, phase)]
    latest = max([latest, *(phase[source] + 1 for source in lasts)])
    if not any(isinstance(kind, StreamType) for kind in node.types):
        return latest + latest % 2  # it reads a stream, or a last state that the loop leaves
    late = [*lasts, *(source for source in sources if phase[source] % 2 == 0 and phase[source])]
    if late and not several:
        raise UserError(
            f"every step of '{node.name}' needs '{late[0]}', which is known only after the last step",
            where=f"pass 'schedule', {node.where}",
            why="a program runs through the sequence once",
            hint="split the model there, and run the second part on the first part's result",
        )
    return latest + 1 - latest % 2


def _is_last(graph: Graph, node: Node, source: str, phase: dict[str, int]) -> bool:
    """Whether `node` reads a last state: what a node of the loop leaves once per sequence."""
    read = [value for value in graph.operands(node.name) if value is not None and value.node == source]
    return phase[source] % 2 == 1 and any(isinstance(graph.type(value), SequenceType) for value in read)
