"""Few decays for many states: a library of time constants, as a device or a table of constants offers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ssmc.statespace.discretization import at_step
from ssmc.statespace.response import log_decays
from ssmc.statespace.system import Array, Real, StateSpace, StateSpaceError, rates

_BINS = 1024  # distinct decays told apart; more are merged with their neighbours first
_FASTEST = 40.0  # exp(-40) is 4e-18: such a state forgets everything, faster ones are the same


@dataclass(frozen=True, eq=False)
class SharedDecays:
    """Which states share which decay."""

    rates: Real  # (K,) `-ln |Abar|`, or `-Re(delta A)` of a system with a step, rising
    assignment: NDArray[np.int64]  # (G, N) index into rates
    shift: Real  # (G, N) ln(tau' / tau), what sharing did to each time constant


def cluster_decays(system: StateSpace, levels: int, weight: ArrayLike | None = None) -> tuple[StateSpace, SharedDecays]:
    """Replace the decay of every state by one of `levels` shared ones; oscillations stay as they are.

    The decays are the best `levels` by weighted squares of log time constants (k-means in one dimension, solved
    exactly by dynamic programming; Wang and Song, R Journal 3/2, 2011). `weight` (G, N) defaults to each mode's
    energy `|C_n|^2 |B_n|^2 / (1 - |a_n|^2)`: to first order, a shift of log tau costs that much energy. A system with
    a step gets it folded into A (delta becomes 1), so that equal decays are equal numbers.

    Raises StateSpaceError if A is dense, `levels` below 1, or a state does not decay.
    """
    if not system.diagonal:
        raise StateSpaceError("cluster_decays: A is dense; diagonalize first")
    if levels < 1:
        raise StateSpaceError(f"levels: expected at least 1, got {levels}")
    decay = np.minimum(-log_decays(system), _FASTEST)
    if (decay <= 0).any():
        g, n = (int(i) for i in np.argwhere(decay <= 0)[0])
        raise StateSpaceError(f"cluster_decays: state {n} of group {g} does not decay; it has no time constant")
    importance = modal_energy(system) if weight is None else np.asarray(weight, dtype=np.float64)
    if importance.shape != decay.shape or not (importance >= 0).all() or not np.isfinite(importance).all():
        raise StateSpaceError(f"weight: expected finite, non-negative {decay.shape}, got {importance.shape}")
    log_tau = -np.log(decay)
    # The smallest share keeps unused states in the order of things.
    share = importance.ravel() / (importance.max() or 1.0) + 1e-12
    centres = _centres(log_tau.ravel(), share, levels)[::-1]
    assignment = np.abs(log_tau[:, :, None] - centres).argmin(axis=2)
    shared = np.exp(-centres)
    return with_decays(system, shared[assignment]), SharedDecays(shared, assignment, centres[assignment] - log_tau)


def modal_energy(system: StateSpace) -> Real:
    """`sum_k |C_n a_n^k B_n|^2` (G, N) of each mode by itself; asynchronous systems at a unit step.

    A continuous system has `|C_n|^2 |delta B_n|^2 / (2 |Re delta A_n|)`, the integral.
    """
    strength = (np.abs(system.C) ** 2).sum(axis=1) * (np.abs(system.B) ** 2).sum(axis=2)
    if system.discrete or system.asynchronous:
        return np.asarray(strength / -np.expm1(2 * log_decays(at_step(system))))
    driven = 1.0 if system.delta is None else system.delta**2
    return np.asarray(strength * driven / (-2 * log_decays(system)))


def with_decays(system: StateSpace, decay: Real) -> StateSpace:
    """`system` with other decays `-ln |Abar|` (G, N), or `-Re(delta A)` of one with a step, which then becomes 1."""
    if system.discrete:
        if np.iscomplexobj(system.A):
            return replace(system, A=np.exp(-decay + 1j * np.angle(system.A)))
        return replace(system, A=np.where(system.A < 0, -1.0, 1.0) * np.exp(-decay))
    z = rates(system)
    a = -decay + 1j * z.imag if np.iscomplexobj(z) else -decay
    b = system.B if system.asynchronous or system.delta is None else system.B * system.delta[:, :, None]
    return replace(system, A=a, B=b, delta=np.ones((1, 1)))


def _centres(x: Real, weight: Real, levels: int) -> Real:
    """The weighted 1-D k-means centres of x, rising; fewer if x has fewer distinct values."""
    order = np.argsort(x)
    x, weight = x[order], weight[order]
    # Equal values go together, and close ones if there are too many for the table below.
    edges = np.flatnonzero(np.diff(x) > 1e-12 * np.maximum(1, np.abs(x[1:]))) + 1
    if len(edges) >= _BINS:
        edges = edges[np.linspace(0, len(edges) - 1, _BINS - 1).astype(int)]
    starts = np.concatenate([[0], edges])
    mass = np.add.reduceat(weight, starts)
    x = np.add.reduceat(weight * x, starts) / mass
    count = len(x)
    levels = min(levels, count)
    offset = x.mean()
    x = x - offset
    total, first, second = (np.concatenate([[0], np.cumsum(mass * x**p)]) for p in (0, 1, 2))

    def spread(i: Array, j: Array) -> Array:
        """Squares around the mean of items i..j-1."""
        m = total[j] - total[i]
        return np.asarray(second[j] - second[i] - (first[j] - first[i]) ** 2 / np.where(m > 0, m, 1))

    stops = np.arange(count + 1)
    cost = np.where(stops[:, None] < stops, np.maximum(spread(stops[:, None], stops), 0), np.inf)
    best, cuts = cost[0], []  # best[j]: items 0..j-1 in one level
    best[0] = np.inf
    for _ in range(levels - 1):
        options = best[:, None] + cost
        cuts.append(options.argmin(axis=0))
        best = options[cuts[-1], stops]
    bounds = [count]
    for cut in reversed(cuts):
        bounds.append(int(cut[bounds[-1]]))
    ends = np.array(bounds[::-1])
    begins = np.concatenate([[0], ends[:-1]])
    return np.asarray((first[ends] - first[begins]) / (total[ends] - total[begins]) + offset)
