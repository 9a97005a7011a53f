"""Balanced truncation: fewer states, with a bound on what that costs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ssmc.statespace.conjugates import to_real
from ssmc.statespace.gramians import controllability_gramian, observability_gramian, require_stable
from ssmc.statespace.system import Array, Real, StateSpace, StateSpaceError, require_discrete


@dataclass(frozen=True, eq=False)
class Reduction:
    """A reduced system and what it may lose."""

    system: StateSpace  # real, dense, padded with silent states to the largest order
    hankel_singular_values: Real  # (G, M) of the original's real form, falling
    orders: NDArray[np.int64]  # (G,) states kept
    bound: Real  # (G,) at least max_w sigma_max(H - H'): twice the sum of the values left out


def balanced_truncation(system: StateSpace, order: int | None = None, tolerance: float | None = None) -> Reduction:
    """Keep the states that are easiest both to reach and to see, per group (Moore 1981).

    With Gramian factors `W_c = R R*`, `W_o = L L*` and `L* R = U S V*`, the projections are `R V S^-1/2` and
    `L U S^-1/2`; S are the Hankel singular values. `||H - H'||_inf <= 2 sum` of those left out (Glover 1984;
    Al-Saggaf and Franklin 1987 for discrete time). D is kept; the learned initial state is projected too.

    Give `order`, real states a group, or `tolerance`, the bound allowed relative to the largest singular value.
    Raises StateSpaceError unless exactly one is given and the system is discrete, stable and real in its output.
    """
    if (order is None) == (tolerance is None):
        raise StateSpaceError("balanced_truncation: give either order or tolerance")
    if order is not None and order < 1:
        raise StateSpaceError(f"order: expected at least 1, got {order}")
    require_discrete(system, "balanced_truncation")
    require_stable(system, "balanced_truncation")
    real = to_real(system)
    reach, seen = _factor(controllability_gramian(real)), _factor(observability_gramian(real))
    left, values, right = np.linalg.svd(seen.swapaxes(1, 2) @ reach)
    dropped = 2 * np.concatenate([np.cumsum(values[:, ::-1], axis=1)[:, ::-1], np.zeros((real.groups, 1))], axis=1)
    # A singular value of rounding error has no direction to keep.
    sound = (values > values[:, :1] * real.states * np.finfo(float).eps).sum(axis=1)
    if order is not None:
        orders = np.minimum(order, sound)
    else:
        orders = np.minimum((dropped > (tolerance or 0.0) * values[:, :1]).sum(axis=1), sound)
    width = max(1, int(orders.max()))
    keep = np.arange(width) < orders[:, None]
    scale = np.where(keep, 1 / np.sqrt(np.where(keep, values[:, :width], 1)), 0)
    into = reach @ right.swapaxes(1, 2)[:, :, :width] * scale[:, None, :]  # x = into x'
    onto = (seen @ left[:, :, :width] * scale[:, None, :]).swapaxes(1, 2)  # x' = onto x
    x0 = None if real.x0 is None else np.einsum("gnm,gm->gn", onto, real.x0)
    reduced = replace(real, A=onto @ real.A @ into, B=onto @ real.B, C=real.C @ into, x0=x0)
    bound = np.take_along_axis(dropped, orders[:, None], axis=1)[:, 0]
    return Reduction(reduced, values, orders, bound)


def _factor(gramian: Array) -> Real:
    """R with `R R^T` = gramian, positive or not quite: rounding makes small eigenvalues negative."""
    values, vectors = np.linalg.eigh(gramian)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0))[:, None, :])
