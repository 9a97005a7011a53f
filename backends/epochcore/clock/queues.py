"""When everything happens: engines that work through their queues, held up by each other's tokens.

Each engine takes its instructions in the program's order. One starts when

* the engine is free: the one before has ended, or where instructions overlap (DRAM transfers, passes over the array)
  has gone far enough: a pass follows the one before so closely that its first step comes nowhere before one more step
  of the one before would have (see `wave`);
* there is a token from every engine that it names (a `sync` also waits until all before it has ended);
* what it takes over from the shadow registers is there, or, where it fills them, has been taken over by every element;
  without shadow registers they are filled while the array is empty;
* the registers through which states leave the array are empty, for `state.store`;
* the DRAM channel, which loads and stores share, is free: it serves them as they come, a load first where both come at
  once. A transfer keeps it for its bytes, not for its latency.

It gives its tokens when it ends. An engine's instructions end in order. All of this is ours; `stepped` checks it cycle
by cycle. Starts follow from ends that are known, so that no clock is needed here: time is linear in the instructions.
`queued` goes through them, compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Arch
from backends.epochcore.clock import queue_records as records
from backends.epochcore.clock.cost import Cost
from backends.epochcore.clock.wave import Wave
from backends.epochcore.program.columns import Columns
from backends.epochcore.program.passes import PASSES
from backends.epochcore.program.tokens import POPPED, PUSHED, engine_of
from isa import Instruction
from isa.epochcore_fields import ENGINES
from isa.frozen import FrozenMap

Ints = NDArray[np.int64]
KINDS = ("", "sync", "preload", "state.load", "state.store")
FLAGS = itemgetter(*(POPPED[engine] for engine in ENGINES), *(PUSHED[engine] for engine in ENGINES))


class Waiting(NamedTuple):
    """The first op of a queue that is not empty, by its number, and the engines whose tokens it lacks."""

    op: int
    engine: str
    lacking: tuple[str, ...]


class Deadlock(Exception):
    """What is `waiting` for tokens that never come."""

    def __init__(self, waiting: Sequence[Waiting]) -> None:
        super().__init__("deadlock")
        self.waiting = tuple(waiting)


@dataclass
class Queues:
    """Jobs are all that the ops of a program were found to be so far: a cost on an engine each."""

    arch: Arch
    columns: Columns
    costs: list[Cost] = field(default_factory=list)  # by job
    engines: list[str] = field(default_factory=list)  # by job
    _jobs: dict[tuple[int, str], int] = field(default_factory=dict)

    def job(self, ins: Instruction, cost: Cost, steps: int, *, looped: bool) -> int:
        """The number of a job, however many steps it has."""
        engine = engine_of(ins)
        assert engine is not None
        key = id(cost), engine
        found = self._jobs.get(key)
        if found is None:
            found = self._jobs[key] = len(self.costs)
            self.costs.append(cost)
            self.engines.append(engine)
        return found

    def run(self, instructions: Ints, jobs: Ints) -> tuple[Ints, Ints]:
        """Time ops, by their instructions and jobs in the program's order: when they start, and when they end.

        Raises Deadlock where some can never start.
        """
        from backends.epochcore.clock.queued import timed  # it loads the compiler

        number, count = len(ENGINES), len(jobs)
        engine = np.array([ENGINES.index(name) for name in self.engines], np.int64)[jobs]
        ops = np.stack([engine, *self._told()[:, instructions], jobs])
        needs, runs = self._needs(ops), np.full((3, count), records.NONE)
        stop, order = np.cumsum(np.bincount(engine, minlength=number)), np.argsort(engine, kind="stable")
        at = np.concatenate([[0], stop[:-1]])
        engines, given = np.stack([at, stop, *np.zeros((2, number), np.int64)]), np.repeat(at[:, None], number, 1)
        last = np.array([0, records.NONE, 0, 0])
        timed(ops, *self._priced(), needs, order, given, engines, runs, last)
        at, stop = engines[:2]
        if (at < stop).any():
            late = np.flatnonzero(at < stop).tolist()
            raise Deadlock([_waiting(int(order[at[each]]), each, ops, order, given, engines) for each in late])
        return runs[records.START], runs[records.FINISH]

    def _told(self) -> Ints:
        """By instruction: what it is, and the engines whose tokens it takes and those that it gives one."""
        code, kinds = self.columns.code, {name: number for number, name in enumerate(KINDS)}
        told = np.zeros((3, len(code)), np.int64)
        for alike in self.columns.alike:
            if engine_of(code[alike.places[0]]):
                flags = FrozenMap.picked([code[place].operands for place in alike.places.tolist()], FLAGS)
                every = np.fromiter(chain.from_iterable(flags), np.bool_).reshape(-1, 2, len(ENGINES))
                told[1:, alike.places] = (every @ (1 << np.arange(len(ENGINES)))).T
                told[0, alike.places] = records.PASS if alike.mnemonic in PASSES else kinds.get(alike.mnemonic, 0)
        return told

    def _needs(self, ops: Ints) -> Ints:
        """What ops need of each other in the array, as `program.dispatch` says."""
        kind = ops[records.KIND]
        needs = np.full((records.NEEDS, len(kind)), records.NONE)
        passes = _before(kind == records.PASS)
        for which, filling in enumerate((records.PARAMETERS, records.STATES)):
            filled, some = _before(kind == filling), kind == filling
            taking = (kind == records.PASS) & (filled > passes)
            needs[which, taking] = filled[taking]
            if self.arch.array.shadow:
                needs[records.TAKEN, some] = _before(taking)[some]
            else:
                needs[which, some] = _before(ops[records.ENGINE] == records.COMPUTE)[some]
        return needs

    def _priced(self) -> tuple[Ints, Ints]:
        """What jobs cost, and how much later than another wave each of theirs may follow."""
        waves: dict[Wave, int] = {}
        rows = []
        for cost in self.costs:
            cycles = max(1, cost.cycles)
            busy = cycles if cost.busy is None else max(1, cost.busy)
            wave = records.NONE if cost.wave is None else waves.setdefault(cost.wave, len(waves))
            rows.append((cycles, busy, max(1, cost.holds), cost.events.get("dram_bytes", 0) > 0, wave))
        behind = [[wave.behind(before) for before in waves] for wave in waves]
        prices = np.ascontiguousarray(np.array(rows, np.int64).reshape(-1, 5).T)
        return prices, np.array(behind, np.int64).reshape(len(waves), len(waves))


def _before(chosen: NDArray[np.bool_]) -> Ints:
    """By op the last one before it that is chosen."""
    last = np.maximum.accumulate(np.where(chosen, np.arange(len(chosen)), records.NONE))
    return np.concatenate([[records.NONE], last[:-1]])


def _waiting(op: int, engine: int, ops: Ints, order: Ints, given: Ints, engines: Ints) -> Waiting:
    from backends.epochcore.clock.queued import token

    taken = [other for other in range(len(ENGINES)) if ops[records.POPS, op] >> other & 1]
    lacking = tuple(ENGINES[other] for other in taken if token(other, engine, ops, order, given, engines) < 0)
    return Waiting(op, ENGINES[engine], lacking)
