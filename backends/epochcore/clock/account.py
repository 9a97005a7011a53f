"""What a run adds up to while its ops are timed, one after the other: cycles, clock phases and costs, by layer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.clock.cost import Cost
from backends.epochcore.clock.handover import Run
from backends.epochcore.clock.plans import ON_ARRAY, Plan
from backends.epochcore.program.dispatch import Op

Ints = NDArray[np.int64]
Paid = dict[int, tuple[Cost, int]]


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


def _longer(finished: Ints, end: int) -> tuple[Ints, int]:
    """What each adds to what ended before, and the end of all."""
    ends = np.maximum.accumulate(np.concatenate([[end], finished]))
    return np.diff(ends), int(ends[-1])


Totals = tuple[int, dict[int | None, tuple[int, dict[str, int], Paid]]]


@dataclass
class Account:
    """Layers and length of a run; `issued` instructions; `phases`, until when the clocks of the array's engines run."""

    layers: dict[int | None, Layer] = field(default_factory=dict)
    end: int = 0
    issued: int = 0
    phases: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ON_ARRAY, 0))

    def add(self, op: Op, run: Run, cost: Cost, times: int) -> None:
        """An op that is paid so many `times`."""
        layer = self.layers.get(op.ins.loc)
        if layer is None:
            layer = self.layers[op.ins.loc] = Layer()
        layer.pay(cost, times)
        if run.finish > self.end:
            layer.cycles += (run.finish - self.end) * times
            self.end = run.finish
        phases = self.phases
        if op.engine in phases and op.ins.mnemonic != "sync" and run.finish > phases[op.engine]:
            layer.phases[f"{op.engine}_cycles"] += (run.finish - max(run.start, phases[op.engine])) * times
            phases[op.engine] = run.finish
        self.issued += times

    def add_all(self, plan: Plan, begun: Ints, finished: Ints, times: int) -> None:
        """The ops of a plan, from when each has `begun` until it is `finished`, that are paid so many `times`."""
        for loc, cost, count in plan.paid:
            layer = self.layers.get(loc)
            if layer is None:
                layer = self.layers[loc] = Layer()
            layer.pay(cost, count * times)
        self.issued += plan.issued * times
        if not len(finished):
            return
        longer, self.end = _longer(finished, self.end)
        cycles = np.bincount(plan.layer, longer, len(plan.locs)).astype(np.int64).tolist()
        for loc, more in zip(plan.locs, cycles, strict=True):
            self.layers[loc].cycles += more * times
        for number, engine in enumerate(ON_ARRAY):
            mine = np.flatnonzero(plan.engine == number)
            if not len(mine):
                continue
            before, finish = self.phases[engine], finished[mine]
            longer, self.phases[engine] = _longer(finish, before)
            running = np.minimum(longer, finish - begun[mine])  # from its beginning, or from when another one ended
            ticks = np.bincount(plan.layer[mine], running, len(plan.locs)).astype(np.int64).tolist()
            for loc, more in zip(plan.locs, ticks, strict=True):
                if more:
                    self.layers[loc].phases[f"{engine}_cycles"] += more * times

    @property
    def cycles(self) -> int:
        return sum(layer.cycles for layer in self.layers.values())

    def totals(self) -> Totals:
        """What has been added up so far, for `again`."""
        layers = {loc: (a.cycles, dict(a.phases), dict(a.paid)) for loc, a in self.layers.items()}
        return self.issued, layers

    def again(self, before: Totals, times: int) -> None:
        """Add what has been added since `before` so many times more; `end` and `phases` stay."""
        issued, layers = before
        self.issued += (self.issued - issued) * times
        for loc, layer in self.layers.items():
            cycles, phases, paid = layers.get(loc, (0, {}, Paid()))
            layer.cycles += (layer.cycles - cycles) * times
            for name, count in layer.phases.items():
                layer.phases[name] = count + (count - phases.get(name, 0)) * times
            for key, (cost, count) in layer.paid.items():
                layer.paid[key] = cost, count + (count - (paid[key][1] if key in paid else 0)) * times
