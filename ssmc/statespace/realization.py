"""A kernel's few states where these have no eigenbasis: poles that coincide, or all but do.

A sum of modes says `k a^k` only as the difference of two huge ones with poles next to each other. States that feed each
other say it with two.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ssmc.statespace.hankel import sample, subspace
from ssmc.statespace.system import Array, Real, StateSpace

COUPLED = 12  # states: every one of them is a level of its own in the cascade that both targets run
_MORE = 3  # states beyond the least order that are tried


def realize(kernel: ArrayLike, tolerance: float = 1e-6, below: int | None = None) -> StateSpace | None:
    """A stable system with a dense A whose kernel is the one given (L,) within `tolerance * max |h|`, or None.

    At most `COUPLED` states, half as many as there are taps that are not zero, and fewer than `below`. In the basis of
    the Hankel matrix's leading singular vectors they are those of Kung's realisation (12th Asilomar Conference, 1978),
    which needs no eigenvectors; B is solved for by least squares on all taps, and D makes the first exact.
    """
    taps = np.asarray(kernel, dtype=np.float64)
    scale = float(np.abs(taps[1:]).max(initial=0.0))
    if len(taps) < 8 or scale == 0:
        return None
    scale = float(np.abs(taps).max())
    h = taps[1:] / scale
    alive = int(np.flatnonzero(np.abs(h) > 1e-3 * tolerance)[-1]) + 1  # no more: a short filter is poles in 0
    most = min(COUPLED, len(taps) // 4, max(alive // 2, 1), (below or COUPLED + 1) - 1)
    sequence = h[: max(2 * alive, 64)]
    least = sample(sequence, tolerance, most).least_order(tolerance)
    if least > most:
        return None
    space = subspace(sequence, most)
    for order in range(max(1, least), min(most, least + _MORE, len(space.values)) + 1):
        a, c = space.shift(order), space.vectors[0, :order]
        c = c / np.maximum(np.abs(c).max(), 1e-300)
        if np.abs(np.linalg.eigvals(a)).max() >= 1:
            continue
        seen = observed(a, c, len(h))
        b = np.linalg.lstsq(seen, h, rcond=1e-14)[0]
        if np.abs(seen @ b - h).max() <= tolerance:
            b = (b * scale)[None, :, None]
            return StateSpace(a[None], b, c[None, None], taps[:1, None, None], read_before=True)
    return None


def side_by_side(systems: list[StateSpace]) -> StateSpace:
    """Systems of one group each, with one input and one output, as groups of one; silent states fill up the smaller."""
    most = max(system.states for system in systems)

    def filled(array: Array, *axes: int) -> Array:
        room = [(0, most - size if axis in axes else 0) for axis, size in enumerate(array.shape)]
        return np.pad(array, room)

    return StateSpace(
        np.concatenate([filled(system.A, 1, 2) for system in systems]),
        np.concatenate([filled(system.B, 1) for system in systems]),
        np.concatenate([filled(system.C, 2) for system in systems]),
        np.concatenate([system.D for system in systems]),
        read_before=systems[0].read_before,
    )


def observed(a: Real, c: Real, length: int) -> Real:
    """`c A^k` (length, ..., N) for k from 0, by doubling; `c` (..., N)."""
    rows, factor = c[None], a
    while len(rows) < length:
        rows, factor = np.concatenate([rows, rows @ factor]), factor @ factor
    return rows[:length]
