"""The DRAM channel where engines hand over step by step: in every cycle it serves the oldest transfer that can go on.

A younger transfer gets what the older ones leave, so that placing transfers in the program's order, each into the
cycles that are left, gives the same as serving them cycle by cycle. Cycles are counted as free ones: `_free` before a
time, and back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def one_by_one(ready: Ints, before: Ints, done: Ints) -> Ints:
    """When each of some shares of work is done, none begun before it is ready, nor before the one before is done.

    `before` and `done` are sums of the shares, without and with each one.
    """
    return np.asarray(np.maximum.accumulate(ready - before) + done)


@dataclass
class Channel:
    """When it is taken: disjoint intervals in order, `_starts` and `_ends` from `_first` to `_count`."""

    _starts: Ints = field(default_factory=lambda: np.zeros(64, np.int64))
    _ends: Ints = field(default_factory=lambda: np.zeros(64, np.int64))
    _first: int = 0
    _count: int = 0

    def take(self, ready: Ints, before: Ints, done: Ints, unit: int, horizon: int) -> tuple[int, Ints]:
        """Serve blocks of (`done` - `before`) / `unit` > 0 cycles one after the other, none before it is `ready`.

        Returns when the first begins, and when each ends. Nothing will be asked for before `horizon` any more.
        """
        self._first += int(self._ends[self._first : self._count].searchsorted(horizon, "right"))
        # what ends before the first block is ready is in nobody's way
        at = self._first + int(self._ends[self._first : self._count].searchsorted(ready.min(), "left"))
        later = _Taken(self._starts[at : self._count], self._ends[at : self._count])
        last = one_by_one(unit * later.free(ready), before, done)
        first, last = (last - (done - before)) // unit, -(-last // unit)
        idle = later.starts - later.before[:-1]  # free cycles before each interval
        begins = first + later.before[idle.searchsorted(first, "right")]
        ends = last + later.before[idle.searchsorted(last, "left")]
        self._put(at, *later.and_also(begins, ends))
        return int(begins[0]), ends

    def take_one(self, ready: int, cycles: int, horizon: int) -> tuple[int, int]:
        """The same for one block: begin and end."""
        last = int(self._ends[self._count - 1]) if self._count > self._first else -1
        if ready < last:
            start, ends = self.take(np.array([ready]), np.array([0]), np.array([cycles]), 1, horizon)
            return start, int(ends[0])
        if last == ready:
            self._ends[self._count - 1] += cycles
        else:
            self._put(self._count, np.array([ready]), np.array([ready + cycles]))
        return ready, ready + cycles

    def taken(self) -> tuple[Ints, Ints]:
        """When it is taken, as far as somebody may still ask: starts and ends."""
        live = slice(self._first, self._count)
        return self._starts[live].copy(), self._ends[live].copy()

    def again(self, first: int, each: int, times: int) -> None:
        """What was taken in the `each` cycles from `first` on is so again so many `times` before what comes later."""
        starts, ends = self.taken()
        split = first + each
        cut = [_between(starts, ends, 0, first, 0)]
        cut += [_between(starts, ends, first, split, n * each) for n in range(times + 1)]
        cut += [_between(starts, ends, split, None, times * each)]
        starts, ends = (np.concatenate(values) for values in zip(*cut, strict=True))
        apart = np.flatnonzero(starts[1:] > ends[:-1])
        if len(starts):
            self._put(self._first, starts[np.append(0, apart + 1)], ends[np.append(apart, len(ends) - 1)])

    def _put(self, at: int, starts: Ints, ends: Ints) -> None:
        """Intervals in the place of all from `at` on; room for them grows as it is needed."""
        count = at + len(starts)
        if count > len(self._starts):
            kept = slice(self._first, at)
            at, count = at - self._first, count - self._first
            for name, known in (("_starts", self._starts), ("_ends", self._ends)):
                setattr(self, name, np.concatenate([known[kept], np.zeros(2 * count - at, np.int64)]))
            self._first = 0
        self._starts[at:count], self._ends[at:count], self._count = starts, ends, count


def _between(starts: Ints, ends: Ints, low: int, high: int | None, late: int) -> tuple[Ints, Ints]:
    """Parts of intervals from `low` to `high`, so much later."""
    starts, ends = np.maximum(starts, low), ends if high is None else np.minimum(ends, high)
    kept = starts < ends
    return starts[kept] + late, ends[kept] + late


class _Taken:
    """Intervals that are taken, disjoint and in order, and the cycles in those before each."""

    def __init__(self, starts: Ints, ends: Ints) -> None:
        self.starts, self.ends = starts, ends
        self.before = np.concatenate([[0], np.cumsum(ends - starts)])

    def free(self, times: Ints) -> Ints:
        """Free cycles before each of `times`."""
        before = self.starts.searchsorted(times, "right")
        if not len(self.ends):
            return times
        inside = np.maximum(0, self.ends[before - 1] - times) * (before > 0)
        return np.asarray(times - self.before[before] + inside)

    def and_also(self, begins: Ints, ends: Ints) -> tuple[Ints, Ints]:
        """Starts and ends with these taken too; what lies between was taken already where they overlap."""
        starts, stops = np.concatenate([self.starts, begins]), np.concatenate([self.ends, ends])
        order = np.argsort(starts, kind="stable")
        starts, stops = starts[order], np.maximum.accumulate(stops[order])
        apart = np.flatnonzero(starts[1:] > stops[:-1])
        return starts[np.concatenate([[0], apart + 1])], stops[np.concatenate([apart, [len(stops) - 1]])]
