"""Chunks that do what the chunks before them did are not timed again.

What engines do depends on when others were done, not on the time itself. Where everything that matters is at the
beginning of a chunk as it was some chunks before, but for the time that has passed since, and the chunks that follow
are like those, everything will be so again after as many of them. Such rounds are left out, their time and costs added.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.clock.account import Account, Totals
from backends.epochcore.clock.channel import clipped
from backends.epochcore.clock.handover import Handover
from backends.epochcore.clock.records import LED, Records
from backends.epochcore.program.dispatch import Ahead, Piece

Ints = NDArray[np.int64]
LONGEST = 8  # chunks after which engines may do the same again


@dataclass(frozen=True)
class _Moment:
    """What was known at the beginning of a chunk, with all `times` but the instructions' own; of the loop's own
    instructions their last runs, of all `others` when they were done."""

    engines: Ints
    array: Ints
    waves: Ints
    ends: Ints
    times: Ints
    runs: Records
    done: Ints
    others: int
    channel: tuple[Ints, Ints]
    totals: Totals

    @property
    def end(self) -> int:
        return int(self.ends[0])

    @staticmethod
    def of(handover: Handover, account: Account, own: slice) -> _Moment:
        runs, done, _ = handover.ran
        finish = runs["finish"]
        others = int(max(finish[: own.start].max(initial=0), finish[own.stop :].max(initial=0)))
        channel = handover.taken[0].copy(), handover.taken[1].copy()
        engines, array, waves = (values.copy() for values in handover.machine[:3])
        ends = account.ends.copy()
        times = np.concatenate([engines, ends[1:], array])
        return _Moment(
            engines, array, waves, ends, times, runs[own].copy(), done[own].copy(), others, channel, account.totals()
        )


@dataclass
class Repetition:
    """A run that is timed, with what it adds up to."""

    handover: Handover
    account: Account
    ahead: Ahead
    _loop: int = -1
    _moments: list[_Moment] = field(default_factory=list)

    def look(self, piece: Piece) -> None:
        """To be called before every chunk: leaves out chunks that follow it where it may."""
        ahead, own = self.ahead, slice(piece.start, piece.stop)
        if ahead.loop != self._loop or not ahead.number or not ahead.alike:
            self._loop, self._moments = ahead.loop, []
        # the first chunk fetches what the others find
        if not ahead.number or not ahead.alike:
            return
        now = _Moment.of(self.handover, self.account, own)
        for period, before in enumerate(reversed(self._moments), 1):
            times = ahead.alike // period
            if times and _same(before, now):
                self._shift(before, now, own, times)
                ahead.skip, self._moments = times * period, []
                return
        self._moments = [*self._moments[1 - LONGEST :], now]

    def _shift(self, before: _Moment, now: _Moment, own: slice, times: int) -> None:
        """All that the loop changes so many times later."""
        h, account, each = self.handover, self.account, now.end - before.end
        late, first = times * each, _first(before, now)
        h.machine.engines[:] += late * (now.engines != before.engines)
        h.machine.array[:] += late * (now.array != before.array)
        h.take_again(first, each, times)
        h.postpone(own.start + np.flatnonzero(now.runs["finish"]), late)
        account.again(before.totals, times)
        account.ends += late * (now.ends != before.ends)


def _first(before: _Moment, now: _Moment) -> int:
    """When the first engine that has done anything since began to."""
    was, is_ = before.engines, now.engines
    return int(was[was != is_].min(initial=np.iinfo(np.int64).max)) if (was != is_).any() else 0


def _same(before: _Moment, now: _Moment) -> bool:
    """Whether all is as it was, but later. What the loop does not change must be over."""
    passed, first = now.end - before.end, _first(before, now)
    if passed <= 0 or first <= 0 or (now.waves != before.waves).any():
        return False
    was, is_ = before.times, now.times
    if not ((is_ - was == passed) | ((is_ == was) & (was <= first))).all():
        return False
    if before.array[LED] == now.array[LED] and (before.array != now.array).any():
        return False  # shifted in behind no pass
    if now.others > first or not _later(before, now, passed):
        return False
    taken = [clipped(*m.channel, at) for m, at in ((before, first), (now, first + passed))]
    return all(np.array_equal(a + passed, b) for a, b in zip(*taken, strict=True))


def _later(before: _Moment, now: _Moment, passed: int) -> bool:
    """Whether the loop's own instructions have run as before."""
    ran = now.runs["finish"] > 0
    was, is_ = before.runs[ran], now.runs[ran]
    if any((is_[name] != was[name]).any() for name in ("latency", "steps", "blocks")):
        return False
    if (is_["finish"] - was["finish"] != passed).any():
        return False
    known = np.arange(now.done.shape[1]) < is_["blocks"][:, None]
    return bool((now.done[ran] - before.done[ran] == passed)[known].all())
