"""One channel's kernel as a sum of stable modes: poles from its Hankel matrix, taken inside the circle, refined."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import cached_property

import numpy as np

from ssmc.statespace.hankel import Sample, Subspace, sample, subspace
from ssmc.statespace.residues import FASTEST, NORMAL, ModalFit, count_states, least_squares, refine
from ssmc.statespace.response import log_magnitude
from ssmc.statespace.system import Array, Real
from ssmc.statespace.waves import Steps, consecutive, sampled

SLOWEST = 1e-2  # ours: decay over the kernel's length; slower can hardly be told apart, and dies out late
_LONG = 3000  # taps of a kernel that is looked at in a sample of them
_SAMPLE = (1000, 3000)  # least and most taps of a sample
_FOR_EACH = 16  # taps of a sample for each state
_BAND = 0.7  # ours: of half a turn, that the fastest wave may make between two taps of a thinned-out kernel
_LARGER = 224  # rows and columns of a second sample of the Hankel matrix
_MOVED = 3e3  # ours: tolerances that the fit of a sample may be off for its poles to be moved
_FINE = 16  # ours: share of the order, 1 / n, by which it may be higher than it must
_EXACT = 0.3  # ours: tolerances within which a fit is not looked for with fewer states
_CHEAP = 20  # singular vectors that are soon found from all taps
_ENOUGH = 6  # taps of a thinned-out kernel for each state


class ChannelFits:
    """Fits of one channel's taps 1 to L-1, by order.

    The poles of a long kernel come from every n-th tap where its waves are slow enough, and are moved on a sample.
    """

    def __init__(self, taps: Real, limit: int, tolerance: float) -> None:
        self.taps, self.limit, self.tolerance = taps, limit, tolerance
        self.restraint = 0.3 * tolerance  # ours: the largest that costs no accuracy on S4D kernels
        alive = int(np.flatnonzero(np.abs(taps) > 1e-3 * tolerance)[-1]) + 1
        self.sequence = taps[: max(2 * alive, _LONG)]
        self.seen = sample(self.sequence, tolerance, limit)
        self.needed = self.seen.least_order(tolerance)
        self.at: Steps | None = None
        if len(taps) > _LONG and self.restraint < NORMAL:  # else sums over all taps cost no more
            count = int(np.clip(_FOR_EACH * self.seen.rank(tolerance), *_SAMPLE))
            self.at = sampled(alive, count)

    @cached_property
    def space(self) -> Subspace:
        """As many singular vectors as may be needed."""
        return _space(self.sequence, self.seen, self.limit + 1, self.tolerance)

    @property
    def values(self) -> Real:
        return self.space.values

    def rough(self) -> ModalFit | None:
        """The fit whose poles come from a sample of the Hankel matrix: with luck, the system that made the taps.

        A second sample, larger, comes before the poles of the first are moved.
        """
        slowest, length = SLOWEST / (len(self.taps) + 1), len(self.taps) + 1
        seen, best = self.seen, None
        for again in (True, False):
            found = seen.poles(seen.rank(0.1 * self.tolerance))
            if count_states(found) > self.limit or (-log_magnitude(found)).min(initial=np.inf) < slowest:
                return None
            fit = least_squares(inside(found, length, 1, slowest), self.taps, None, self.restraint)
            if self._near_least(fit):
                return fit
            best = fit if best is None or fit.worst < best.worst else best
            if again and len(seen.u) < len(self.sequence) // 2:
                seen = sample(self.sequence, self.tolerance, self.limit, (_LARGER,))
        if best is None or best.worst > _MOVED * self.tolerance:
            return None
        fit = self._refined(best.poles, _MOVED, slowest, _EXACT)
        return fit if self._near_least(fit) else None

    def _near_least(self, fit: ModalFit) -> bool:
        """It need not be looked for with fewer states: it is exact, or hardly any fewer could do."""
        few = fit.order - self.needed <= max(1, fit.order // _FINE)
        return fit.worst <= self.tolerance * (1.0 if few else _EXACT)

    def unthinned(self) -> ChannelFits:
        """The same with poles from all taps."""
        every = copy(self)
        every.space = subspace(self.sequence, len(self.values))
        return every

    def attempt(self, order: int, reach: float) -> ModalFit:
        """The fit with this many poles, or a few more where some lie outside the circle, or on it."""
        found = self.space.poles(order)
        length = len(self.taps) + 1
        decay = float((-log_magnitude(found)).min(initial=np.inf))
        fits = []
        # A constant kernel needs a pole all but on the circle; only where no other serves.
        floors = (SLOWEST, 0.05 * self.tolerance) if decay < SLOWEST / length else (SLOWEST,)
        for slowest in (floor / length for floor in floors):
            for pieces in (2, 3) if decay < -slowest else (1,):
                poles = inside(found, length, pieces, slowest)
                if count_states(poles) > self.limit:
                    poles = inside(found, length, 1, slowest)
                fits.append(self._refined(poles, reach, slowest))
                if fits[-1].worst <= self.tolerance:
                    return fits[-1]
        return min(fits, key=lambda fit: fit.worst)

    def _refined(self, poles: Array, reach: float, slowest: float, goal: float = 0.8) -> ModalFit:
        """The fit with these poles, moved to `goal` tolerances if its worst tap is off by 1 to `reach` of them."""
        restraint, at = self.restraint, self.at
        fit = least_squares(poles, self.taps, None, restraint)
        if not self.tolerance < fit.worst <= reach * self.tolerance:
            return fit
        if at is None:
            return refine(fit, self.taps, consecutive(len(self.taps)), goal * self.tolerance, slowest, restraint)
        some = self.taps[at.all - 1]
        fit = refine(least_squares(poles, some, at, restraint), some, at, goal * self.tolerance, slowest, restraint)
        return least_squares(fit.poles, self.taps, None, restraint)


def _space(sequence: Real, seen: Sample, limit: int, tolerance: float) -> Subspace:
    """As many singular vectors as may be needed: until their values fall well below the tolerance.

    A sample of the matrix tells about how many it will be, and how fast the waves are.
    """
    most = min(limit, seen.rank(0.1 * tolerance))
    every = _every(seen, most, len(sequence)) if len(sequence) >= _LONG and most > _CHEAP else 1
    rank = min(limit, most + 8)
    while True:
        space = replace(subspace(sequence[::every], rank), every=every)
        if rank >= limit or len(space.values) < rank or space.values[-1] <= 1e-2 * tolerance * space.values[0]:
            return space
        rank = min(limit, 2 * rank)


def _every(seen: Sample, rank: int, length: int) -> int:
    """How many steps apart taps may be that tell all poles: waves turn by less than half, and are not gone."""
    poles = seen.poles(rank)
    fastest = max(float(np.angle(poles).max(initial=0.0)), 1e-9)
    shortest = max(float((-log_magnitude(poles)).max(initial=0.0)), 1e-9)
    return int(max(1, min(_BAND * np.pi / fastest, 1 / shortest, length // (_ENOUGH * max(rank, 1)))))


def inside(poles: Array, length: int, pieces: int, slowest: float) -> Array:
    """Poles within the circle, decays between `slowest` and FASTEST a step.

    A short window can make a slow mode look like a growing one. Over the window, a growing wave is nearly a sum of
    decaying ones close by in frequency: each pole outside is replaced by `pieces` that fall to 1/e within the window,
    a few radians a window apart (ours; found by trial on S4D kernels, where reflecting the pole does far worse).
    """
    decay = -log_magnitude(poles)
    stable = decay >= -slowest
    angle, kept = np.angle(poles[stable]), np.clip(decay[stable], slowest, FASTEST)
    centre = np.angle(poles[~stable])[:, None]
    apart = (np.arange(pieces) - (pieces - 1) / 2) * (pieces / length)
    spread = np.pi - np.abs(np.pi - np.abs(centre + apart))  # within [0, pi]
    spread = spread[~((apart < 0) & np.isin(centre, (0.0, np.pi)))]  # a real pole has its conjugate at the other side
    angles = np.concatenate([angle, spread.ravel()])
    decays = np.concatenate([kept, np.full(spread.size, 1 / length)])
    real = np.cos(angles) * np.exp(-decays)
    return np.asarray(np.where(np.isin(angles, (0.0, np.pi)), real, np.exp(-decays + 1j * angles)))
