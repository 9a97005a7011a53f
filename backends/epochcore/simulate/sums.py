"""Partial sums down a column in fixed point: every element adds its term in a register of `accumulator_bits`, so that
what does not fit is limited, or wraps round, there, not only where the sum leaves the array.

Where the sizes of all terms together fit, they are added at once, which is the same and exact.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from backends.epochcore.arch import Numbers
from backends.epochcore.formats import limited
from backends.epochcore.simulate.recurrence import Parts, added, terms
from ssmc.ir.op import Array


class Products:
    """Vectors of integers times a matrix of integers (inputs, outputs), whose rows are added one after the other."""

    def __init__(self, weight: Array, numbers: Numbers) -> None:
        self._weight, self._numbers, self._size = weight, numbers, np.abs(weight)
        # of the largest integers that can enter
        self._fits = 2.0 ** (numbers.activation_bits - 1) * self._size.sum(0).max(initial=0.0) <= _most(numbers)

    def of(self, vectors: Array) -> tuple[Array, int]:
        """(vectors, inputs) to (vectors, outputs), and how many sums on the way did not fit."""
        found, outside = vectors @ self._weight, 0
        if not self._fits and (late := (np.abs(vectors) @ self._size > _most(self._numbers)).any(1)).any():
            rows = zip(vectors[late].T, self._weight, strict=True)
            found[late], outside = _one_by_one((np.outer(own, row) for own, row in rows), self._numbers)
        return found, outside


class Readings:
    """Re(c x), summed over the rows; floating point adds them as they are."""

    def __init__(self, c: Parts, numbers: Numbers) -> None:
        self._c, self._numbers = c, numbers
        most = np.abs(np.stack(c)).sum((0, 1)).max(initial=0.0)
        self._fits = not numbers.fixed or 2.0 ** (numbers.state_bits - 1) * most <= _most(numbers)

    def of(self, states: Parts) -> tuple[Array, int]:
        """(rows, batch, cols) to (batch, cols), and how many sums on the way did not fit."""
        values, outside = terms(states, self._c), 0
        found = added(values)
        if not self._fits and (late := np.abs(values).sum(0) > _most(self._numbers)).any():
            found[late], outside = _one_by_one(values[:, late], self._numbers)
        return found, outside


def _most(numbers: Numbers) -> float:
    return float(2.0 ** (numbers.accumulator_bits - 1) - 1)


def _one_by_one(values: Iterable[Array], numbers: Numbers) -> tuple[Array, int]:
    """Terms, in their order, added as the elements do."""
    total, outside = np.zeros(1), 0
    for value in values:
        total, more = limited(total + value, numbers.accumulator_bits, wrap=numbers.overflow == "wrap")
        outside += more
    return total, outside
