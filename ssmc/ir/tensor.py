"""Constant arrays as attributes: read-only, compared by content, optionally with the integers behind them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssmc.ir.sparse import Sparse


@dataclass(frozen=True)
class Quantization:
    """How a tensor was rounded: value = scale * integer, a `scale` for each index of `axis` (per column).

    Of a complex tensor both parts are integers times the scale.
    """

    bits: int
    scale: tuple[float, ...]
    axis: int = -1


LARGE = 1 << 18  # entries from which a float32 array is kept as it is, and a sparse matrix sparse


class Tensor:
    """An immutable array; float64 or complex128 for numbers, int64 for indices.

    Large float32 arrays are `stored` as they are, in whatever order; `array` is their float64 copy, made each time.
    `quantization`, where given, says that every value is exactly `scale * integer`; of a large tensor on a grid (see
    `on_grid`) only the integers are held, and `stored` is made each time, too. So it is of a `Sparse` matrix, which is
    held as it is: `part` gives what one needs of it.
    """

    __slots__ = ("__dict__", "_held", "quantization")

    def __init__(self, array: Any, quantization: Quantization | None = None) -> None:
        self.quantization = quantization
        self._held: NDArray[Any] | Sparse
        if isinstance(array, Sparse):
            self._held = array
            return
        value = np.asarray(array)
        narrow = value.dtype == np.float32 and value.size >= LARGE
        if narrow:
            value = value.copy() if value.flags.writeable else value
        else:
            wide = {"f": np.float64, "c": np.complex128, "i": np.int64, "u": np.int64}.get(value.dtype.kind)
            value = np.array(value, wide, order="C")
        value.setflags(write=False)
        self._held = value

    @staticmethod
    def on_grid(integers: NDArray[Any] | Sparse, quantization: Quantization) -> Tensor:
        """The tensor whose values are `integers` (int8 or int16, real) times the scale; large ones stay integers."""
        if isinstance(integers, Sparse):
            return Tensor(integers, quantization)
        if integers.size < LARGE:
            return Tensor(integers * _scales(quantization, integers.shape), quantization)
        found = Tensor(np.zeros(0), quantization)
        found._held = integers.copy() if integers.flags.writeable else integers
        found._held.setflags(write=False)
        return found

    @property
    def levels(self) -> NDArray[Any] | Sparse | None:
        """The integers, where only they are held."""
        return self._held if self._on_grid else None

    @property
    def _on_grid(self) -> bool:
        return self._held.dtype.itemsize < 4 and self._held.dtype.kind == "i"

    @property
    def stored(self) -> NDArray[Any]:
        """The numbers as they are held: float32 or float64, complex128, int64. Read-only."""
        return self._rows(slice(None))

    def _rows(self, rows: slice) -> NDArray[Any]:
        """Some rows of what is `stored`."""
        found = _some(self._held, rows)
        if self._on_grid and self.quantization is not None:
            found = found * _scales(self.quantization, self.shape)[rows]
        found.setflags(write=False)
        return found

    @property
    def array(self) -> NDArray[Any]:
        """The numbers in float64, complex128 or int64: what passes compute with. Read-only."""
        wide: NDArray[Any] = widened(self.stored)
        return wide

    def part(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Some rows and columns of a matrix, as in `array`; the rest of a large one is not widened for them."""
        if (levels := self.levels) is not None and self.quantization is not None:
            grid, some = self.quantization, levels[rows, columns]
            if len(grid.scale) > 1:
                grid = replace(grid, scale=grid.scale[(rows, columns)[grid.axis]])
            return np.asarray(some * _scales(grid, some.shape))
        wide: NDArray[Any] = widened(self._held[rows, columns])
        return wide

    def filled(self, rows: slice, columns: slice) -> int:
        """How many numbers of a part are not zero."""
        return int(np.count_nonzero(self._held[rows, columns]))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, known without making the array."""
        return tuple(self._held.shape)

    @property
    def is_complex(self) -> bool:
        """Are the numbers complex?"""
        return self._held.dtype.kind == "c"

    @cached_property
    def digest(self) -> str:
        """Content hash: names the tensor in the text form."""
        dtype = np.dtype(np.float64) if self._on_grid or self._held.dtype == np.float32 else self._held.dtype
        found = hashlib.sha256(f"{dtype.str}{self.shape}{self.quantization}".encode())
        many = len(self.shape) > 1
        count = self.shape[0] if many else 1
        height = max(1, LARGE * count // max(self._held.size, 1)) if many else max(1, self._held.size)
        for start in range(0, count, height):
            rows = self._rows(slice(start, start + height) if self.shape else slice(None))
            found.update(np.ascontiguousarray(rows, dtype).tobytes())
        return found.hexdigest()[:16]

    def integers(self, rows: slice = slice(None)) -> NDArray[Any]:
        """The integers behind a quantised tensor, or some of its rows (int64; whole complex128 where it is complex).

        Raises ValueError where there are none.
        """
        if self.quantization is None:
            raise ValueError("the tensor is not quantised")
        if (levels := self.levels) is not None:
            return np.asarray(_some(levels, rows), np.int64)
        every = _scales(self.quantization, self.shape)[rows]
        whole: NDArray[Any] = np.rint(widened(self._rows(rows)) / np.where(every == 0, 1, every))
        return whole if self.is_complex else whole.astype(np.int64)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tensor) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        dtype = np.dtype(np.float64) if self._on_grid else self._held.dtype
        return f"Tensor({dtype}, {self.shape}, #{self.digest})"


def _some(held: NDArray[Any] | Sparse, rows: slice) -> NDArray[Any]:
    if isinstance(held, Sparse):
        return held[rows, :]
    return held if rows == slice(None) else held[rows]


def _scales(grid: Quantization, shape: tuple[int, ...]) -> NDArray[Any]:
    """The scale of every number, as a view."""
    scale = np.asarray(grid.scale)
    each = [1] * len(shape)
    each[grid.axis] = scale.size
    return np.broadcast_to(scale.reshape(each), shape)


def times(x: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """`x @ weight` in float64; a float32 matrix is widened some columns at a time."""
    if weight.dtype != np.float32 or weight.ndim != 2 or weight.size <= LARGE:
        return np.asarray(x @ widened(weight))
    width = max(1, LARGE // len(weight))
    found = np.empty((*x.shape[:-1], weight.shape[1]), np.result_type(x.dtype, np.float64))
    for start in range(0, weight.shape[1], width):
        columns = slice(start, start + width)
        found[..., columns] = x @ weight[:, columns].astype(np.float64)
    return found


def widened(array: Any) -> Any:
    """A float32 array in float64 (read-only, C order); anything else as it is."""
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        return array
    wide = array.astype(np.float64, order="C")
    wide.setflags(write=False)
    return wide
