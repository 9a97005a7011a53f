"""What a run adds up to while its ops are timed, one after the other: cycles, clock phases and costs, by layer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.clock.cost import Cost
from backends.epochcore.clock.frames import ON_ARRAY
from backends.epochcore.clock.plans import Plan, paid

Ints = NDArray[np.int64]


@dataclass(slots=True)
class Layer:
    """What a layer adds up to: cycles, those in which the array's clocks run, and how often it pays which cost."""

    cycles: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    paid: dict[int, tuple[Cost, int]] = field(default_factory=dict)

    def pay(self, cost: Cost, times: int) -> None:
        before = self.paid.get(id(cost))
        self.paid[id(cost)] = cost, times if before is None else before[1] + times

    @property
    def macs(self) -> int:
        return sum(cost.macs * times for cost, times in self.paid.values())

    @property
    def passes(self) -> int:
        """Cycles in which passes over the array take in steps, one pass after the other."""
        computed = ((cost, times) for cost, times in self.paid.values() if cost.engine == "compute")
        return sum((cost.cycles if cost.busy is None else cost.busy) * times for cost, times in computed)

    @property
    def on_array(self) -> bool:
        return any(cost.engine in ON_ARRAY for cost, _ in self.paid.values())

    def events(self) -> Counter[str]:
        found = Counter(self.phases)
        for cost, times in self.paid.values():
            for name, count in cost.events.items():
                found[name] += count * times
        return found


class Totals(NamedTuple):
    """What has been added up so far of plans: instructions, how often each one is paid, cycles and clock phases."""

    issued: int
    paid: dict[int, int]
    counts: Ints


@dataclass
class Account:
    """Layers of a run; `issued` instructions; the `ends` of all ops, and of the clocks of the array's engines.

    Ops are added by plans: what those add up to is in `layers` once it is `settled`. There are `locs` that instructions
    may come from.
    """

    locs: int
    layers: dict[int | None, Layer] = field(default_factory=dict)
    issued: int = 0
    ends: Ints = field(default_factory=lambda: np.zeros(1 + len(ON_ARRAY), np.int64))
    _plans: dict[int, Plan] = field(default_factory=dict)
    _paid: dict[int, int] = field(default_factory=dict)  # by identity of plans, which are kept
    _counts: Ints = field(init=False)  # by loc, from 1 on: cycles, and those in which the clock of an engine runs

    def __post_init__(self) -> None:
        self._counts = np.zeros((1 + len(ON_ARRAY), self.locs + 1), np.int64)

    def add_all(self, plan: Plan, begun: Ints, finished: Ints, times: int) -> None:
        """The ops of a plan, from when each has `begun` until it is `finished`, that are paid so many `times`."""
        from backends.epochcore.clock.adding import add  # it loads the compiler

        key = id(plan)
        self._plans[key] = plan
        self._paid[key] = self._paid.get(key, 0) + times
        self.issued += plan.issued * times
        add(begun, finished, plan.layer, plan.on, times, self.ends, self._counts)

    def settled(self) -> None:
        """Put what plans add up to into `layers`."""
        for loc, cost, count in paid(list(self._plans.values()), list(self._paid.values())):
            self._layer(loc).pay(cost, count)
        for loc, layer in self.layers.items():
            cycles, *phases = self._counts[:, 0 if loc is None else loc + 1].tolist()
            layer.cycles += cycles
            layer.phases.update({f"{engine}_cycles": n for engine, n in zip(ON_ARRAY, phases, strict=True) if n})

    def _layer(self, loc: int | None) -> Layer:
        layer = self.layers.get(loc)
        if layer is None:
            layer = self.layers[loc] = Layer()
        return layer

    @property
    def cycles(self) -> int:
        return sum(layer.cycles for layer in self.layers.values())

    def totals(self) -> Totals:
        """What has been added up so far, for `again`."""
        return Totals(self.issued, dict(self._paid), self._counts.copy())

    def again(self, before: Totals, times: int) -> None:
        """Add what has been added since `before` so many times more; `ends` stay."""
        self.issued += (self.issued - before.issued) * times
        self._counts += (self._counts - before.counts) * times
        for key, so_far in self._paid.items():
            self._paid[key] = so_far + (so_far - before.paid.get(key, 0)) * times
