"""When an event's work is done: cores run their handlers one instruction at a time and wait for messages.

A first model. The latency of one event is exact in it (a longest path through the cores). The rate at which
events can follow each other is that of the busiest core among those that exchange messages in a sweep.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import networkx as nx

from backends.cim.arch import Architecture
from backends.cim.clock.costs import Data, cost
from backends.cim.program.decode import Item, cores, decode, walk
from isa import Program

LoopId = tuple[int, int]  # core, index of the loop
Cycles = Callable[[Item], int]


@dataclass(frozen=True)
class Busy:
    """One instruction of the first event: core, index, start and cycles."""

    core: int
    index: int
    mnemonic: str
    loc: int | None
    start: int
    cycles: int


@dataclass
class Schedule:
    """Cycles of one sample: all of it, of one event in its core, between events; and what the first event does."""

    cycles: int = 0
    latency: int = 0
    interval: float = 0.0
    first: list[Busy] = field(default_factory=list)


def rounds(item: Item, steps: int) -> int:
    """How often a loop's or guard's body runs in a sequence of `steps`."""
    return max(0, -(-(steps - item.integer("offset")) // item.integer("stride")))


def schedule(program: Program, arch: Architecture, steps: int) -> Schedule:
    """Time of one sample of `steps` steps."""
    trees = {number: decode(section) for number, section in cores(program).items()}
    cycles = cycles_of(arch, program.data)
    interval = intervals(trees, cycles)
    sends = (item for tree in trees.values() for item in walk(tree) if item.code.mnemonic == "send")
    model = _Model(arch, cycles, steps, interval, frozenset(item.integer("channel") for item in sends))
    running = {number: model.run(number, tree) for number, tree in trees.items()}
    waits: dict[int, int] = {}  # by core, the channel that it waits for
    before = -1
    while running and before != len(running) + len(model.first):  # the simulator names a deadlock
        before = len(running) + len(model.first)
        for number, process in list(running.items()):
            if number in waits and waits[number] not in model.sent:  # most cores wait most of the time
                continue
            channel = next(process, None)
            if channel is None:
                del running[number]
            else:
                waits[number] = channel
    result = Schedule(max(model.now.values(), default=0), model.latency, max(interval.values(), default=0.0))
    result.first = model.first
    return result


@dataclass
class _Model:
    arch: Architecture
    cycles: Cycles
    steps: int
    interval: Mapping[LoopId, float]
    internal: frozenset[int]  # channels between cores; the host's messages are there already
    now: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    sent: dict[int, int] = field(default_factory=dict)  # channel: arrival of its first message
    first: list[Busy] = field(default_factory=list)
    latency: int = 0

    def run(self, core: int, items: tuple[Item, ...]) -> Iterator[int]:
        for item in items:
            name = item.code.mnemonic
            if name == "loop":
                yield from self._loop(core, item)
                continue
            if name == "every":
                yield from self.run(core, item.body)
                continue
            if name in ("recv", "collect"):
                channel = item.integer("channel")
                while channel in self.internal and channel not in self.sent:
                    yield channel
                self.now[core] = max(self.now[core], self.sent.get(channel, 0))
            spent = self.cycles(item)
            self.first.append(Busy(core, item.index, name, item.loc, self.now[core], spent))
            self.now[core] += spent
            if name == "send":
                target = item.integer("core")
                hops = self.arch.hops(core, target) * self.arch.mesh.hop_cycles
                self.sent.setdefault(item.integer("channel"), self.now[core] + hops)

    def _loop(self, core: int, item: Item) -> Iterator[int]:
        start = self.now[core]
        if not rounds(item, self.steps):
            return
        yield from self.run(core, item.body)
        self.latency = max(self.latency, self.now[core] - start)
        more = rounds(item, self.steps) - 1
        self.now[core] += round(more * item.integer("stride") * self.interval[core, item.index])


def cycles_of(arch: Architecture, data: Data) -> Cycles:
    """The cycles of instructions that are asked for more than once; the items must outlive the answer."""
    known: dict[int, int] = {}

    def cycles(item: Item) -> int:
        found = known.get(id(item))
        if found is None:
            found = known[id(item)] = cost(item, arch, data).cycles
        return found

    return cycles


def intervals(trees: Mapping[int, tuple[Item, ...]], cycles: Cycles) -> dict[LoopId, float]:
    """Cycles between steps of every loop, by core and index: the busiest of those that exchange messages."""
    busy: dict[LoopId, float] = {}
    ends: dict[int, list[LoopId]] = defaultdict(list)
    graph: Any = nx.Graph()
    for core, tree in trees.items():
        for loop in (item for item in tree if item.code.mnemonic == "loop"):
            key = (core, loop.index)
            graph.add_node(key)
            busy[key] = _per_step(loop, loop.integer("stride"), cycles)
            for item in walk(loop.body):
                if item.code.mnemonic in ("send", "recv", "collect"):
                    turns = item.integer("copies") if item.code.mnemonic == "collect" else 1
                    for channel in range(item.integer("channel"), item.integer("channel") + turns):
                        ends[channel].append(key)
    for keys in ends.values():
        graph.add_edges_from(pairwise(keys))
    return {key: max(busy[other] for other in group) for group in nx.connected_components(graph) for key in group}


def _per_step(body: Item, stride: int, cycles: Cycles) -> float:
    """Cycles of a body, each instruction weighed by how often it runs in a step."""
    total = 0.0
    for item in body.body:
        if item.body:
            total += _per_step(item, item.integer("stride"), cycles)
        else:
            total += cycles(item) / stride
    return total
