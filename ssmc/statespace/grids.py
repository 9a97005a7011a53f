"""Poles on grids, for kernels whose own poles lie too close together to be told apart.

Over a window of L taps a smooth signal is a sum of waves with periods somewhat longer than the window, 2 pi / P apart
with P > L: a Fourier extension (Huybrechs, SIAM Journal on Numerical Analysis 47, 2010). It needs more modes than the
system that made the kernel, but their amplitudes stay small. What is fast at first and slow later needs such a grid at
every scale.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ssmc.statespace.residues import ModalFit, count_states, least_squares
from ssmc.statespace.system import Array, Real
from ssmc.statespace.waves import Steps

_WINDOWS = (0.75, 0.5)  # L / P: the first needs fewer modes, the second reaches closer
_MODES = (8, 16, 24, 32, 48, 64, 96, 128)
_SCALED = (6, 8, 12)  # modes at each of many scales
_CUT = 0.1  # share of the modes that pruning drops at once


def fit_on_grid(
    found: Array, taps: Real, at: Steps | None, limit: int, tolerance: float, restraint: float
) -> ModalFit | None:
    """A fit of `taps` with at most `limit` states, its poles on a grid; None where none meets the tolerance.

    Slow poles come from the grid, faster ones are those `found` (P,), which stand apart. The grid is looked for on the
    taps at the steps `at`, some of 1 to L-1, or all.
    """
    some = taps if at is None else taps[at.all - 1]
    for poles in _candidates(found, len(taps) + 1):
        if count_states(poles) > limit or count_states(poles) > len(some):
            continue
        fit = least_squares(poles, some, at, restraint)
        if fit.worst > tolerance:
            continue
        for trial in (_pruned(fit, some, at, tolerance, restraint), fit):
            whole = least_squares(trial.poles, taps, None, restraint)
            if whole.worst <= tolerance:
                return whole
    return None


def _candidates(found: Array, length: int) -> Iterator[Array]:
    for window in _WINDOWS:
        for modes in _MODES:
            step = 2 * np.pi * window / length
            if modes * step <= np.pi:
                apart = found[np.angle(found) > (modes + 0.5) * step]
                yield np.concatenate([_waves(1 / length, step, modes), apart])
    for modes in _SCALED:
        scales = length / 2.0 ** np.arange(int(np.log2(length)))
        yield np.concatenate([_waves(2 / scale, np.pi / 2 / scale, modes) for scale in scales])


def _waves(decay: float, step: float, modes: int) -> Array:
    """Poles of one decay, angles 0, `step`, 2 `step` ... below pi."""
    angle = step * np.arange(modes + 1)
    return np.asarray(np.exp(-decay + 1j * angle[angle < np.pi]))


def _pruned(fit: ModalFit, taps: Real, at: Steps | None, tolerance: float, restraint: float) -> ModalFit:
    """The fit without the modes that matter least, as long as the tolerance is met."""
    last = len(taps) if at is None else int(at.all[-1])
    while len(fit.poles) > 1:
        power = np.maximum(-np.expm1(2 * np.log(np.abs(fit.poles))), 1e-300)
        energy = np.abs(fit.residues) ** 2 * (1 - np.abs(fit.poles) ** (2 * last)) / power
        kept = np.sort(np.argsort(energy)[max(1, int(_CUT * len(fit.poles))) :])
        smaller = least_squares(fit.poles[kept], taps, at, restraint)
        if smaller.worst > 0.9 * tolerance:
            return fit
        fit = smaller
    return fit
