"""The DRAM channel where engines hand over step by step: in every cycle it serves the oldest transfer that can go on.

A younger transfer gets what the older ones leave, so that placing transfers in the program's order, each into the
cycles that are left, gives the same as serving them cycle by cycle. When it is taken is kept as disjoint intervals in
order; cycles are counted as free ones, those before a time that are in none of them, and back.

`placing` does that; here is what is done to all intervals at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def clipped(starts: Ints, ends: Ints, first: int) -> tuple[Ints, Ints]:
    """What of intervals comes after `first`."""
    at = int(ends.searchsorted(first, "right"))
    return np.maximum(starts[at:], first), ends[at:]


def again(starts: Ints, ends: Ints, first: int, each: int, times: int) -> tuple[Ints, Ints]:
    """Intervals, where what was taken in the `each` cycles from `first` on is so again so many `times` before what
    comes later."""
    split = first + each
    late = each * np.arange(times + 1)[:, None]
    same = [(late + side).ravel() for side in _between(starts, ends, first, split, 0)]
    cut = [_between(starts, ends, 0, first, 0), same, _between(starts, ends, split, None, times * each)]
    starts, ends = (np.concatenate(values) for values in zip(*cut, strict=True))
    apart = np.flatnonzero(starts[1:] > ends[:-1])
    if not len(starts):
        return starts, ends
    return starts[np.append(0, apart + 1)], ends[np.append(apart, len(ends) - 1)]


def _between(starts: Ints, ends: Ints, low: int, high: int | None, late: int) -> tuple[Ints, Ints]:
    """Parts of intervals from `low` to `high`, so much later."""
    starts, ends = np.maximum(starts, low), ends if high is None else np.minimum(ends, high)
    kept = starts < ends
    return starts[kept] + late, ends[kept] + late
