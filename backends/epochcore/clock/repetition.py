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
from backends.epochcore.clock.handover import Handover, Latest
from backends.epochcore.clock.wave import Wave
from backends.epochcore.program.dispatch import Ahead

Ints = NDArray[np.int64]
LONGEST = 8  # chunks after which engines may do the same again


@dataclass(frozen=True)
class _Moment:
    """What was known at the beginning of a chunk."""

    engines: dict[str, int]
    array: tuple[int, ...]
    waves: tuple[Wave | None, ...]
    end: int
    phases: dict[str, int]
    latest: list[Latest]
    channel: tuple[Ints, Ints]
    totals: Totals

    @staticmethod
    def of(handover: Handover, account: Account) -> _Moment:
        h = handover
        array, waves = (h.parameters, h.states, h.passed, *h.drained, h.last[0], h.led[0]), (h.last[1], h.led[1])
        engines, phases = dict(h.engines), dict(account.phases)
        return _Moment(engines, array, waves, account.end, phases, list(h.latest), h.channel.taken(), account.totals())

    @property
    def times(self) -> list[int]:
        """All of them but the instructions' own."""
        return [*self.engines.values(), *self.phases.values(), *self.array]


@dataclass
class Repetition:
    """A run that is timed, with what it adds up to."""

    handover: Handover
    account: Account
    ahead: Ahead
    _entered: int = 0
    _loop: int = -1
    _moments: list[_Moment] = field(default_factory=list)

    def skipped(self) -> int:
        """To be called before every op: the cycles of the chunks that are left out before it."""
        ahead = self.ahead
        if ahead.entered == self._entered:
            return 0
        self._entered = ahead.entered
        if ahead.loop != self._loop or not ahead.number or not ahead.alike:
            self._loop, self._moments = ahead.loop, []
        # the first chunk fetches what the others find
        if not ahead.number or not ahead.alike:
            return 0
        now = _Moment.of(self.handover, self.account)
        for period, before in enumerate(reversed(self._moments), 1):
            times = ahead.alike // period
            if times and self._same(before, now):
                self._shift(before, now, times)
                ahead.skip, self._moments = times * period, []
                return times * (now.end - before.end)
        self._moments = [*self._moments[1 - LONGEST :], now]
        return 0

    def _own(self) -> list[bool]:
        """By instruction, whether it runs in the loop."""
        h = self.handover
        stop = h.known.loop[self._loop]
        return [other == stop and run.finish > 0 for other, run in zip(h.known.loop, h.latest, strict=True)]

    def _same(self, before: _Moment, now: _Moment) -> bool:
        """Whether all is as it was, but later. What the loop does not change must be over."""
        passed = now.end - before.end
        first = min((was for name, was in before.engines.items() if now.engines[name] != was), default=0)
        if passed <= 0 or first <= 0 or now.waves != before.waves or now.engines.keys() != before.engines.keys():
            return False
        pairs = zip(before.times, now.times, strict=True)
        if not all(is_ - was == passed or (is_ == was and was <= first) for was, is_ in pairs):
            return False
        if before.array[-1] == now.array[-1] and before.array != now.array:
            return False  # shifted in behind no pass
        each = zip(self._own(), before.latest, now.latest, strict=True)
        if not all(_later(a, b, passed) if own else b.finish <= first for own, a, b in each):
            return False
        taken = [_clipped(*m.channel, at) for m, at in ((before, first), (now, first + passed))]
        return all(np.array_equal(a + passed, b) for a, b in zip(*taken, strict=True))

    def _shift(self, before: _Moment, now: _Moment, times: int) -> None:
        """All that the loop changes so many times later."""
        h, account, each = self.handover, self.account, now.end - before.end
        late, own = times * each, self._own()
        first = min(was for name, was in before.engines.items() if now.engines[name] != was)

        def moved(was: int, is_: int) -> int:
            return is_ + late if is_ != was else is_

        h.engines = {name: moved(before.engines[name], at) for name, at in h.engines.items()}
        array = [moved(was, is_) for was, is_ in zip(before.array, now.array, strict=True)]
        h.parameters, h.states, h.passed, h.drained = array[0], array[1], array[2], (array[3], array[4])
        h.last, h.led = (array[5], h.last[1]), (array[6], h.led[1])
        h.channel.again(first, each, times)
        h.postpone([index for index, inside in enumerate(own) if inside], late)
        account.again(before.totals, times)
        account.end += late
        account.phases = {name: moved(before.phases[name], at) for name, at in account.phases.items()}


def _later(before: Latest, now: Latest, passed: int) -> bool:
    if now[1:3] != before[1:3] or now.finish - before.finish != passed:
        return False
    if before.ends is None or now.ends is None:
        return before.ends is now.ends
    return np.array_equal(before.ends + passed, now.ends)


def _clipped(starts: Ints, ends: Ints, first: int) -> tuple[Ints, Ints]:
    """What of intervals comes after `first`."""
    at = int(ends.searchsorted(first, "right"))
    return np.maximum(starts[at:], first), ends[at:]
