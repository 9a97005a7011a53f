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

Here is what `placing`, which follows these rules op by op, works on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Arch
from backends.epochcore.clock import channel, placing
from backends.epochcore.clock.cost import Cost
from backends.epochcore.clock.wave import Shift, Wave
from backends.epochcore.program.conflicts import Conflicts
from backends.epochcore.program.dispatch import even
from backends.epochcore.program.regions import PASSES
from isa import Instruction, Program
from ssmc.whole_numbers import Compiled, compiled

Ints = NDArray[np.int64]
WAYS = {
    "preload": placing.PRELOAD,
    "state.load": placing.STATE_LOAD,
    "state.store": placing.STATE_STORE,
    **dict.fromkeys(PASSES, placing.PASS),
}
ENGINES = {
    "load": placing.LOAD,
    "store": placing.STORE,
    "preload": placing.PRELOADING,
    "compute": placing.COMPUTE,
    "drain": placing.DRAIN,
    "vector": placing.VECTOR,
}
ROOM = 256  # intervals of the channel to begin with


class Run(NamedTuple):
    """When an op ran, and on which track of the trace: from its start until its whole result is there."""

    engine: str
    start: int
    finish: int


@dataclass
class Handover:
    """Engines and the last run of every instruction while a program is timed, whose instructions have at most so many
    blocks; jobs are all that its ops were found to be so far."""

    arch: Arch
    known: Conflicts
    most: int
    costs: list[Cost] = field(default_factory=list)  # by job
    engines: list[str] = field(default_factory=list)  # by job
    _jobs: dict[tuple[int, int, str, bool], int] = field(default_factory=dict)
    _rows: list[int] = field(default_factory=list)
    _shares: list[Ints] = field(default_factory=list)
    _shared: int = 0
    _blocks: dict[tuple[int, int], tuple[int, int, int]] = field(default_factory=dict)
    _waves: dict[Wave, int] = field(default_factory=dict)
    _shifts: dict[Shift, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        groups = len(self.known.members.at) - 1
        count = len(self.known.loop)
        self.machine: Ints = np.zeros(placing.VECTOR + self.arch.vector.pipes, np.int64)
        self.machine[[placing.LAST_WAVE, placing.LED_WAVE]] = placing.NO_WAVE
        self.machine[placing.SHADOW] = self.arch.array.shadow
        self.runs: Ints = np.zeros((count, placing.RUN), np.int64)
        self.done: Ints = np.zeros((count, self.most), np.int64)
        self.touched: Ints = np.zeros(groups, np.int64)
        self.channel: Ints = np.array([0, 0, ROOM], np.int64)
        self._taken = [np.zeros(ROOM, np.int64) for _ in range(4)]
        self._ready: Ints = np.zeros(self.most + 4, np.int64)
        self._tables: list[Ints] = []

    def job(self, ins: Instruction, cost: Cost, steps: int, *, looped: bool) -> int:
        """The number of a job."""
        key = id(cost), steps, ins.mnemonic, looped
        found = self._jobs.get(key)
        if found is None:
            found = self._jobs[key] = len(self.costs)
            self.costs.append(cost)
            self._rows += self._row(ins, cost, steps, looped)
            self._tables = []
        return found

    def _row(self, ins: Instruction, cost: Cost, steps: int, looped: bool) -> list[int]:
        engine, name = engine_of(ins.mnemonic, cost.engine, self.arch), ins.mnemonic
        self.engines.append(engine)
        number, unit, at = 0, 1, 0
        if in_blocks(ins, cost, steps, self.arch, looped):
            number, unit, at = self._blocks_of(cost.first, steps)
        way, turns = WAYS.get(name, placing.NO_WAY), cost.turns
        wave = self._waves.setdefault(cost.wave, len(self._waves)) if cost.wave is not None else placing.NO_WAVE
        pipes = self.arch.vector.pipes if engine == "vector" else 1
        busy, takes_channel = cost.cycles - cost.latency, cost.events.get("dram_bytes", 0) > 0
        passes = [0] * 4
        if turns is not None:
            assert turns.one.busy is not None
            passes = [turns.number, turns.after, turns.gap, (turns.number - 2) * turns.following(0, turns.one.busy)]
        shift = self._shifts.setdefault(cost.shift, len(self._shifts))
        row = [ENGINES[engine], pipes, way, busy, int(takes_channel), number, unit, at]
        return [*row, cost.latency, steps, wave, shift, cost.late, *passes]

    def _blocks_of(self, cost: Cost, steps: int) -> tuple[int, int, int]:
        """Of each block of a cost: how many there are, the unit of what they take, and where that is among `shares`."""
        found = self._blocks.get((id(cost), steps))
        if found is None:
            shares, unit = blocks_of(cost, steps, self.arch), steps
            if not (shares % steps).any():
                shares, unit = shares // steps, 1
            done = np.cumsum(shares)
            found = self._blocks[id(cost), steps] = len(shares), unit, self._shared
            self._shares += [done - shares, done, -(-done // unit)]
            self._shared += 3 * len(shares)
        return found

    def place(self, instructions: Ints, jobs: Ints) -> tuple[Ints, Ints]:
        """Place ops, by their instructions and jobs: when they begin, and when they are finished."""
        if not self._tables:
            self._tables = self._tabled()
        rows, shares, behind, leads = self._tables
        self.machine[placing.WAVES], self.machine[placing.SHIFTS] = len(self._waves), len(self._shifts)
        begun, finished = np.zeros((2, len(jobs)), np.int64)
        at, kinds, run, known = 0, jobs * placing.JOB, code(), self.known
        while at < len(jobs):
            at = run(
                *(instructions, kinds, at, len(jobs)),
                *(self.machine, self.channel, *self._taken, rows, shares, behind, leads),
                *(*known.touches, *known.members, *known.apart, *known.given, *known.taken, self.touched),
                *(self.runs, self.done, self.most, self._ready, begun, finished),
            )
            if at < len(jobs):
                more = len(self._taken[0]) + self.most
                self._taken = [np.concatenate([values, np.zeros(more, np.int64)]) for values in self._taken]
                self.channel[channel.ROOM] += more
        return begun, finished

    def _tabled(self) -> list[Ints]:
        waves, shifts = list(self._waves), list(self._shifts)
        behind = [wave.behind(before) for wave in waves for before in waves]
        leads = [wave.leads(shift) for wave in waves for shift in shifts]
        shares = np.concatenate([*self._shares, [0]]).astype(np.int64)
        return [np.array(self._rows, np.int64), shares, *(np.array([*some, 0], np.int64) for some in (behind, leads))]

    @property
    def taken(self) -> tuple[Ints, Ints]:
        """When the channel is taken, as far as somebody may still ask: starts and ends."""
        live = slice(*self.channel[:2].tolist())
        return self._taken[0][live], self._taken[1][live]

    def take_again(self, first: int, each: int, times: int) -> None:
        """What the channel was taken for in the `each` cycles from `first` on is so again, so many `times`."""
        starts, ends = channel.again(*self.taken, first, each, times)
        room = 2 * len(starts) + ROOM
        self._taken = [np.zeros(room, np.int64) for _ in range(4)]
        self._taken[0][: len(starts)], self._taken[1][: len(ends)] = starts, ends
        self.channel[:] = 0, len(starts), room

    def postpone(self, instructions: Ints, late: int) -> None:
        """Let the last runs of some instructions have been so much later."""
        self.runs[instructions, placing.FINISH] += late
        self.done[instructions] += late
        at, members = self.known.members
        if len(members):
            self.touched[:] = np.maximum.reduceat(self.runs[members, placing.FINISH], at[:-1])


@cache
def code() -> Compiled:
    """The machine code of `placing.place`."""
    parts = (channel.place_of, channel.make_room, channel.serve, channel.serve_one)
    return compiled(*parts, placing.wait, placing.note, placing.array_ready, placing.array_moved, placing.place)


def engine_of(name: str, engine: str, arch: Arch) -> str:
    """States have ways in and out of their own, where the array has shadow registers."""
    if not arch.array.shadow:
        return "compute" if engine == "preload" else engine
    return {"state.load": "preload", "state.store": "drain"}.get(name, engine)


def in_blocks(ins: Instruction, cost: Cost, steps: int, arch: Arch, looped: bool) -> bool:
    """Whether an instruction works block by block."""
    return looped and steps > arch.array.handover_steps and "steps" in ins.operands and not cost.apart


def most_blocks(program: Program, arch: Arch, steps: int) -> int:
    """Blocks of an instruction in the longest chunk."""
    chunks = (ins for ins in program.sections[0].code if ins.mnemonic == "chunks")
    longest = max((even(steps, int(ins["limit"]), int(ins["multiple"])) for ins in chunks), default=1)
    return -(-max(1, min(longest, steps)) // arch.array.handover_steps)


def blocks_of(cost: Cost, steps: int, arch: Arch) -> Ints:
    """What every block takes of an engine's time, in units of a cycle over `steps`."""
    size = arch.array.handover_steps
    low = np.arange(0, steps, size)
    high = np.minimum(low + size, steps)
    return (cost.cycles - cost.latency) * (high - low) if cost.takes is None else steps * cost.takes(low, high)
