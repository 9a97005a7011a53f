"""One channel's kernel as a sum of stable modes: poles from its Hankel matrix, taken inside the circle, refined."""

from __future__ import annotations

import numpy as np

from ssmc.statespace.hankel import Subspace, sampled_rank, subspace
from ssmc.statespace.residues import FASTEST, ModalFit, count_states, least_squares, refine
from ssmc.statespace.response import log_magnitude
from ssmc.statespace.system import Array, Real

SLOWEST = 1e-2  # ours: decay over the kernel's length; slower can hardly be told apart, and dies out late
_REFINED = 3000  # taps that Gauss-Newton looks at


class ChannelFits:
    """Fits of one channel's taps 1 to L-1, by order."""

    def __init__(self, taps: Real, limit: int, tolerance: float) -> None:
        self.taps, self.limit, self.tolerance = taps, limit, tolerance
        self.space = _space(taps, limit + 1, tolerance)
        self.values = self.space.values
        self.restraint = 0.3 * tolerance  # ours: the largest that costs no accuracy on S4D kernels
        self.size = float(len(self.space.vectors))
        self.at = np.arange(1, len(taps) + 1)
        if len(taps) > _REFINED:  # the poles of a long kernel are moved on some of its taps
            self.at = np.unique(np.random.default_rng(0).integers(1, len(taps) + 1, _REFINED))

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

    def _refined(self, poles: Array, reach: float, slowest: float) -> ModalFit:
        """The fit with these poles, moved if its worst tap is within `reach` tolerances but not within one."""
        restraint = self.restraint
        fit = least_squares(poles, self.taps, None, restraint)
        if not self.tolerance < fit.worst <= reach * self.tolerance:
            return fit
        some, at = self.taps[self.at - 1], self.at
        fit = least_squares(poles, some, at, restraint)
        fit = refine(fit, some, at, 0.8 * self.tolerance, slowest, restraint)
        return least_squares(fit.poles, self.taps, None, restraint)


def _space(taps: Real, limit: int, tolerance: float) -> Subspace:
    """As many singular vectors as may be needed: until their values fall well below the tolerance.

    What comes after the last tap of any size is left out; a sample of the matrix tells about how many it will be.
    """
    alive = int(np.flatnonzero(np.abs(taps) > 1e-3 * tolerance)[-1]) + 1
    sequence = taps[: max(2 * alive, _REFINED)]
    rank = min(limit, sampled_rank(sequence, 0.1 * tolerance) + 8)
    while True:
        space = subspace(sequence, rank)
        if rank >= limit or space.values[-1] <= 1e-2 * tolerance * space.values[0]:
            return space
        rank = min(limit, 2 * rank)


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
