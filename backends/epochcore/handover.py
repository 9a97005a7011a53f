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

import itertools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.accesses import Held, Words, accesses
from backends.epochcore.arch import Arch
from backends.epochcore.channel import Channel, one_by_one
from backends.epochcore.cost import Cost
from backends.epochcore.rates import most_rows
from backends.epochcore.wave import Wave
from isa import Instruction, Program

Ints = NDArray[np.int64]
PASSES = ("mac", "fri", "fri.x", "tri", "tri.x", "sel")
# Where parameters and streams lie in the one space in which conflicts are looked for.
PARAMETERS, STREAMS = 1 << 40, 1 << 41


@dataclass(frozen=True)
class Conflicts:
    """By instruction: others (or its own last run) that it waits for as a whole, and block by block for their results
    or their reading."""

    whole: list[Ints]
    results: list[list[int]]
    reads: list[list[int]]
    loop: list[int]  # where the loop ends that it is in, or 0


def conflicts(program: Program, steps: int) -> Conflicts:
    """Which instructions meet in the scratchpad, the parameter memory and the streams."""
    code, labels = program.sections[0].code, program.sections[0].labels
    rows: list[tuple[int, ...]] = []
    loop, limit, stop, backward = [0] * len(code), 1, -1, False
    shadow = active = Held(1, 1, False)
    registers: dict[str, int] = {}
    rates: dict[str, Instruction] = {}
    for index, ins in enumerate(code):
        if index == stop:
            limit, stop = 1, -1
        if ins.mnemonic == "chunks":
            limit, stop = max(1, min(int(ins["limit"]), steps)), labels[str(ins["end"])]
            backward = bool(ins["backward"])
        if stop >= 0:
            loop[index] = stop
        if ins.mnemonic == "rate":
            rates[str(ins["dst"])] = ins
        elif ins.mnemonic == "preload":
            shadow = Held(int(ins["rows"]), int(ins["cols"]), bool(ins["complex"]))
        elif ins.mnemonic in PASSES:
            active = shadow
        against = bool(ins.operands.get("reverse", backward)) != backward
        for w in (*accesses(ins, active), *_elsewhere(ins)):
            register = -1 if w.register is None else registers.setdefault(w.register, len(registers))
            extent = (most_rows(w.register or "one", limit, rates) - 1) * w.pitch + w.words
            place = (w.start, w.start + extent, w.words, w.pitch, register)
            rows.append((index, *place, w.written, loop[index], against))
    table = np.array(rows or [(0,) * 9], np.int64).T
    return _pairs(table, len(code), loop)


def _elsewhere(ins: Instruction) -> list[Words]:
    """Parameters by their first word, streams by their number."""
    name = ins.mnemonic
    if name == "fetch":
        return [Words(PARAMETERS + int(ins["dst"]), 1, 1, None, True)]
    if name == "preload" and ins["mode"] != "sel":
        places = ["src", *(["scale"] if ins["scaled"] else []), *(["bias"] if ins["biased"] else [])]
        return [Words(PARAMETERS + int(ins[place]), 1, 1, None, False) for place in places]
    if name in ("load", "store"):
        return [Words(STREAMS + int(ins["src" if name == "load" else "dst"]), 1, 1, None, name == "store")]
    return []


def _pairs(table: Ints, count: int, loop: list[int]) -> Conflicts:
    index, start, stop, words, pitch, register, written, loops, against = table
    a, b = _meeting(start, stop, written > 0)
    apart, own, wide = start[b] - start[a], register[a], pitch[a]
    stepped = (own >= 0) & (register[b] >= 0) & (wide == pitch[b])
    inside = np.where(stepped, apart % np.maximum(wide, 1), 0)
    kept = ~stepped | (inside < words[a]) | (inside + words[b] > wide)
    a, b, apart, own, wide, stepped = (values[kept] for values in (a, b, apart, own, wide, stepped))
    # `a` starts first
    fits = np.maximum(words[a], apart + words[b]) <= wide
    chained = stepped & (own == register[b]) & (loops[a] == loops[b]) & (against[a] == against[b]) & fits
    a, b, chained = np.concatenate([a, b]), np.concatenate([b, a]), np.tile(chained, 2)
    results, reads = (
        _grouped(index[a[kept]], index[b[kept]], count)
        for kept in (chained & (written[b] > 0), chained & (written[b] == 0))
    )
    whole = _grouped(index[a[~chained]], index[b[~chained]], count)
    return Conflicts(whole, [r.tolist() for r in results], [r.tolist() for r in reads], loop)


