"""What systems do behind the last tap of kernels that end: of a filter in a file of any length, nothing.

A system that was identified from a window of taps goes on behind it. Where sequences may be longer than the window,
what it does there has to be as near to nothing as it is to the taps.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ssmc.frontend.mixing.identified import Part
from ssmc.ir.op import Array
from ssmc.statespace import StateSpace, kernel, l1_norm
from ssmc.statespace.response import powers

ENDED = 4  # zeros at the end of a window that tell that a kernel is over (ours)
FAR = 4  # windows behind the first in which taps are looked at one by one; behind them they are bounded (ours)


def lasting(parts: list[Part], taps: Array, tolerance: float, dynamic: bool) -> list[Part]:
    """The parts, without channels whose kernels (channels, L) end while their systems go on; with the errors that the
    others make behind the taps. Where sequences are as long as the taps (not `dynamic`) nothing is behind them."""
    ended = over(taps)
    return [kept for part in parts if (kept := _kept(part, taps, tolerance, ended)) is not None] if dynamic else parts


def over(taps: Array) -> Array:
    """Which kernels (..., L) end within their window."""
    return np.asarray(~np.any(taps[..., -ENDED:], axis=-1))


def _kept(part: Part, taps: Array, tolerance: float, ended: Array) -> Part | None:
    done = ended[part.channels]
    if not done.any():
        return part
    peak, total = behind(part.fit.system, taps.shape[1] - part.delay)
    size = np.abs(taps[part.channels]).max(axis=1)
    peak = np.where(done, peak / np.where(size > 0, size, 1.0), 0.0)
    good = np.flatnonzero(peak <= tolerance)
    if not len(good):
        return None
    fit = part.fit
    error, l1 = max(fit.error, float(peak[good].max())), fit.l1 + float(np.where(done, total, 0.0)[good].max())
    if len(good) == len(done):
        return replace(part, fit=replace(fit, error=error, l1=l1))
    fields = {name: getattr(fit.system, name)[good] for name in "ABCD"}
    head = None if part.head is None else part.head[good]
    fit = replace(fit, system=replace(fit.system, **fields), error=error, l1=l1)
    return replace(part, channels=part.channels[good], fit=fit, head=head)


def behind(system: StateSpace, start: int) -> tuple[Array, Array]:
    """Upper bounds on `max |h_k|` and on `sum |h_k|` (G,) over all k >= start of systems with real outputs."""
    later = _advanced(system, start)
    seen, reach = later, FAR * start
    peak = np.abs(kernel(seen, reach)).max(axis=(1, 2, 3))
    rest = l1_norm(_advanced(later, reach)).max(axis=1)
    return np.maximum(peak, rest), l1_norm(later).max(axis=1)


def _advanced(system: StateSpace, steps: int) -> StateSpace:
    """The system whose kernel is this one's from step `steps` on."""
    steps = steps - system.read_before
    if system.diagonal:
        c = system.C * powers(system.A, np.array([steps]))[:, None, :, 0]
    else:
        c = system.C @ np.linalg.matrix_power(system.A, steps)
    return replace(system, C=c, D=np.zeros_like(system.D), read_before=False)
