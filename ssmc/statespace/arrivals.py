"""What a changed event-driven system can do to its output, for every input whose events come no denser than given."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ssmc.statespace.conjugates import unhalve
from ssmc.statespace.system import Array, Real, StateSpace, StateSpaceError, rates

_CELLS = 2048  # of the grid of elapsed times
_FORGOTTEN = 30.0  # time constants after which the slowest state counts as one that stays at e^-30
_LAGS = 1024  # events told apart; those before count as the last of them


def arrival_spans(dt: ArrayLike) -> Real:
    """(J,) shortest time in which j further events follow one, j = 0, 1, ...; `dt` (batch, time) elapsed times.

    The arrival curve of network calculus (Le Boudec and Thiran, 2001, chapter 1) turned around.
    """
    gaps = np.asarray(dt, dtype=np.float64)
    times = np.cumsum(gaps, axis=1)
    spans = [0.0]
    for lag in range(1, min(gaps.shape[1], _LAGS)):
        spans.append(float((times[:, lag:] - times[:, :-lag]).min()))
    return np.maximum.accumulate(np.concatenate([spans, [spans[-1]] * (gaps.shape[1] - len(spans))]))


def event_l1_distance(one: StateSpace, other: StateSpace, spans: ArrayLike) -> Real:
    """(G, O) bound: `max |y - y'| <= bound max |u|` from a zero state, for events no denser than `spans`.

    The j-th event before lies at least `spans[j]` back, so that it adds at most
    `sup_{t >= spans[j]} |C exp(z t) B - C' exp(z' t) B'|`. The supremum over a cell of the time grid is its larger end
    plus `width^2 / 8` times a bound on the second derivative. Raises StateSpaceError unless both are asynchronous,
    diagonal, and decay.
    """
    for system in (one, other):
        if not system.asynchronous or not system.diagonal or (rates(system).real >= 0).any():
            raise StateSpaceError("event_l1_distance: expected asynchronous, diagonal systems that decay")
    left, right = unhalve(one), unhalve(other)
    z = np.concatenate([rates(left), rates(right)], axis=1)  # g n
    b = np.concatenate([left.B, right.B], axis=1)
    c = np.concatenate([left.C, -right.C], axis=2)
    since = np.asarray(spans, dtype=np.float64)
    grid = _grid(z)
    edges, curve = np.empty((len(grid), *one.D.shape)), np.empty((len(grid), *one.D.shape))
    size = np.abs(z)[:, :, None] ** 2 * np.abs(b)
    for i, time in enumerate(grid):
        edges[i] = np.abs(c @ (np.exp(z * time)[:, :, None] * b))
        curve[i] = np.abs(c) @ (np.exp(z.real * time)[:, :, None] * size)
    width = np.diff(grid, append=grid[-1])[:, None, None, None]
    upper = np.maximum(edges, np.roll(edges, -1, axis=0)) + width**2 / 8 * curve
    decay = np.exp(z.real * grid[-1])[:, :, None] * np.abs(b)
    upper[-1] = np.abs(c) @ decay  # and ever after
    upper = np.maximum.accumulate(upper[::-1], axis=0)[::-1]
    at = np.clip(np.searchsorted(grid, since, side="right") - 1, 0, len(grid) - 1)
    total: Array = upper[at].sum(axis=(0, 3))
    direct = np.abs(left.D - right.D).sum(axis=2)
    return np.asarray(total + direct)


def _grid(z: Array) -> Real:
    """Times from 0 to where nothing is left, close together where the fastest state moves."""
    fastest, slowest = float(np.abs(z).max()), float((-z.real).min())
    return np.concatenate([[0.0], np.geomspace(1e-3 / fastest, _FORGOTTEN / slowest, _CELLS)])
