"""Sums that are whole numbers, as counters of steps: nothing that rounds them down or up is on an edge.

Such a sum lies where the next code begins, exactly, in any precision. Half a code away from there rounds to the same.
"""

from __future__ import annotations

import numpy as np

from ssmc.ir.op import Array
from ssmc.ir.ops.rounded_sums import FREE

ASIDE = 0.5


def off_edges(grid: Array, terms: Array, drive: Array, start: Array, rounding: str) -> Array:
    """The `grid` (5, n), its shifts half a code away where sums are whole numbers, and it rounds down or up by 1.

    `drive` (n,) is what is added to each sum and `start` (n,) what it is at first, both NaN where data tell.
    """
    if rounding == "nearest":
        return grid
    n = grid.shape[1]
    number, source = terms[0].astype(int), terms[1].astype(int) % n
    scale, shift, zero = grid[:3]
    begins = _is_whole(start)
    driven, weighted = _is_whole(drive), _is_whole(terms[2])
    coded = _is_whole(scale) & _is_whole(zero) & (scale != FREE)
    whole, sums = begins.copy(), driven
    while True:
        own = np.ones(n, bool)
        np.logical_and.at(own, number, weighted & whole[source])
        sums = driven & own
        found = begins & (coded | sums)
        if np.array_equal(found, whole):
            break
        whole = found & whole
    moved = sums & (scale == 1.0) & _is_whole(shift)
    aside = ASIDE if rounding == "floor" else -ASIDE
    return np.asarray(np.concatenate([grid[:1], (shift + np.where(moved, aside, 0.0))[None], grid[2:]]))


def _is_whole(values: Array) -> Array:
    return np.asarray(np.isfinite(values) & (values == np.rint(values)))
