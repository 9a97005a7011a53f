"""The range of a converter that loses least: what it clips against how coarsely it rounds."""

from __future__ import annotations

import numpy as np

from ssmc.ir.op import Array

# What is clipped errs to one side, and adds up over the steps that a state remembers; what is rounded averages out.
# The factor is ours: on the packaged samples anything from 4 to 64 does as well.
COHERENT = 16.0
TRIED = np.geomspace(1.0, 0.05, 40)  # of the largest value


def best_range(values: Array, bits: int, weight: Array | float = 1.0, ceiling: float = np.inf) -> float:
    """The range R of a converter of `bits`, sign included, with the least `sum weight (q_R(x) - x)^2`, what is clipped
    counted `COHERENT` times; 0 for no data. Tried are ranges from the largest |value| (no more than `ceiling`, where
    that is the largest there can be) downwards.
    """
    largest = min(float(np.abs(values).max(initial=0.0)), ceiling)
    if largest == 0.0:
        return 0.0
    words = 2 ** (bits - 1) - 1
    size = np.abs(values)
    errors = [_error(values, size, largest * part, words, weight) for part in TRIED]
    return float(largest * TRIED[int(np.argmin(errors))])


def _error(values: Array, size: Array, full: float, words: int, weight: Array | float) -> float:
    missed = values * (words / full)
    np.rint(missed, out=missed)
    np.clip(missed, -words, words, out=missed)
    missed *= full / words
    missed -= values
    np.square(missed, out=missed)
    missed *= weight
    return float(missed.sum() + (COHERENT - 1.0) * missed[size > full].sum())
