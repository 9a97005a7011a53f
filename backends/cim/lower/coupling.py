"""Which products charge state nodes, and which these drive: what the pass `couple` chose, for the lowering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ssmc.ir import Graph


@dataclass(frozen=True)
class Coupling:
    """By name: `cores` of coupled states, `charging` the products onto lines with their states, `driven` those from
    lines."""

    cores: Mapping[str, int] = field(default_factory=dict)
    charging: Mapping[str, str] = field(default_factory=dict)
    driven: Mapping[str, str] = field(default_factory=dict)

    def drives(self, states: str) -> bool:
        """Whether these states drive rows."""
        return states in self.driven.values()

    @property
    def products(self) -> frozenset[str]:
        return frozenset((*self.charging, *self.driven))


def coupling_of(graph: Graph, *, ideal: bool) -> Coupling:
    """The choice that the graph carries; converters stay where `calibrate` told no range for driven rows."""
    found: Mapping[str, Any] = graph.attributes.get("coupling", {})
    ranges: Mapping[str, Any] = graph.attributes.get("converter_ranges", {})
    sides = {
        side: {
            str(each[side]): states
            for states, each in found.items()
            if side in each and (ideal or each[side] in ranges)
        }
        for side in ("in", "out")
    }
    coupled = {*sides["in"].values(), *sides["out"].values()}
    return Coupling({s: int(each["core"]) for s, each in found.items() if s in coupled}, sides["in"], sides["out"])
