"""Matrices that are zero but for some places: only the numbers in these are held, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmc.ir.op import Array


@dataclass(frozen=True, eq=False)
class Sparse:
    """A matrix of `shape` (rows, columns); row k holds `values[start[k] : start[k + 1]]` at these `columns`, which
    ascend, and zeros (compressed sparse rows; Saad, Iterative Methods for Sparse Linear Systems, 3.4)."""

    shape: tuple[int, int]
    start: Array
    columns: Array
    values: Array

    def __post_init__(self) -> None:
        for array in (self.start, self.columns, self.values):
            array.setflags(write=False)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type of the values."""
        return self.values.dtype

    @property
    def size(self) -> int:
        """Entries of the whole matrix, zeros included."""
        return self.shape[0] * self.shape[1]

    @property
    def rows(self) -> Array:
        """The row of each value."""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.start))

    def __getitem__(self, at: tuple[slice, slice]) -> Array:
        """A part as an array of its own; slices without steps."""
        (first, last, _), (left, right, _) = (s.indices(n) for s, n in zip(at, self.shape, strict=True))
        found = np.zeros((max(0, last - first), max(0, right - left)), self.dtype)
        held = slice(self.start[first], self.start[max(first, last)])
        column = self.columns[held] - left
        row = np.repeat(np.arange(len(found)), np.diff(self.start[first : first + len(found) + 1]))
        here = (column >= 0) & (column < found.shape[1])
        found[row[here], column[here]] = self.values[held][here]
        return found

    def is_identity(self) -> bool:
        """Is it a square matrix with ones on its diagonal and zeros elsewhere?"""
        at = np.flatnonzero(self.values)
        diagonal = np.array_equal(self.columns[at], np.arange(self.shape[0])) and np.array_equal(
            self.rows[at], self.columns[at]
        )
        return diagonal and self.shape[0] == self.shape[1] and bool((self.values[at] == 1).all())


def of_stacks(shape: tuple[int, int], stacks: Sequence[tuple[int, int, Array]]) -> Sparse:
    """The matrix of blocks that do not overlap: of a stack (row, column, (G, k, n)) block g begins at row + g k and
    column + g n."""
    found: list[list[Array]] = [[], [], []]  # rows, columns, values
    for row, column, stack in stacks:
        groups, high, wide = stack.shape
        g, k, n = np.ogrid[:groups, :high, :wide]
        for held, given in zip(found, (row + g * high + k, column + g * wide + n, stack), strict=True):
            held.append(np.broadcast_to(given, stack.shape).ravel())
    rows, columns, values = (np.concatenate(held) for held in found)
    order = np.lexsort((columns, rows))
    start = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=shape[0]))])
    return Sparse(shape, start, columns[order], values[order])
