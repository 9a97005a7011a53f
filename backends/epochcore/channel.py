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


def _none() -> Ints:
    return np.zeros(0, np.int64)


def one_by_one(ready: Ints, shares: Ints) -> Ints:
    """When each of some shares of work is done, none begun before it is ready, nor before the one before is done."""
    done = np.cumsum(shares)
    return np.asarray(np.maximum.accumulate(ready - (done - shares)) + done)


@dataclass
class Channel:
    """When it is taken: disjoint intervals in order."""

    starts: Ints = field(default_factory=_none)
    ends: Ints = field(default_factory=_none)

    def take(self, ready: Ints, shares: Ints, unit: int, horizon: int) -> tuple[int, Ints]:
        """Serve blocks of `shares` / `unit` > 0 cycles one after the other, none before it is `ready`.

        Returns when the first begins, and when each ends. Nothing will be asked for before `horizon` any more.
        """
        kept = self.ends > horizon
        self.starts, self.ends = self.starts[kept], self.ends[kept]
        taken = np.concatenate([[0], np.cumsum(self.ends - self.starts)])
        done = one_by_one(unit * self._free(ready, taken), shares)
        first, last = (done - shares) // unit, -(-done // unit)
        idle = self.starts - taken[:-1]  # free cycles before each interval
        begins = first + taken[np.searchsorted(idle, first, "right")]
        ends = last + taken[np.searchsorted(idle, last, "left")]
        self._add(begins, ends)
        return int(begins[0]), ends

    def take_one(self, ready: int, cycles: int, horizon: int) -> tuple[int, int]:
        """The same for one block: begin and end."""
        if len(self.ends) and ready < self.ends[-1]:
            start, ends = self.take(np.array([ready]), np.array([cycles]), 1, horizon)
            return start, int(ends[0])
        if len(self.ends) and self.ends[-1] == ready:
            self.ends[-1] += cycles
        else:
            self.starts, self.ends = np.append(self.starts, ready), np.append(self.ends, ready + cycles)
        return ready, ready + cycles

    def _free(self, times: Ints, taken: Ints) -> Ints:
        """Free cycles before each of `times`."""
        before = np.searchsorted(self.starts, times, "right")
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
