"""Which block of weights each weight of an array was written with last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import numpy as np

from ssmc.ir.op import Array

Region = tuple[slice, slice]  # rows and columns of weights


@dataclass(frozen=True)
class Part:
    """Weights written at once, the first one at `row`, `col`: `weights` (rows, cols), times `unit` (cols,) where there
    is one, as the constants hold them, and `scale` (cols,), the weight that full conductance stands for."""

    row: int
    col: int
    weights: Array
    unit: Array | None
    scale: Array

    @property
    def values(self) -> Array:
        """In model units, float64."""
        return np.asarray(self.weights, np.float64) if self.unit is None else self.weights * self.unit

    @property
    def region(self) -> Region:
        rows, cols = self.weights.shape
        return slice(self.row, self.row + rows), slice(self.col, self.col + cols)


@dataclass
class Cells:
    """The weights of an array of `shape` (rows, columns). `parts` are what was written and is not yet written over as a
    whole, by number; the weights are those of the program's constants. How many parts there are costs nothing."""

    shape: tuple[int, int]
    parts: dict[int, Part] = field(default_factory=dict)
    left: dict[int, int] = field(default_factory=dict)  # weights of each part that are not written over
    free: list[int] = field(default_factory=list)  # numbers of parts that are no more
    grid: Array | None = None  # as `owner` gives it, of several parts: what one part says need not be kept

    def owner(self) -> Array:
        """(rows, columns) number of the part that wrote each weight last, 0 for none; no wider than that takes."""
        if self.grid is not None:
            return self.grid
        found = np.zeros(self.shape, np.min_scalar_type(prod(self.shape)))
        for number, part in self.parts.items():
            found[part.region] = number
        return found

    def write(self, part: Part) -> None:
        """A later part lies over earlier ones."""
        owner = self.owner()
        own = owner[part.region]
        for number, count in zip(*(each.tolist() for each in np.unique(own, return_counts=True)), strict=True):
            if number:
                self.left[number] -= count
                if not self.left[number]:
                    del self.parts[number], self.left[number]
                    self.free.append(number)
        number = self.free.pop() if self.free else len(self.parts) + 1
        self.parts[number], self.left[number] = part, own.size
        own[:] = number
        self.grid = owner if len(self.parts) > 1 else None

    def holds(self, region: Region) -> bool:
        """Whether anything was written there."""
        return bool(self.owner()[region].any())

    def weights(self, region: Region) -> Array:
        """In model units, NaN where nothing was written."""
        return self._filled(region, lambda part: part.values)

    def scales(self, region: Region) -> Array:
        """Of every weight, NaN where nothing was written."""
        return self._filled(region, lambda part: np.broadcast_to(part.scale, part.weights.shape))

    def _filled(self, region: Region, values: Callable[[Part], Array]) -> Array:
        own = self.owner()[region]
        out = np.full(own.shape, np.nan)
        for number in np.unique(own[own > 0]).tolist():
            part = self.parts[number]
            rows, cols = np.nonzero(own == number)
            out[rows, cols] = values(part)[rows + (region[0].start - part.row), cols + (region[1].start - part.col)]
        return out
