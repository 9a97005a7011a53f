"""The modes `fri` and `tri` in float64, compiled: a block of columns stays in the cache while all steps go by.

The operations on one state, and the order in which a column adds its rows, are those of `recurrence.run_float` and
`read_out`, so that blocks and batches do not matter. Real and complex states have a loop each: halves of zeros would
double the work of real ones, and straight loops over plain arrays are what numba makes vector instructions of.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssmc.jit import compiled

Array = NDArray[Any]
Parts = tuple[Array, ...]
WIDTH = 16  # columns side by side: two vectors of eight


@compiled
def _real(p: Any, x: Any, u: Any, y: Any, reverse: bool, before: bool, liquid: bool) -> None:
    """`p` is (a, b, c) by rows and columns, `x` (rows, batch, cols), `u` and `y` (steps, batch, cols)."""
    steps, batch, cols = u.shape
    rows = x.shape[0]
    own, drive, total = np.zeros((4, rows, WIDTH)), np.zeros(WIDTH), np.zeros(WIDTH)
    for sample in range(batch):
        for first in range(0, cols, WIDTH):
            n = min(WIDTH, cols - first)
            for r in range(rows):
                for j in range(n):
                    own[0, r, j] = x[r, sample, first + j]
                    for i in range(3):
                        own[1 + i, r, j] = p[i, r, first + j]
            for t in range(steps):
                k = steps - 1 - t if reverse else t
                for j in range(n):
                    drive[j] = u[k, sample, first + j]
                for j in range(WIDTH):
                    total[j] = 0.0
                for r in range(rows):
                    for j in range(WIDTH):
                        v = own[2, r, j] * drive[j]
                        a = own[1, r, j] + v if liquid else own[1, r, j]
                        now = own[0, r, j]
                        following = a * now + v
                        total[j] += (now if before else following) * own[3, r, j]
                        own[0, r, j] = following
                for j in range(n):
                    y[k, sample, first + j] = total[j]
            for r in range(rows):
                for j in range(n):
                    x[r, sample, first + j] = own[0, r, j]


@compiled
def _complex(p: Any, x: Any, u: Any, y: Any, reverse: bool, before: bool, liquid: bool) -> None:
    """As `_real`, with halves: `p` is (a, a, b, b, c, c) and `x` (halves, rows, batch, cols)."""
    steps, batch, cols = u.shape
    rows = x.shape[1]
    own, drive, total = np.zeros((8, rows, WIDTH)), np.zeros(WIDTH), np.zeros(WIDTH)
    for sample in range(batch):
        for first in range(0, cols, WIDTH):
            n = min(WIDTH, cols - first)
            for r in range(rows):
                for j in range(n):
                    own[0, r, j] = x[0, r, sample, first + j]
                    own[1, r, j] = x[1, r, sample, first + j]
                    for i in range(6):
                        own[2 + i, r, j] = p[i, r, first + j]
            for t in range(steps):
                k = steps - 1 - t if reverse else t
                for j in range(n):
                    drive[j] = u[k, sample, first + j]
                for j in range(WIDTH):
                    total[j] = 0.0
                for r in range(rows):
                    for j in range(WIDTH):
                        v, w = own[4, r, j] * drive[j], own[5, r, j] * drive[j]
                        a = own[2, r, j] + v if liquid else own[2, r, j]
                        b = own[3, r, j] + w if liquid else own[3, r, j]
                        re, im = own[0, r, j], own[1, r, j]
                        next_re = a * re - b * im + v
                        next_im = a * im + b * re + w
                        if before:
                            total[j] += re * own[6, r, j] - im * own[7, r, j]
                        else:
                            total[j] += next_re * own[6, r, j] - next_im * own[7, r, j]
                        own[0, r, j], own[1, r, j] = next_re, next_im
                for j in range(n):
                    y[k, sample, first + j] = total[j]
            for r in range(rows):
                for j in range(n):
                    x[0, r, sample, first + j] = own[0, r, j]
                    x[1, r, sample, first + j] = own[1, r, j]


def run_columns(
    a: Array, b: Array, c: Array, states: Parts, drive: Array, *, reverse: bool, before: bool, liquid: bool
) -> tuple[Parts, Array]:
    """x <- a x + b u, or (a + b u) x + b u where `liquid`; Re(c x) summed down the columns, before or after the update.

    a, b, c are (halves, cols, rows); `states` (rows, batch, cols) for each half; `drive` (steps, batch, cols), the
    shape of what is returned beside the last states. All float64.
    """
    p = np.ascontiguousarray(np.concatenate([a, b, c]).transpose(0, 2, 1))
    u, total = np.ascontiguousarray(drive), np.empty(drive.shape)
    x = np.array(states)
    if len(states) == 1:
        _real(p, x[0], u, total, reverse, before, liquid)
    else:
        _complex(p, x, u, total, reverse, before, liquid)
    return tuple(x), total
