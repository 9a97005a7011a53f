"""The modes `fri` and `tri` in float64, as machine code: a block of columns stays in registers while steps go by.

The operations on one state, and the order in which a column adds its rows, are those of `recurrence.run_float` and
`read_out`, so that blocks, batches and threads do not matter. Two rows are stepped at a time, of which neither has to
wait for the other; a step's sums stay in registers while the rows go by, several steps together.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssmc.machine_code import Code, Function, Lanes, Pointer, address, function

Array = NDArray[Any]
WIDTH = 8  # columns side by side: float64 numbers of a vector register
STEPS = 8  # of all rows before the next steps
ROWS = 2  # stepped together


@cache
def _loops(halves: int, before: bool, liquid: bool) -> Function:
    """One sample's block of columns; each kind of states is compiled when it is first met."""
    size = 4 * halves * WIDTH  # of a row: x, a, b, c, in halves

    def row(w: Pointer, r: Lanes) -> list[list[Lanes]]:
        found = [w.load(r * size + WIDTH * n, WIDTH) for n in range(4 * halves)]
        return [found[n * halves : (n + 1) * halves] for n in range(4)]

    def following(x: list[Lanes], a: list[Lanes], v: list[Lanes]) -> list[Lanes]:
        if liquid:
            a = [own + drive for own, drive in zip(a, v, strict=True)]
        if halves == 1:
            return [a[0] * x[0] + v[0]]
        return [a[0] * x[0] - a[1] * x[1] + v[0], a[0] * x[1] + a[1] * x[0] + v[1]]

    def term(x: list[Lanes], c: list[Lanes]) -> Lanes:
        return x[0] * c[0] if halves == 1 else x[0] * c[0] - x[1] * c[1]

    def rows(w: Pointer, first: Lanes, count: int, inputs: list[Lanes], sums: list[Lanes]) -> list[Lanes]:
        """`count` rows through all steps; their terms are added in order."""
        held = [row(w, first + k) for k in range(count)]
        states = [x for x, _, _, _ in held]
        for s, u in enumerate(inputs):
            for k, (_, a, b, c) in enumerate(held):
                x, states[k] = states[k], following(states[k], a, [half * u for half in b])
                sums[s] = sums[s] + term(x if before else states[k], c)
        for k, x in enumerate(states):
            for n, half in enumerate(x):
                w.store((first + k) * size + WIDTH * n, half)
        return sums

    def write(
        code: Code, w: Pointer, d: Pointer, u: Pointer, y: Pointer, high: Lanes, steps: Lanes, stride: Lanes
    ) -> None:
        """Step k of u and of y begins at k `stride`."""

        def several(count: int) -> Any:
            def body(t: Lanes) -> None:
                places = [(t + s) * stride for s in range(count)]
                inputs = [u.load(place, WIDTH) for place in places]
                sums = [code.zeros("f8", WIDTH)] * count
                paired = high // ROWS * ROWS
                for low, end, step in ((code.whole(0), paired, ROWS), (paired, high, 1)):
                    sums = code.each(low, end, step, lambda r, *sums, n=step: rows(w, r, n, inputs, list(sums)), *sums)
                for place, drive, total in zip(places, inputs, sums, strict=True):
                    y.store(place, total + drive * d.load(0, WIDTH))

            return body

        whole = steps // STEPS * STEPS
        code.each(0, whole, STEPS, several(STEPS))
        code.each(whole, steps, 1, several(1))

    return function(["f8"] * 4, 3, write)


def packed(a: Array, b: Array, c: Array) -> Array:
    """Parameters (halves, cols, rows) as `run_columns` takes them: (blocks, rows, 3 halves, `WIDTH`)."""
    every = np.concatenate([a, b, c])
    parts, cols, rows = every.shape
    found = np.zeros((blocks_of(cols) * WIDTH, rows, parts))
    found[:cols] = every.transpose(1, 2, 0)
    return np.ascontiguousarray(found.reshape(-1, WIDTH, rows, parts).transpose(0, 2, 3, 1))


def blocks_of(cols: int) -> int:
    """Blocks of columns, which are independent of each other."""
    return -(-cols // WIDTH)


def run_columns(
    p: Array, d: Array, x: Array, u: Array, y: Array, blocks: range, *, reverse: bool, before: bool, liquid: bool
) -> None:
    """x <- a x + b u, or (a + b u) x + b u where `liquid`; y = Re(c x) summed down the columns, before or after the
    update, + d u; of some `blocks` of columns.

    `p` is `packed`, `d` (padded), the states `x` (halves, rows, batch, cols), the drive `u` and `y` (steps, batch,
    padded), contiguous float64; `padded` are the columns filled up to whole blocks. `x` and `y` are written.

    Raises ValueError where an array is none of these.
    """
    halves, rows, batch, cols = x.shape
    steps, count = len(u), blocks_of(cols)
    padded = count * WIDTH
    expected = ((count, rows, 3 * halves, WIDTH), (padded,), (steps, batch, padded), (steps, batch, padded))
    given = tuple(array.shape for array in (p, d, u, y))
    if given != expected or x.dtype != np.float64 or any(not 0 <= block < count for block in blocks):
        raise ValueError(f"{x.dtype} states {x.shape}, blocks {blocks} go with arrays {expected}, not {given}")
    if not steps or not len(blocks):
        return
    stride = batch * padded
    step = _loops(halves, before, liquid)
    work = np.empty((rows, 4 * halves, WIDTH))  # parameters are copied into it, whatever their format
    at, last = work.ctypes.data, (steps - 1) * stride if reverse else 0
    starts = [address(d, "f8"), address(u, "f8"), address(y, "f8", written=True)]
    for sample in range(batch):
        for block in blocks:
            low = block * WIDTH
            n = min(WIDTH, cols - low)
            own = x[:, :, sample, low : low + n].swapaxes(0, 1)
            work[:, :halves, n:] = 0.0
            work[:, :halves, :n] = own
            work[:, halves:] = p[block]
            place = 8 * (last + sample * padded + low)
            step(
                at,
                starts[0] + 8 * low,
                starts[1] + place,
                starts[2] + place,
                rows,
                steps,
                -stride if reverse else stride,
            )
            own[...] = work[:, :halves, :n]
