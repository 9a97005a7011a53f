"""Rounding to the grids on which a target stores numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssmc.ir import Quantization, Tensor

Array = NDArray[Any]


def column_grid(matrix: Array, bits: int | None) -> Tensor:
    """`matrix` (inputs, outputs) on a symmetric grid a column; as it is where `bits` is None.

    What lies on such a grid already stays where it is, up to the last bit.
    """
    return Tensor(matrix) if bits is None else _on_grid(matrix, bits, axis=1)


def row_grid(array: Array, bits: int | None) -> Tensor:
    """`array` (channels, states) on a symmetric grid a channel, real and imaginary parts on the same."""
    return Tensor(array) if bits is None else _on_grid(array, bits, axis=0)


def _on_grid(array: Array, bits: int, axis: int) -> Tensor:
    """Integers of `bits` with a sign, -(2^(b-1) - 1) to 2^(b-1) - 1, times a scale for each index of `axis`."""
    largest = largest_integer(bits)
    scale = magnitude(array).max(axis=1 - axis, keepdims=True, initial=0.0) / largest
    rounded = np.rint(array / np.where(scale == 0, 1, scale)) * scale
    return Tensor(rounded, Quantization(bits, tuple(scale.ravel().tolist()), axis - 2))


def largest_integer(bits: int) -> int:
    return int(2 ** (bits - 1) - 1)


def magnitude(array: Array) -> Array:
    """The larger of the absolute real and imaginary parts."""
    return np.asarray(np.maximum(np.abs(array.real), np.abs(array.imag)))
