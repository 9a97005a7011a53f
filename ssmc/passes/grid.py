"""Rounding to the grids on which a target stores numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ssmc.ir import Piece, Quantization, Tensor
from ssmc.ir.op import Array
from ssmc.ir.sparse import Sparse
from ssmc.ir.tensor import LARGE, widened


def column_grid(matrix: Array | Sparse, bits: int | None) -> Tensor:
    """`matrix` (inputs, outputs) on a symmetric grid a column; as it is where `bits` is None.

    What lies on such a grid already stays where it is, up to the last bit.
    """
    if bits is None:
        return Tensor(matrix)
    return _sparse_on_grid(matrix, bits) if isinstance(matrix, Sparse) else _on_grid(matrix, bits, axis=1)


def row_grid(array: Array, bits: int | None) -> Tensor:
    """`array` (channels, states) on a symmetric grid a channel, real and imaginary parts on the same."""
    return Tensor(array) if bits is None else _on_grid(array, bits, axis=0)


def _on_grid(array: Array, bits: int, axis: int) -> Tensor:
    """Integers of `bits` with a sign, -(2^(b-1) - 1) to 2^(b-1) - 1, times a scale for each index of `axis`."""
    largest, height = largest_integer(bits), max(1, LARGE // max(1, array.shape[1]))
    blocks = [slice(start, start + height) for start in range(0, max(1, len(array)), height)]  # little is held twice
    most = [magnitude(array[rows]).max(axis=1 - axis, keepdims=True, initial=0.0) for rows in blocks]
    scale = (np.max(most, axis=0) if axis == 1 else np.concatenate(most)).astype(np.float64) / largest
    steps = np.where(scale == 0, 1, scale)
    grid = Quantization(bits, tuple(scale.ravel().tolist()), axis - 2)
    whole = array.size >= LARGE and bits <= 16 and array.dtype.kind == "f" and bool(np.isfinite(scale).all())
    rounded = np.empty(
        array.shape, (np.int8 if bits <= 8 else np.int16) if whole else np.result_type(array.dtype, np.float64)
    )
    for rows in blocks:
        own = rows if axis == 0 else slice(None)
        integers = np.rint(widened(array[rows]) / steps[own])
        rounded[rows] = integers if whole else integers * scale[own]
    return Tensor.on_grid(rounded, grid) if whole else Tensor(rounded, grid)


def _sparse_on_grid(matrix: Sparse, bits: int) -> Tensor:
    """The same of the columns of a sparse matrix."""
    most = np.zeros(matrix.shape[1])
    np.maximum.at(most, matrix.columns, np.abs(matrix.values))
    scale = most / largest_integer(bits)
    grid = Quantization(bits, tuple(scale.tolist()))
    integers = np.rint(matrix.values / np.where(scale == 0, 1, scale)[matrix.columns])
    whole = bits <= 16 and bool(np.isfinite(scale).all())
    held = integers.astype(np.int8 if bits <= 8 else np.int16) if whole else integers * scale[matrix.columns]
    return Tensor(replace(matrix, values=held), grid)


def full_scale(weight: Tensor, piece: Piece) -> Array:
    """(columns,) the weight that full conductance stands for: the grid's end where quantised, else the largest."""
    grid = weight.quantization
    if grid is not None and len(grid.scale) == weight.shape[1]:
        scale = np.asarray(grid.scale[piece.n0 : piece.n1]) * largest_integer(grid.bits)
    else:
        scale = np.abs(weight.part(slice(piece.k0, piece.k1), slice(piece.n0, piece.n1))).max(0)
    return np.asarray(np.where(scale == 0, 1.0, scale))


def largest_integer(bits: int) -> int:
    """The largest weight of so many bits: grids are symmetric."""
    return int(2 ** (bits - 1) - 1)


def magnitude(array: Array) -> Array:
    """The larger of the absolute real and imaginary parts."""
    return np.asarray(np.maximum(np.abs(array.real), np.abs(array.imag)))


def decay_grid(a: Array, bits: int) -> Array:
    """Abar with `1 - |Abar|` a multiple of `2^-bits`, and its angle one of `2 pi 2^-bits`.

    A decay near 1 loses everything in a floating-point format of few bits, and nothing this way. A state that decays
    keeps at least one step; 0 and what does not decay (|Abar| >= 1) stay as they are.
    """
    step = 2.0**-bits
    size = np.abs(a)
    lost = np.clip(np.rint((1 - size) / step), 1, 2**bits - 1) * step
    shrunk = np.where((size > 0) & (size < 1), 1 - lost, size)
    if not np.iscomplexobj(a):
        return np.asarray(np.where(a < 0, -shrunk, shrunk))
    turn = 2 * np.pi * step
    return np.asarray(shrunk * np.exp(1j * turn * np.rint(np.angle(a) / turn)))


def rate_grid(z: Array, bits: int) -> Array:
    """A delta, real and imaginary part each on `2^bits` steps up to its largest; a state that decays keeps one step."""
    step = np.abs(z.real).max(initial=0.0) / (2**bits - 1)
    decay = np.rint(z.real / (step or 1.0))
    decay = np.where((z.real < 0) & (decay == 0), -1, decay) * step
    if not np.iscomplexobj(z):
        return np.asarray(decay)
    turn = np.abs(z.imag).max(initial=0.0) / (2**bits - 1)
    return np.asarray(decay + 1j * np.rint(z.imag / (turn or 1.0)) * turn)