def _meeting(start: Ints, stop: Ints, written: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Pairs of accesses to the same words, one of them written, that which starts first in front; also an access that
    writes and itself."""
    order = np.argsort(start, kind="stable")
    low, high, writes = start[order], stop[order], written[order]
    places = np.arange(len(low))
    # those that start after one of them and before it stops follow it in order
    following = np.maximum(np.searchsorted(low, high) - places - 1, 0)
    first = np.repeat(places, following)
    second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(following) - following, following)
    kept = (writes[first] | writes[second]) & (low[first] < high[second])
    return np.concatenate([order[first[kept]], order[writes]]), np.concatenate([order[second[kept]], order[writes]])


def _grouped(consumers: Ints, producers: Ints, count: int) -> list[Ints]:
    """Producers by consumer, each once."""
    met = np.zeros(count * count, np.bool_)
    met[consumers * count + producers] = True
    rows, found = np.divmod(np.flatnonzero(met), count)
    bounds = np.searchsorted(rows, np.arange(count + 1)).tolist()
    return [found[low:high] for low, high in itertools.pairwise(bounds)]


@dataclass
class Handover:
    """Engines and the last run of every instruction while a program is timed."""

    arch: Arch
    known: Conflicts
    engines: dict[str, int] = field(default_factory=dict)
    done: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    finish: list[int] = field(default_factory=list)  # the same, one by one
    ends: list[Ints | None] = field(default_factory=list)
    latency: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    channel: Channel = field(default_factory=Channel)
    last: Wave | None = None  # how the last pass goes through the array
    parameters: int = 0  # when parameters in the shadow registers are complete,
    states: int = 0  # and states
    led: tuple[int, Wave | None] = (0, None)  # when the last pass began that others are shifted in behind, and how
    passed: int = 0  # when the last pass has all its states
    drained: tuple[int, int] = (0, 0)  # when the states of the last two passes were out

    def __post_init__(self) -> None:
        count = len(self.known.whole)
        self.done = np.zeros(count, np.int64)
        self.ends, self.latency, self.steps, self.finish = [None] * count, [0] * count, [0] * count, [0] * count

    def place(self, index: int, ins: Instruction, cost: Cost, steps: int) -> tuple[str, int, int]:
        """(engine, begin, when its whole result is there)."""
        name, engine = ins.mnemonic, engine_of(ins.mnemonic, cost.engine, self.arch)
        slot = self._slot(engine)
        begin = self.engines.get(slot, 0)
        whole = self.known.whole[index]
        if whole.size:
            begin = max(begin, int(self.done[whole].max()))
        begin = max(begin, self._array_ready(name, cost))
        horizon = min(self.engines.get("load", 0), self.engines.get("store", 0))
        channel = cost.events.get("dram_bytes", 0) > 0
        ends: Ints | None = None
        if not in_blocks(ins, cost, steps, self.arch, bool(self.known.loop[index])):
            start, busy = self._ready(index, begin), cost.cycles - cost.latency
            start, end = self.channel.take_one(start, busy, horizon) if channel else (start, start + busy)
        else:
            blocks = blocks_of(cost, steps, self.arch)
            ready = self._blocks_ready(index, steps, len(blocks), begin)
            if channel:
                start, ends = self.channel.take(ready, blocks, steps, horizon)
            else:
                start, ends = int(ready[0]), -(-one_by_one(steps * ready, blocks) // steps)
            end = int(ends[-1])
        self.engines[slot] = end
        finish = end + cost.latency
        self.ends[index], self.latency[index], self.steps[index] = ends, cost.latency, steps
        self.done[index] = self.finish[index] = finish
        self._array_moved(name, start, finish, cost)
        return engine, start, finish

    def _slot(self, engine: str) -> str:
        """The pipe of the vector unit that is free first, or the engine itself."""
        if engine != "vector":
            return engine
        pipes = [engine if n == 0 else f"{engine}.{n}" for n in range(self.arch.vector.pipes)]
        return min(pipes, key=lambda pipe: self.engines.get(pipe, 0))

    def _ready(self, index: int, begin: int) -> int:
        """When an instruction of one block may begin, as far as others are concerned."""
        for j in self.known.results[index]:
            begin = max(begin, self.finish[j])
        for j in self.known.reads[index]:
            begin = max(begin, self.finish[j] - self.latency[j])
        return begin

    def _blocks_ready(self, index: int, steps: int, blocks: int, begin: int) -> Ints:
        """When every block may begin, as far as others are concerned."""
        ready = None
        for others, with_latency in ((self.known.results[index], True), (self.known.reads[index], False)):
            for j in others:
                if self.finish[j] <= begin:
                    continue
                ends, late = self.ends[j], self.latency[j] if with_latency else 0
                if ends is not None and self.steps[j] == steps and len(ends) == blocks:
                    there = ends + late
                    ready = there if ready is None else np.maximum(ready, there)
                else:
                    begin = max(begin, self.finish[j] - self.latency[j] + late)
        return np.full(blocks, begin) if ready is None else np.maximum(ready, begin)

    def _array_ready(self, name: str, cost: Cost) -> int:
        if name in ("preload", "state.load"):
            begun, ahead = self.led
            behind = 0 if ahead is None else ahead.leads(cost.shift)
            return begun + behind if self.arch.array.shadow else max(self.passed, *self.drained)
        if name == "state.store":
            return max(self.passed, self.drained[1])
        if name not in PASSES:
            return 0
        ready = max(self.parameters, self.states, self.drained[0])
        if cost.wave is None:
            return max(ready, self.passed)  # a pass of no steps takes over all at once
        behind = 0 if self.last is None else cost.wave.behind(self.last)
        return max(ready, self.engines.get("compute", 0) + behind)

    def _array_moved(self, name: str, start: int, finish: int, cost: Cost) -> None:
        if name == "preload":
            self.parameters = finish
        elif name == "state.load":
            self.states = finish
        elif name == "state.store":
            self.drained = (self.drained[1], finish)
        elif name in PASSES:
            self.led, self.passed = (start, cost.wave), finish
            self.last = cost.wave or self.last


def engine_of(name: str, engine: str, arch: Arch) -> str:
    """States have ways in and out of their own, where the array has shadow registers."""
    if not arch.array.shadow:
        return "compute" if engine == "preload" else engine
    return {"state.load": "preload", "state.store": "drain"}.get(name, engine)


def in_blocks(ins: Instruction, cost: Cost, steps: int, arch: Arch, looped: bool) -> bool:
    """Whether an instruction works block by block."""
    return looped and steps > arch.array.handover_steps and "steps" in ins.operands and not cost.apart


def blocks_of(cost: Cost, steps: int, arch: Arch) -> Ints:
    """What every block takes of an engine's time, in units of a cycle over `steps`."""
    busy, size = cost.cycles - cost.latency, arch.array.handover_steps
    return busy * np.minimum(size, steps - np.arange(-(-steps // size)) * size)
