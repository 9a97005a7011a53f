"""The modes `fri` and `tri` in float64, compiled: a block of columns stays in the cache while all steps go by.

The operations on one state, and the order in which a column adds its rows, are those of `recurrence.run_float` and
`read_out`, so that blocks, batches and threads do not matter. A row's states stay in vector registers for several steps
at a time; numba makes such loops of what lies in one flat array, at distances that it knows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssmc.jit import compiled, inlined

Array = NDArray[Any]
WIDTH = 16  # columns side by side: two vectors of eight
STEPS = 8  # of a row before the next one: as many as registers allow
SUMS = STEPS * WIDTH  # in the flat array: the inputs of these steps, their sums, and the rows with their parameters
ROWS = 2 * SUMS


@inlined
def _real(w: Any, rows: int, count: int, before: bool, liquid: bool) -> None:
    """A row is x, a, b, c, each as wide as a block of columns."""
    for r in range(rows):
        at = ROWS + 4 * WIDTH * r
        for j in range(WIDTH):
            x = w[at + j]
            for s in range(count):
                v = w[at + 2 * WIDTH + j] * w[s * WIDTH + j]
                a = w[at + WIDTH + j] + v if liquid else w[at + WIDTH + j]
                following = a * x + v
                w[SUMS + s * WIDTH + j] += (x if before else following) * w[at + 3 * WIDTH + j]
                x = following
            w[at + j] = x


@inlined
def _complex(w: Any, rows: int, count: int, before: bool, liquid: bool) -> None:
    """As `_real`, each of the four in two halves."""
    for r in range(rows):
        at = ROWS + 8 * WIDTH * r
        for j in range(WIDTH):
            re, im = w[at + j], w[at + WIDTH + j]
            for s in range(count):
                u = w[s * WIDTH + j]
                v, g = w[at + 4 * WIDTH + j] * u, w[at + 5 * WIDTH + j] * u
                a, b = w[at + 2 * WIDTH + j], w[at + 3 * WIDTH + j]
                if liquid:
                    a, b = a + v, b + g
                next_re = a * re - b * im + v
                next_im = a * im + b * re + g
                c, d = w[at + 6 * WIDTH + j], w[at + 7 * WIDTH + j]
                if before:
                    w[SUMS + s * WIDTH + j] += re * c - im * d
                else:
                    w[SUMS + s * WIDTH + j] += next_re * c - next_im * d
                re, im = next_re, next_im
            w[at + j], w[at + WIDTH + j] = re, im


@cache
def _loops(halves: int, before: bool, liquid: bool) -> Callable[..., None]:
    """Steps of columns `first` to `last` - 1; each kind of states is compiled when it is first met."""

    def run(p: Any, d: Any, x: Any, u: Any, y: Any, first: int, last: int, reverse: bool) -> None:
        steps, batch = u.shape[:2]
        rows = x.shape[1]
        size = 4 * halves * WIDTH
        w = np.zeros(ROWS + size * rows)
        for sample in range(batch):
            for low in range(first, last, WIDTH):
                n = min(WIDTH, last - low)
                for r in range(rows):
                    at = ROWS + size * r
                    for j in range(n):
                        for i in range(halves):
                            w[at + i * WIDTH + j] = x[i, r, sample, low + j]
                        for i in range(3 * halves):
                            w[at + (halves + i) * WIDTH + j] = p[i, r, low + j]
                t = 0
                while t < steps:
                    m = STEPS if t + STEPS <= steps else 1
                    for s in range(m):
                        k = steps - 1 - t - s if reverse else t + s
                        for j in range(n):
                            w[s * WIDTH + j] = u[k, sample, low + j]
                        for j in range(WIDTH):
                            w[SUMS + s * WIDTH + j] = 0.0
                    if halves == 1:
                        if m == STEPS:
                            _real(w, rows, STEPS, before, liquid)
                        else:
                            _real(w, rows, 1, before, liquid)
                    elif m == STEPS:
                        _complex(w, rows, STEPS, before, liquid)
                    else:
                        _complex(w, rows, 1, before, liquid)
                    for s in range(m):
                        k = steps - 1 - t - s if reverse else t + s
                        for j in range(n):
                            y[k, sample, low + j] = w[SUMS + s * WIDTH + j] + w[s * WIDTH + j] * d[low + j]
                    t += m
                for r in range(rows):
                    at = ROWS + size * r
                    for j in range(n):
                        for i in range(halves):
                            x[i, r, sample, low + j] = w[at + i * WIDTH + j]

    return compiled(run)


def packed(a: Array, b: Array, c: Array) -> Array:
    """Parameters (halves, cols, rows) as `run_columns` takes them: (3 halves, rows, cols)."""
    return np.ascontiguousarray(np.concatenate([a, b, c]).transpose(0, 2, 1), np.float64)


def blocks_of(cols: int) -> int:
    """Blocks of columns, which are independent of each other."""
    return -(-cols // WIDTH)


def run_columns(
    p: Array, d: Array, x: Array, u: Array, y: Array, blocks: range, *, reverse: bool, before: bool, liquid: bool
) -> None:
    """x <- a x + b u, or (a + b u) x + b u where `liquid`; y = Re(c x) summed down the columns, before or after the
    update, + d u; of some `blocks` of columns.

    `p` is `packed`, `d` (cols,), the states `x` (halves, rows, batch, cols), the drive `u` and `y` (steps, batch,
    cols). `x` and `y` are written; all are contiguous float64.
    """
    halves, cols = len(x), x.shape[-1]
    first, last = min(WIDTH * blocks.start, cols), min(WIDTH * blocks.stop, cols)
    _loops(halves, before, liquid)(p, d, x, u, y, first, last, reverse)
