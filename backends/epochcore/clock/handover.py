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

Here is laid out what `placing`, which follows these rules op by op, works on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Arch
from backends.epochcore.clock import records
from backends.epochcore.clock.channel import again
from backends.epochcore.clock.cost import Cost
from backends.epochcore.clock.wave import Shift, Wave
from backends.epochcore.program.conflicts import Conflicts
from backends.epochcore.program.dispatch import even
from backends.epochcore.program.passes import PASSES
from isa import Instruction, Program

Ints = NDArray[np.int64]
WAYS = {
    "preload": records.PRELOAD,
    "state.load": records.STATE_LOAD,
    "state.store": records.STATE_STORE,
    **dict.fromkeys(PASSES, records.PASS),
}
ENGINES = {
    "load": records.LOAD,
    "store": records.STORE,
    "preload": records.PRELOADING,
    "compute": records.COMPUTE,
    "drain": records.DRAIN,
    "vector": records.VECTOR,
}
T = TypeVar("T")
U = TypeVar("U")
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
    _rows: list[tuple[int, ...]] = field(default_factory=list)
    _shares: list[Ints] = field(default_factory=list)
    _shared: int = 0
    _blocks: dict[tuple[int, int], tuple[int, int, int]] = field(default_factory=dict)
    _waves: dict[Wave, int] = field(default_factory=dict)
    _shifts: dict[Shift, int] = field(default_factory=dict)
    _behind: dict[tuple[int, int], int] = field(default_factory=dict)
    _leads: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        groups = len(self.known.members.at) - 1
        count = len(self.known.loop)
        known, engines = self.known, records.VECTOR + self.arch.vector.pipes
        array, waves = np.zeros(records.TIMES, np.int64), np.full(records.WAVES, records.NO_WAVE, np.int64)
        channel = records.Channel(np.zeros(2, np.int64), *np.zeros((2, ROOM), np.int64))
        self.machine = records.Machine(np.zeros(engines, np.int64), array, waves, channel)
        done, touched = np.zeros((count, self.most), np.int64), np.zeros(groups, np.int64)
        self.ran = records.Ran(np.zeros(count, records.RUN), done, touched)
        self._meetings = records.Meetings(known.touches, known.members, known.given, known.taken, known.apart)
        self._tables: records.Tables | None = None

    def job(self, ins: Instruction, cost: Cost, steps: int, *, looped: bool) -> int:
        """The number of a job."""
        key = id(cost), steps, ins.mnemonic, looped
        found = self._jobs.get(key)
        if found is None:
            found = self._jobs[key] = len(self.costs)
            self.costs.append(cost)
            self._rows.append(self._row(ins, cost, steps, looped))
            self._tables = None
        return found

    def _row(self, ins: Instruction, cost: Cost, steps: int, looped: bool) -> tuple[int, ...]:
        engine, name = engine_of(ins.mnemonic, cost.engine, self.arch), ins.mnemonic
        self.engines.append(engine)
        number, unit, at = 0, 1, 0
        if in_blocks(ins, cost, steps, self.arch, looped):
            number, unit, at = self._blocks_of(cost.first, steps)
        way, turns = WAYS.get(name, records.NO_WAY), cost.turns
        wave = self._waves.setdefault(cost.wave, len(self._waves)) if cost.wave is not None else records.NO_WAVE
        pipes = self.arch.vector.pipes if engine == "vector" else 1
        busy, takes_channel = cost.cycles - cost.latency, cost.events.get("dram_bytes", 0) > 0
        passes = [0] * 4
        if turns is not None:
            assert turns.one.busy is not None
            passes = [turns.number, turns.after, turns.gap, (turns.number - 2) * turns.following(0, turns.one.busy)]
        shift = self._shifts.setdefault(cost.shift, len(self._shifts))
        row = ENGINES[engine], pipes, way, busy, int(takes_channel), number, unit, at
        return *row, cost.latency, steps, wave, shift, cost.late, *passes

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
        # it loads the compiler
        from backends.epochcore.clock.placing import place

        if self._tables is None:
            self._tables = self._tabled()
        begun, finished = np.zeros((2, len(jobs)), np.int64)
        at = 0
        while at < len(jobs):
            at = place(instructions, jobs, at, self.machine, self.ran, self._meetings, self._tables, begun, finished)
            if at < len(jobs):
                starts, ends = self.machine.channel[1:]
                self._taken(self.machine.channel.live, starts, ends, len(starts) + self.most)
        return begun, finished

    def _tabled(self) -> records.Tables:
        behind = _grown(self._behind, self._waves, self._waves, Wave.behind)
        leads = _grown(self._leads, self._waves, self._shifts, Wave.leads)
        shares = np.concatenate([*self._shares, [0]]).astype(np.int64)
        return records.Tables(
            np.array(self._rows, records.JOB),
            shares,
            behind,
            leads,
            self.arch.array.shadow,
        )

    @property
    def taken(self) -> tuple[Ints, Ints]:
        """When the channel is taken, as far as somebody may still ask: starts and ends."""
        (first, stop), starts, ends = self.machine.channel
        return starts[first:stop], ends[first:stop]

    def take_again(self, first: int, each: int, times: int) -> None:
        """What the channel was taken for in the `each` cycles from `first` on is so again, so many `times`."""
        starts, ends = again(*self.taken, first, each, times)
        self._taken([0, len(starts)], starts, ends, len(starts) + ROOM)

    def _taken(self, live: Ints | list[int], starts: Ints, ends: Ints, more: int) -> None:
        """These intervals, and room for more."""
        wide = [np.concatenate([values, np.zeros(more, np.int64)]) for values in (starts, ends)]
        self.machine = self.machine._replace(channel=records.Channel(np.array(live, np.int64), *wide))

    def postpone(self, instructions: Ints, late: int) -> None:
        """Let the last runs of some instructions have been so much later."""
        runs, done, touched = self.ran
        runs["finish"][instructions] += late
        done[instructions] += late
        at, members = self.known.members
        if len(members):
            touched[:] = np.maximum.reduceat(runs["finish"][members], at[:-1])


def _grown(
    known: dict[tuple[int, int], int], rows: dict[T, int], columns: dict[U, int], of: Callable[[T, U], int]
) -> Ints:
    """What is `of` every row and column, in their numbers' places; so much of it is known."""
    for row, r in rows.items():
        for column, c in columns.items():
            if (r, c) not in known:
                known[r, c] = of(row, column)
    found = np.zeros((len(rows), len(columns)), np.int64)
    for place, value in known.items():
        found[place] = value
    return found


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
