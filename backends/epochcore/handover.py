"""Engines that hand over step by step: an instruction starts with the first steps of what it reads.

Where `array.handover_steps` is not 0, instructions of a loop over time work on blocks of so many steps. An engine takes
its instructions in program order and gives a block to whoever waits for it; a block of a result is there `latency`
cycles after the last of its steps was taken in. So block k of instruction i begins at

    begin_i(k) = max(end_i(k - 1), end_j(k) + latency_j for every j whose block k it reads or overwrites,
                     end_j(k) for every j that must have read block k before it is overwritten)

and passes of the array follow each other without a gap, as wavefronts on the diagonal do. Where two instructions do
not meet step by step (rows given once a sequence, another rate, the loop before) the whole instruction is waited for.
States and parameters of the next pass are shifted in, and those of the last one out, under the present pass.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.accesses import Held, Words, accesses
from backends.epochcore.arch import Arch
from backends.epochcore.cost import Cost
from backends.epochcore.rates import most_rows
from isa import Instruction, Program

Ints = NDArray[np.int64]
PASSES = ("mac", "fri", "fri.x", "tri", "tri.x", "sel")
# Where parameters and streams lie in the one space in which conflicts are looked for.
PARAMETERS, STREAMS = 1 << 40, 1 << 41


@dataclass(frozen=True)
class Conflicts:
    """By instruction: others that it waits for as a whole, and block by block for their results or their reading."""

    whole: list[Ints]
    results: list[list[int]]
    reads: list[list[int]]
    loop: list[int]


def conflicts(program: Program, steps: int) -> Conflicts:
    """Which instructions meet in the scratchpad, the parameter memory and the streams."""
    code, labels = program.sections[0].code, program.sections[0].labels
    rows: list[tuple[int, int, int, int, int, int, int, int]] = []
    loop, limit, stop = [0] * len(code), 1, -1
    shadow = active = Held(1, 1, False)
    registers: dict[str, int] = {}
    rates: dict[str, Instruction] = {}
    for index, ins in enumerate(code):
        if index == stop:
            limit, stop = 1, -1
        if ins.mnemonic == "chunks":
            limit, stop = max(1, min(int(ins["limit"]), steps)), labels[str(ins["end"])]
        if stop >= 0:
            loop[index] = stop
        if ins.mnemonic == "rate":
            rates[str(ins["dst"])] = ins
        elif ins.mnemonic == "preload":
            shadow = Held(int(ins["rows"]), int(ins["cols"]), bool(ins["complex"]))
        elif ins.mnemonic in PASSES:
            active = shadow
        for w in (*accesses(ins, active), *_elsewhere(ins)):
            register = -1 if w.register is None else registers.setdefault(w.register, len(registers))
            extent = (most_rows(w.register or "one", limit, rates) - 1) * w.pitch + w.words
            rows.append((index, w.start, w.start + extent, w.words, w.pitch, register, w.written, loop[index]))
    table = np.array(rows or [(0,) * 8], np.int64).T
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
    index, start, stop, words, pitch, register, written, loops = table
    a, b = np.nonzero(
        (start[:, None] < stop)
        & (start < stop[:, None])
        & ((written[:, None] | written) > 0)
        & (index[:, None] != index)
    )
    stepped = (register[a] >= 0) & (register[b] >= 0) & (pitch[a] == pitch[b])
    apart = np.where(stepped, (start[b] - start[a]) % np.maximum(pitch[a], 1), 0)
    kept = ~stepped | (apart < words[a]) | (apart + words[b] > pitch[a])
    a, b, stepped = a[kept], b[kept], stepped[kept]
    apart = start[b] - start[a]
    fits = np.where(apart >= 0, apart + words[b], words[a] - apart) <= pitch[a]
    chained = stepped & (register[a] == register[b]) & (loops[a] == loops[b]) & fits
    results, reads = (
        _grouped(index[a[kept]], index[b[kept]], count)
        for kept in (chained & (written[b] > 0), chained & (written[b] == 0))
    )
    whole = _grouped(index[a[~chained]], index[b[~chained]], count)
    return Conflicts(whole, [r.tolist() for r in results], [r.tolist() for r in reads], loop)


def _grouped(consumers: Ints, producers: Ints, count: int) -> list[Ints]:
    """Producers by consumer, each once."""
    pairs = np.unique(consumers * count + producers)
    bounds = np.searchsorted(pairs, np.arange(count + 1) * count)
    return [pairs[low:high] % count for low, high in itertools.pairwise(bounds)]


@dataclass
class Handover:
    """Engines and the last execution of every instruction while a program is timed."""

    arch: Arch
    known: Conflicts
    engines: dict[str, int] = field(default_factory=dict)
    done: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    ends: list[Ints | None] = field(default_factory=list)
    latency: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    dram: int = 0  # when the channel to DRAM is through with what it was given
    parameters: int = 0  # when parameters in the shadow registers are complete,
    parameters_free: int = 0  # and when the array has taken them over
    states: int = 0
    states_free: int = 0
    passed: int = 0  # when the last pass has all its states
    drained: tuple[int, int] = (0, 0)  # when the states of the last two passes were out

    def __post_init__(self) -> None:
        count = len(self.known.whole)
        self.done = np.zeros(count, np.int64)
        self.ends, self.latency, self.steps = [None] * count, [0] * count, [0] * count

    def place(self, index: int, ins: Instruction, cost: Cost, steps: int) -> tuple[str, int, int]:
        """(engine, begin, when its whole result is there)."""
        name, engine = ins.mnemonic, self._engine(ins.mnemonic, cost.engine)
        busy = cost.cycles - cost.latency
        block = self.arch.array.handover_steps
        blocks = max(1, -(-steps // block)) if "steps" in ins.operands and self.known.loop[index] else 1
        if engine == "vector":
            pipes = [engine if n == 0 else f"{engine}.{n}" for n in range(self.arch.vector.pipes)]
            slot = min(pipes, key=lambda pipe: self.engines.get(pipe, 0))
        else:
            slot = engine
        begin = self.engines.get(slot, 0)
        whole = self.known.whole[index]
        if whole.size:
            begin = max(begin, int(self.done[whole].max()))
        begin = max(begin, self._array_ready(name))
        channel = cost.events.get("dram_bytes", 0) > 0
        if channel:
            begin = max(begin, self.dram)
        ready = self._blocks_ready(index, steps, blocks, begin)
        taken = -(-busy * np.minimum(np.arange(blocks + 1) * block, steps) // max(1, steps)) if blocks > 1 else None
        if taken is None:
            start = max(begin, int(ready[0])) if ready is not None else begin
            ends = np.array([start + busy])
        else:
            first = np.full(blocks, begin) if ready is None else np.maximum(ready, begin)
            ends = np.maximum.accumulate(first - taken[:-1]) + taken[1:]
            start = int(first[0])
        end = int(ends[-1])
        finish = end + cost.latency
        if channel:
            self.dram = start + busy
        self.engines[slot] = end
        self.ends[index], self.latency[index], self.steps[index], self.done[index] = ends, cost.latency, steps, finish
        self._array_moved(name, start, finish)
        return engine, start, finish

    def _engine(self, name: str, engine: str) -> str:
        if not self.arch.array.shadow:
            return "compute" if engine == "preload" else engine
        return {"state.load": "preload", "state.store": "drain"}.get(name, engine)

    def _blocks_ready(self, index: int, steps: int, blocks: int, begin: int) -> Ints | None:
        """When every block may begin; None where nothing holds it up."""
        ready: Ints | None = None
        for others, with_latency in ((self.known.results[index], True), (self.known.reads[index], False)):
            for j in others:
                ends = self.ends[j]
                if ends is None or self.done[j] <= begin:
                    continue
                late = self.latency[j] if with_latency else 0
                if self.steps[j] == steps and len(ends) == blocks:
                    there: Any = ends + late
                else:
                    there = np.full(blocks, int(ends[-1]) + late)
                ready = there if ready is None else np.maximum(ready, there)
        return ready

    def _array_ready(self, name: str) -> int:
        if name == "preload":
            return self.parameters_free
        if name == "state.load":
            return self.states_free
        if name == "state.store":
            return self.passed
        if name in PASSES:
            return max(self.parameters, self.states, self.drained[0])
        return 0

    def _array_moved(self, name: str, start: int, finish: int) -> None:
        if name == "preload":
            self.parameters = finish
        elif name == "state.load":
            self.states = finish
        elif name == "state.store":
            self.drained = (self.drained[1], finish)
        elif name in PASSES:
            self.parameters_free = self.states_free = start
            self.passed = finish
