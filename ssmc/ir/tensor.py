"""Constant arrays as attributes: read-only, compared by content, optionally with the integers behind them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Quantization:
    """How a tensor was rounded: value = scale * integer, a `scale` for each index of `axis` (per column).

    Of a complex tensor both parts are integers times the scale.
    """

    bits: int
    scale: tuple[float, ...]
    axis: int = -1


LARGE = 1 << 18  # entries from which a float32 array is kept as it is


class Tensor:
    """An immutable array; float64 or complex128 for numbers, int64 for indices.

    Large float32 arrays are `stored` as they are, in whatever order; `array` is their float64 copy, made each time.
    `quantization`, where given, says that every value is exactly `scale * integer`.
    """

    __slots__ = ("__dict__", "quantization", "stored")

    def __init__(self, array: Any, quantization: Quantization | None = None) -> None:
        value = np.asarray(array)
        narrow = value.dtype == np.float32 and value.size >= LARGE
        if narrow:
            value = value.copy() if value.flags.writeable else value
        else:
            wide = {"f": np.float64, "c": np.complex128, "i": np.int64, "u": np.int64}.get(value.dtype.kind)
            value = np.array(value, wide, order="C")
        value.setflags(write=False)
        self.stored: NDArray[Any] = value
        self.quantization = quantization

    @property
    def array(self) -> NDArray[Any]:
        wide: NDArray[Any] = widened(self.stored)
        return wide

    def part(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Some rows and columns of a matrix, as in `array`; the rest of a large one is not widened for them."""
        wide: NDArray[Any] = widened(self.stored[rows, columns])
        return wide

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.stored.shape)

    @property
    def is_complex(self) -> bool:
        return self.stored.dtype.kind == "c"

    @cached_property
    def digest(self) -> str:
        """Content hash: names the tensor in the text form."""
        dtype = np.dtype(np.float64) if self.stored.dtype == np.float32 else self.stored.dtype
        found = hashlib.sha256(f"{dtype.str}{self.shape}{self.quantization}".encode())
        rows = self.stored.reshape(1, -1) if self.stored.ndim < 2 else self.stored
        height = max(1, LARGE * len(rows) // max(rows.size, 1))
        for start in range(0, len(rows), height):
            found.update(np.ascontiguousarray(rows[start : start + height], dtype).tobytes())
        return found.hexdigest()[:16]

    def integers(self, rows: slice = slice(None)) -> NDArray[Any]:
        """The integers behind a quantised tensor, or some of its rows (int64; whole complex128 where it is complex).

        Raises ValueError where there are none.
        """
        if self.quantization is None:
            raise ValueError("the tensor is not quantised")
        scale = np.asarray(self.quantization.scale)
        shape = [1] * self.stored.ndim
        shape[self.quantization.axis] = scale.size
        every = np.broadcast_to(np.where(scale == 0, 1, scale).reshape(shape), self.shape)
        whole: NDArray[Any] = np.rint(widened(self.stored[rows]) / every[rows])
        return whole if self.is_complex else whole.astype(np.int64)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tensor) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Tensor({self.stored.dtype}, {self.shape}, #{self.digest})"


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
