"""Engines that hand over step by step: an instruction starts with the first steps of what it reads.

Where `array.handover_steps` is not 0, instructions of a loop over time work on blocks of so many steps, in the loop's
direction. An engine takes its instructions in program order and gives a block to whoever waits for it; a block of a
result is there `latency` cycles after the last of its steps was taken in. So block k of instruction i begins at

    begin_i(k) = max(end_i(k - 1), end_j(k) + latency_j for every j whose block k it reads or overwrites,
                     end_j(k) for every j that must have read block k before it is overwritten)

and takes its share of the cycles of the instruction; a cycle that a block does not use up goes to the next one, if that
may begin with it. Passes of the array follow each other without a gap, as wavefronts on the diagonal do, or later as
`Wave.behind` says. Where two instructions do not meet step by step (rows given once a sequence, another rate, the loop
before, sums that stay in place) the whole instruction is waited for.

Parameters and states are shifted in on the diagonal too: they may begin `Wave.leads` cycles after a pass, so that its
first step has taken over what was there. When a pass takes over its states, those of the pass before go to registers of
their own and from there out, when all of them are final; so these must be empty of the states of the pass before that.
Without shadow registers the array must be empty before anything is shifted in. `stepped.streaming` checks all of this
cycle by cycle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Arch
from backends.epochcore.clock.channel import Channel, one_by_one
from backends.epochcore.clock.cost import Cost
from backends.epochcore.clock.wave import Wave
from backends.epochcore.program.conflicts import Conflicts
from backends.epochcore.program.regions import PASSES
from isa import Instruction

Ints = NDArray[np.int64]
SHIFTS = ("preload", "state.load", "state.store")
KEPT = 4  # runs of each in a group that are remembered at most, on the average


class Blocks(NamedTuple):
    """Of each block of an instruction: what those `before` it take of the engine, in cycles over `unit`, and with it
    (`done`); when it ends, after the start, where nothing holds up any of them (`alone`)."""

    number: int
    unit: int
    before: Ints
    done: Ints
    alone: Ints


class Job(NamedTuple):
    """What placing an instruction takes, the same at every run of it with this `cost` and `steps`."""

    cost: Cost
    steps: int
    engine: str
    way: str  # through the array: a pass, one of the shifts, or none
    busy: int
    channel: bool
    blocks: Blocks | None


class Run(NamedTuple):
    """When an op ran, and on which track of the trace: from its start until its whole result is there."""

    engine: str
    start: int
    finish: int


class Latest(NamedTuple):
    """The last run of an instruction: when its blocks ended (None: it was of one), and the latency of its results."""

    finish: int
    latency: int
    steps: int
    ends: Ints | None


@dataclass
class Handover:
    """Engines and the last run of every instruction while a program is timed."""

    arch: Arch
    known: Conflicts
    engines: dict[str, int] = field(default_factory=dict)
    latest: list[Latest] = field(default_factory=list)
    touched: list[int] = field(default_factory=list)  # when the last runs of a group are finished
    recent: list[list[tuple[int, int]]] = field(
        default_factory=list
    )  # runs of a group: none before is done later, of whom
    channel: Channel = field(default_factory=Channel)
    last: tuple[int, Wave | None] = (0, None)  # when the engine was through with the last pass, and its way
    parameters: int = 0  # when parameters in the shadow registers are complete,
    states: int = 0  # and states
    led: tuple[int, Wave | None] = (0, None)  # when the last pass began that others are shifted in behind, and how
    passed: int = 0  # when the last pass has all its states
    drained: tuple[int, int] = (0, 0)  # when the states of the last two passes were out
    _jobs: list[Job | None] = field(default_factory=list)
    _blocks: dict[tuple[int, int], tuple[Cost, Blocks]] = field(default_factory=dict)  # by cost and steps
    _waits: dict[tuple[int, int], int] = field(default_factory=dict)
    _kept: list[tuple[Wave, Wave]] = field(default_factory=list)
    _pipes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.latest = [Latest(0, 0, 0, None)] * len(self.known.loop)
        self.touched = [0] * len(self.known.members)
        self.recent = [[] for _ in self.known.members]
        self._jobs = [None] * len(self.known.loop)
        self._pipes = ("vector", *(f"vector.{n}" for n in range(1, self.arch.vector.pipes)))

    def place(self, index: int, ins: Instruction, cost: Cost, steps: int) -> Run:
        """The next run of the instruction at `index`."""
        job = self._jobs[index]
        if job is None or job.cost is not cost or job.steps != steps:
            job = self._jobs[index] = self._job(index, ins, cost, steps)
        engines, slot = self.engines, job.engine
        if slot == "vector" and len(self._pipes) > 1:  # the one that is free first
            slot = min(self._pipes, key=lambda pipe: engines.get(pipe, 0))
        begin = max((engines.get(slot, 0), *map(self.touched.__getitem__, self.known.groups[index])))
        if job.way:
            begin = max(begin, self._array_ready(job))
        ends, late = None, job.cost.late
        if job.blocks is None:
            start = self._ready(index, begin)
            if job.channel:
                start, end = self.channel.take_one(start, job.busy, self._horizon())
            else:
                end = start + job.busy
        else:
            start, ends = self._in_blocks(index, job, job.blocks, begin)
            if job.cost.turns is not None:  # blocks are done with in the last of several passes
                late = job.cost.turns.last(start, int(ends[-1])) - start
                ends = job.blocks.alone + (start + late)
            end = int(ends[-1])
        engines[slot] = end
        finish = end + cost.latency
        self._finished(index, Latest(finish, cost.latency, steps, ends))
        if job.way:
            self._array_moved(job, start + late, end, finish)
        return Run(job.engine, start, finish)

    def _job(self, index: int, ins: Instruction, cost: Cost, steps: int) -> Job:
        engine = engine_of(ins.mnemonic, cost.engine, self.arch)
        way = "pass" if ins.mnemonic in PASSES else ins.mnemonic if ins.mnemonic in SHIFTS else ""
        busy, blocks = cost.cycles - cost.latency, None
        if in_blocks(ins, cost, steps, self.arch, bool(self.known.loop[index])):
            known = self._blocks.get((id(cost), steps))
            blocks = known[1] if known else _blocks(cost.first, steps, self.arch)
            self._blocks[id(cost), steps] = cost, blocks
        return Job(cost, steps, engine, way, busy, cost.events.get("dram_bytes", 0) > 0, blocks)

    def _horizon(self) -> int:
        """Before this nothing will ask for the DRAM channel any more."""
        return min(self.engines.get("load", 0), self.engines.get("store", 0))

    def _finished(self, index: int, run: Latest) -> None:
        """Note a run, and when those that touch the same are finished: the last one of each counts."""
        before, self.latest[index] = self.latest[index].finish, run
        for group in self.known.touches[index]:
            recent, latest = self.recent[group], self.touched[group]
            recent.append((max(run.finish, recent[-1][0]) if recent else run.finish, index))
            if len(recent) > KEPT * len(self.known.members[group]):
                self._forget(group)
            if run.finish >= latest:
                self.touched[group] = run.finish
            elif before == latest:
                self.touched[group] = max(self.latest[other].finish for other in self.known.members[group])

    def _forget(self, group: int) -> None:
        """Keep the last run of each in a group."""
        kept: list[tuple[int, int]] = []
        for index in reversed(dict.fromkeys(index for _, index in reversed(self.recent[group]))):
            finish = self.latest[index].finish
            kept.append((max(finish, kept[-1][0]) if kept else finish, index))
        self.recent[group] = kept

    def postpone(self, instructions: Sequence[int], late: int) -> None:
        """Let the last runs of some instructions have been so much later."""
        for index in instructions:
            finish, latency, steps, ends = self.latest[index]
            self.latest[index] = Latest(finish + late, latency, steps, None if ends is None else ends + late)
        groups = dict.fromkeys(group for index in instructions for group in self.known.touches[index])
        for group in groups:
            runs = sorted((self.latest[index].finish, index) for index in self.known.members[group])
            self.recent[group], self.touched[group] = runs, runs[-1][0]

    def _late(self, groups: list[int], begin: int) -> Iterator[int]:
        """Instructions of groups whose last runs may be finished after `begin`."""
        for group in groups:
            if self.touched[group] > begin:
                for finish, index in reversed(self.recent[group]):
                    if finish <= begin:
                        break
                    yield index

    def _ready(self, index: int, begin: int) -> int:
        """When an instruction of one block may begin, as far as others are concerned."""
        for j in self._late(self.known.givers[index], begin):
            begin = max(begin, self.latest[j].finish)
        for j in self._late(self.known.takers[index], begin):
            begin = max(begin, self.latest[j].finish - self.latest[j].latency)
        return begin

    def _in_blocks(self, index: int, job: Job, blocks: Blocks, begin: int) -> tuple[int, Ints]:
        """When an instruction begins, and when each of its blocks ends."""
        ready, first = None, 0  # when each block may begin, and the first of them
        for others, with_latency in ((self.known.givers[index], True), (self.known.takers[index], False)):
            for j in self._late(others, max(begin, first)):
                finish, latency, steps, ends = self.latest[j]
                late = latency if with_latency else 0
                last = finish - latency + late
                if last <= begin or last <= first:
                    continue
                if ends is not None and steps == job.steps and len(ends) == blocks.number:
                    there = ends + late if late else ends
                    ready = there if ready is None else np.maximum(ready, there)
                    first = int(ready[0])
                else:
                    begin = last
        if ready is None and not job.channel:
            return begin, blocks.alone + begin
        ready = np.full(blocks.number, begin) if ready is None else np.maximum(ready, begin)
        if job.channel:
            return self.channel.take(ready, blocks.before, blocks.done, blocks.unit, self._horizon())
        if blocks.unit == 1:
            return int(ready[0]), one_by_one(ready, blocks.before, blocks.done)
        return int(ready[0]), -(-one_by_one(blocks.unit * ready, blocks.before, blocks.done) // blocks.unit)

    def _array_ready(self, job: Job) -> int:
        match job.way:
            case "preload" | "state.load":
                begun, ahead = self.led
                behind = 0 if ahead is None else ahead.leads(job.cost.shift)
                return begun + behind if self.arch.array.shadow else max(self.passed, *self.drained)
            case "state.store":
                return max(self.passed, self.drained[1])
            case "pass":
                ready = max(self.parameters, self.states, self.drained[0])
                if job.cost.wave is None:
                    return max(ready, self.passed)  # a pass of no steps takes over all at once
                end, before = self.last
                return ready if before is None else max(ready, end + self._behind(job.cost.wave, before))
        return 0

    def _behind(self, wave: Wave, before: Wave) -> int:
        """`Wave.behind`, known by what they are: they are kept, so that no other has their place."""
        pair = id(wave), id(before)
        found = self._waits.get(pair)
        if found is None:
            found = self._waits[pair] = wave.behind(before)
            self._kept.append((wave, before))
        return found

    def _array_moved(self, job: Job, start: int, end: int, finish: int) -> None:
        """An instruction, of several passes the last one, began and is finished."""
        match job.way:
            case "preload":
                self.parameters = finish
            case "state.load":
                self.states = finish
            case "state.store":
                self.drained = (self.drained[1], finish)
            case "pass":
                self.led, self.passed = (start, job.cost.wave), finish
                if job.cost.wave is not None:
                    self.last = end, job.cost.wave


def engine_of(name: str, engine: str, arch: Arch) -> str:
    """States have ways in and out of their own, where the array has shadow registers."""
    if not arch.array.shadow:
        return "compute" if engine == "preload" else engine
    return {"state.load": "preload", "state.store": "drain"}.get(name, engine)


def in_blocks(ins: Instruction, cost: Cost, steps: int, arch: Arch, looped: bool) -> bool:
    """Whether an instruction works block by block."""
    return looped and steps > arch.array.handover_steps and "steps" in ins.operands and not cost.apart


def _blocks(cost: Cost, steps: int, arch: Arch) -> Blocks:
    shares, unit = blocks_of(cost, steps, arch), steps
    if not (shares % steps).any():
        shares, unit = shares // steps, 1
    done = np.cumsum(shares)
    return Blocks(len(shares), unit, done - shares, done, -(-done // unit))


def blocks_of(cost: Cost, steps: int, arch: Arch) -> Ints:
    """What every block takes of an engine's time, in units of a cycle over `steps`."""
    size = arch.array.handover_steps
    low = np.arange(0, steps, size)
    high = np.minimum(low + size, steps)
    return (cost.cycles - cost.latency) * (high - low) if cost.takes is None else steps * cost.takes(low, high)
