"""A state-space system from a kernel alone.

Where the model's own A, B, C can be had they should be used; a kernel of trained weights may have no short system
behind it at all. So the answer is checked tap by tap, its poles lie inside the circle by construction, and where
the tolerance is not met the caller is told to keep the kernel.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ssmc.statespace.channel import ChannelFits
from ssmc.statespace.grids import fit_on_grid
from ssmc.statespace.joint import JointFits
from ssmc.statespace.residues import ModalFit, assemble, least_squares
from ssmc.statespace.response import kernel as kernel_of
from ssmc.statespace.system import Real, StateSpace, StateSpaceError

_MOST = 256  # no higher order is tried
_LONG = 1000  # taps of which no close fit is looked for where none can meet the tolerance
_AT_ONCE = 8  # kernels fitted at the same time, each with matrices of 20 MB
_MANY = 100  # states
_FINE = 16  # ours: share of the order, 1 / n, by which it may be higher than it must
_NEAR = 1e4  # ours: tolerances that a fit may be off for others to be tried from all taps
_DESCENT = 8  # attempts at lower orders after the first success


@dataclass(frozen=True, eq=False)
class Identification:
    """What was found for each channel; the tolerance was met by all if `system` is not None."""

    system: StateSpace | None
    candidate: StateSpace  # the best found, stable, whether it meets the tolerance or not
    met: NDArray[np.bool_]  # (G,)
    residual: Real  # (G,) max |h - h'| / max |h| over the taps given
    l1_error: Real  # (G,) sum |h - h'| over the taps given: bounds the output error that far
    order: NDArray[np.int64]  # (G,) real states
    least: NDArray[np.int64]  # (G,) no system of fewer states meets the tolerance, diagonal or not
    method: str

    @property
    def ok(self) -> bool:
        return self.system is not None

    def part(self, which: NDArray[np.int64]) -> StateSpace:
        """The candidates of some groups alone, without states that only others have."""
        found = self.candidate
        a, b, c, d = found.A[which], found.B[which], found.C[which], found.D[which]
        used = np.flatnonzero(np.abs(b).max(axis=(0, 2)) > 0)
        used = used if len(used) else np.arange(1)
        a, b, c = a[:, used], b[:, used], c[:, :, used]
        if found.halved and not np.any(a.imag):
            return StateSpace(a.real, b.real, 2 * c.real, d)
        return replace(found, A=a, B=b, C=c, D=d)


def identify(kernel: ArrayLike, tolerance: float = 1e-6, max_order: int | None = None) -> Identification:
    """Stable systems whose kernels are the given ones within `tolerance * max |h|`, of low order.

    `kernel` (L,) or (G, L) real: channels of one input and one output each; or (O, I, L): one system, many in, many
    out, as one group. Poles come from the shift-invariance of the Hankel matrix's leading singular vectors, what they
    multiply from least squares; a single channel that comes near the tolerance gets its poles refined, inside the
    circle, or where they lie too close together gets poles on a grid. The order is the lowest found that meets the
    tolerance, at most `max_order` and less than half the taps (times the smaller of O and I; of a single channel, the
    taps up to the last above the tolerance); D carries what the poles leave of tap 0.

    Raises StateSpaceError for a kernel that is not real, finite, of such a shape, with L >= 4.
    """
    taps = np.atleast_2d(np.asarray(kernel))
    if taps.ndim not in (2, 3) or min(taps.shape[:-1]) < 1 or taps.shape[-1] < 4 or taps.dtype.kind not in "biuf":
        raise StateSpaceError(f"kernel: expected real (G, L) or (O, I, L), L >= 4, got {taps.dtype} {taps.shape}")
    if not np.isfinite(taps).all():
        raise StateSpaceError(
            f"kernel: not finite at index {tuple(int(i) for i in np.argwhere(~np.isfinite(taps))[0])}"
        )
    taps = taps.astype(np.float64)
    channels = taps[None] if taps.ndim == 3 else taps[:, None, None]  # g o i l
    scale = np.abs(channels).max(axis=(1, 2, 3))
    scale = np.where(scale > 0, scale, 1.0)
    length = taps.shape[-1]
    limit = min(max_order or _MOST, (length - 1) // 2 * min(channels.shape[1:3]))
    if taps.ndim == 3:
        joint = _search(JointFits(channels[0] / scale[0], tolerance), limit, tolerance)
        candidate, order, method = joint.system(channels[0, :, :, 0], scale[0]), np.array([joint.order]), "era"
        least = np.zeros(1, np.int64)
    else:
        found = _fits(taps / scale[:, None], tolerance, limit)
        least = np.array([needed for _, needed in found])
        fits = [ModalFit(f.poles, f.residues * size, f.missed) for (f, _), size in zip(found, scale, strict=True)]
        candidate = assemble(fits, taps[:, 0], 0.1 * tolerance * float(scale.min()))
        order, method = np.array([fit.order for fit in fits]), "esprit"
    missed = np.abs(kernel_of(candidate, length) - channels)
    residual = missed.max(axis=(1, 2, 3)) / scale
    met = (residual <= tolerance) & (order <= limit)
    l1_error = missed.sum(axis=(2, 3)).max(axis=1)
    return Identification(candidate if met.all() else None, candidate, met, residual, l1_error, order, least, method)


class _Found(Protocol):
    @property
    def worst(self) -> float: ...

    @property
    def order(self) -> int: ...


_Fit = TypeVar("_Fit", bound=_Found)
_FitMade = TypeVar("_FitMade", bound=_Found, covariant=True)


class _Family(Protocol[_FitMade]):
    """Fits of one kernel by order."""

    @property
    def values(self) -> Real: ...  # singular values of the Hankel matrix, falling

    needed: int  # no fewer states can do

    def attempt(self, order: int, reach: float) -> _FitMade: ...


def _search(family: _Family[_Fit], limit: int, tolerance: float) -> _Fit:
    """The fit of the lowest order that meets the tolerance, near the Hankel matrix's rank; or else the closest."""
    most = max(1, min(limit, len(family.values)))

    def good(fit: _Fit) -> bool:
        return fit.worst <= tolerance and fit.order <= limit

    def better(one: _Fit, other: _Fit) -> _Fit:
        return min(one, other, key=lambda fit: (not good(fit), fit.order if good(fit) else fit.worst))

    order = max(1, min(most, int((family.values > tolerance * family.values[0]).sum())))
    if family.needed > limit:
        return family.attempt(most, 0)
    below = max(0, family.needed - 1)
    best = family.attempt(order, _reach(order))
    while not good(best) and order < most:
        below, order = order, min(most, order + max(1, order // 8))
        last, best = best, better(best, family.attempt(order, _reach(order)))
        if best.worst > 0.5 * last.worst:
            break
    for _ in range(_DESCENT if good(best) else 0):
        if order - below <= max(1, order // _FINE):
            break
        trial = (order + below) // 2
        fit = family.attempt(trial, 100)
        below, order = (below, trial) if good(fit) else (trial, order)
        best = better(best, fit)
    return best


def _reach(order: int) -> float:
    """Tolerances that a fit may be off for its poles to be moved: of many it takes long, and seldom helps from afar."""
    return 3e4 if order <= _MANY else 100


def _fits(taps: Real, tolerance: float, limit: int) -> list[tuple[ModalFit, int]]:
    """The fit of each kernel (G, L), and how many states it takes at least; they share the cores."""
    from ssmc.threads import cores, one_blas_thread

    with one_blas_thread(), ThreadPoolExecutor(min(len(taps), cores(), _AT_ONCE)) as pool:
        return list(pool.map(lambda h: _fit(h, tolerance, limit), taps))


def _fit(h: Real, tolerance: float, limit: int) -> tuple[ModalFit, int]:
    """The fit of one kernel, its largest tap 1, and how many states it takes at least."""
    if np.abs(h[1:]).max() <= tolerance:
        return least_squares(np.zeros(0, complex), h[1:]), 0
    alive = int(np.flatnonzero(np.abs(h) > tolerance)[-1])
    limit = min(limit, max(1, alive // 2))
    family = ChannelFits(h[1:], limit, tolerance)
    return _of_family(family, h, tolerance, limit), family.needed


def _of_family(family: ChannelFits, h: Real, tolerance: float, limit: int) -> ModalFit:
    if family.needed > limit and len(h) > _LONG:
        return least_squares(np.zeros(0, complex), h[1:])
    rough = family.rough() if len(h) > _LONG else None
    if rough is not None:
        return rough
    fit = _search(family, limit, tolerance)
    near = tolerance < fit.worst <= _NEAR * tolerance
    if family.space.every > 1 and near and family.needed <= _MANY:
        fit = min(fit, _search(family.unthinned(), limit, tolerance), key=lambda found: found.worst)
    if fit.worst <= tolerance and fit.order <= limit:
        return fit
    found = fit_on_grid(fit.poles, h[1:], family.at, limit, tolerance, family.restraint)
    return found or least_squares(fit.poles, h[1:], None, family.restraint)
