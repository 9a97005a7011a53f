"""A graph whose unrolled loops have become Scans, still to be proved."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ssmc.frontend.source.listing import Listing
from ssmc.frontend.unrolled.families import Reading
from ssmc.frontend.unrolled.rebuilding import Rebuilder
from ssmc.frontend.unrolled.scans import Output, Plan
from ssmc.frontend.unrolled.survey import Survey
from ssmc.ir.graph import Graph, Value


@dataclass(eq=False, repr=False)
class Attempt:
    """A graph with Scans in it, whose values are still to be compared: (old value, new value, plan)."""

    graph: Graph
    listing: Listing = field(default_factory=Listing)
    scans: dict[Plan, Value] = field(default_factory=dict)
    made_up: dict[Plan, dict[tuple[int, int], Value]] = field(default_factory=dict)
    replaced: list[tuple[Value, Value, Plan]] = field(default_factory=list)

    def output(self, plan: Plan, number: int) -> Value:
        return Value(self.scans[plan].node, len(plan.states) + number)

    def replace(
        self, make: Rebuilder, survey: Survey, value: Value, plan: Plan, number: int | None, added: bool
    ) -> None:
        """Let the users of a value read what the plan gives for it."""
        unrolling, own = plan.unrolling, survey.canon[value]
        members = [item for item in unrolling.members(own) if item[0] in plan.linked]
        if number is None:
            family, index, _ = members[0]
            state = plan.last_state(family, index)
            assert state is not None
            new = Value(self.scans[plan].node, state)
        elif any(Output(Reading(f, i), 0, False, unrolling.backward) == plan.outputs[number] for f, i, _ in members):
            step = members[0][2]
            at = unrolling.length - 1 - step if unrolling.backward else step
            new = make.node("Gather", [self.output(plan, number), make.constant(np.array(at))], axis=0)
        else:
            new = self.output(plan, number)
            new = make.summed(new) if added else new
        self.graph.replace_uses(value, new)
        self.replaced.append((value, new, plan))
