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


NONE: Ints = np.zeros(0, np.int64)


def one_by_one(ready: Ints, before: Ints, done: Ints) -> Ints:
    """When each of some shares of work is done, none begun before it is ready, nor before the one before is done.

    `before` and `done` are sums of the shares, without and with each one.
    """
    return np.asarray(np.maximum.accumulate(ready - before) + done)


@dataclass
class Channel:
    """When it is taken: disjoint intervals in order."""

    starts: Ints = field(default_factory=lambda: NONE)
    ends: Ints = field(default_factory=lambda: NONE)

    def take(self, ready: Ints, before: Ints, done: Ints, unit: int, horizon: int) -> tuple[int, Ints]:
        """Serve blocks of (`done` - `before`) / `unit` > 0 cycles one after the other, none before it is `ready`.

        Returns when the first begins, and when each ends. Nothing will be asked for before `horizon` any more.
        """
        old = int(self.ends.searchsorted(horizon, "right"))
        self.starts, self.ends = self.starts[old:], self.ends[old:]
        taken = np.concatenate([[0], np.cumsum(self.ends - self.starts)])
        last = one_by_one(unit * self._free(ready, taken), before, done)
        first, last = (last - (done - before)) // unit, -(-last // unit)
        idle = self.starts - taken[:-1]  # free cycles before each interval
        begins = first + taken[idle.searchsorted(first, "right")]
        ends = last + taken[idle.searchsorted(last, "left")]
        self._add(begins, ends)
        return int(begins[0]), ends

    def take_one(self, ready: int, cycles: int, horizon: int) -> tuple[int, int]:
        """The same for one block: begin and end."""
        if len(self.ends) and ready < self.ends[-1]:
            start, ends = self.take(np.array([ready]), np.array([0]), np.array([cycles]), 1, horizon)
            return start, int(ends[0])
        if len(self.ends) and self.ends[-1] == ready:
            self.ends[-1] += cycles
        else:
            self.starts, self.ends = np.append(self.starts, ready), np.append(self.ends, ready + cycles)
        return ready, ready + cycles

    def _free(self, times: Ints, taken: Ints) -> Ints:
        """Free cycles before each of `times`."""
        before = self.starts.searchsorted(times, "right")
        if not len(self.ends):
            return times
        inside = np.maximum(0, self.ends[before - 1] - times) * (before > 0)
        return np.asarray(times - taken[before] + inside)

    def _add(self, begins: Ints, ends: Ints) -> None:
        """Take these too; what lies between was taken already where they overlap."""
        starts, stops = np.concatenate([self.starts, begins]), np.concatenate([self.ends, ends])
        order = np.argsort(starts, kind="stable")
        starts, stops = starts[order], np.maximum.accumulate(stops[order])
        apart = np.flatnonzero(starts[1:] > stops[:-1])
        self.starts = starts[np.concatenate([[0], apart + 1])]
        self.ends = stops[np.concatenate([apart, [len(stops) - 1]])]
