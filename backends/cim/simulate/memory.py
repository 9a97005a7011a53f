"""Vector registers of a core, for a block of steps and the whole batch at once."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from backends.cim.program.decode import Item
from ssmc.ir.op import Array


@dataclass(frozen=True)
class Steps:
    """Steps offset, offset + stride, ... that lie in k0 <= k < k1."""

    stride: int
    offset: int
    k0: int
    k1: int

    @property
    def first(self) -> int:
        """How many of these steps come before k0."""
        return max(0, -(-(self.k0 - self.offset) // self.stride))

    @property
    def count(self) -> int:
        return max(0, max(0, -(-(self.k1 - self.offset) // self.stride)) - self.first)

    def contains(self, other: Steps) -> bool:
        """Whether all of `other`'s steps are among these."""
        return other.stride % self.stride == 0 and (other.offset - self.offset) % self.stride == 0

    def pick(self, array: Array, other: Steps) -> Array:
        """The part of `array` (batch, steps, words) of these steps that belongs to the steps of `other`."""
        if self == other or (array.shape[1] == 1 and self.count != 1):
            return array
        start = (other.offset + other.first * other.stride - self.offset) // self.stride - self.first
        return array[:, start :: other.stride // self.stride][:, : other.count]


class NotWritten(Exception):
    """A read of words that nothing has written; `item` is which instruction of several it was."""

    item: Item | None = None


@dataclass(frozen=True)
class _Run:
    """Words start..stop; `steps` is None for what was written outside of a sweep and stands at every step."""

    start: int
    stop: int
    array: Array  # (batch or 1, steps or 1, words)
    steps: Steps | None


_START, _STOP = attrgetter("start"), attrgetter("stop")


class Registers:
    """Words by address. `latched`: every word keeps its last value, as when one step runs at a time."""

    def __init__(self, *, latched: bool) -> None:
        self.latched = latched
        self._runs: list[_Run] = []  # by their words, none of which is in two

    def write(self, address: int, array: Array, steps: Steps | None) -> None:
        """Put `array` (batch or 1, steps or 1, words) at `address`."""
        stop = address + array.shape[2]
        first, behind = self._touching(address, stop)
        kept = []
        for run in self._runs[first:behind]:
            if run.start < address:
                kept.append(_Run(run.start, address, run.array[:, :, : address - run.start], run.steps))
        kept.append(_Run(address, stop, array, None if self.latched else steps))
        for run in self._runs[first:behind]:
            if stop < run.stop:
                kept.append(_Run(stop, run.stop, run.array[:, :, stop - run.start :], run.steps))
        self._runs[first:behind] = kept

    def _touching(self, address: int, stop: int) -> tuple[int, int]:
        """The runs that have some of these words: the first of them, and the one behind the last."""
        first = bisect_right(self._runs, address, key=_STOP)
        return first, bisect_left(self._runs, stop, first, key=_START)

    def read(self, address: int, words: int, steps: Steps | None) -> Array:
        """(batch or 1, steps or 1, words). Raises NotWritten."""
        parts, at, stop = [], address, address + words
        for run in self._runs[slice(*self._touching(address, stop))]:
            if run.start > at:
                break
            end = min(run.stop, stop)
            part = run.array[:, :, at - run.start : end - run.start]
            if run.steps is not None:
                if steps is None or not run.steps.contains(steps):
                    raise NotWritten(f"v[{at}] holds a word of other steps")
                part = run.steps.pick(part, steps)
            parts.append(part)
            at = end
        if at < stop:
            raise NotWritten(f"v[{at}] has not been written")
        if len(parts) == 1:
            return parts[0]
        outer = np.broadcast_shapes(*(part.shape[:2] for part in parts))
        return np.concatenate([np.broadcast_to(part, (*outer, part.shape[2])) for part in parts], axis=2)

    def forget_steps(self) -> None:
        """Drop what was written in a block of steps."""
        self._runs = [run for run in self._runs if run.steps is None]
