"""Products with weights, as machine code: every row by itself, whatever the others are and how many there are.

A sum is formed in the order of its terms, each multiplied and added with one rounding where the processor can. Rows by
columns are worked on in tiles whose sums stay in registers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from ssmc.ir.op import Array
from ssmc.machine_code import SIZES, Code, Function, Lanes, Pointer, address, function, registers

VECTORS = 2  # registers side by side in a tile
ROWS = registers().count // 4  # of a tile: its sums take half of the registers


@cache
def _loops(kind: str) -> Function:
    """Some rows of one strip of columns: y = (x w + bias) + old."""
    lanes = registers().size // SIZES[kind]

    def write(
        code: Code,
        x: Pointer,
        w: Pointer,
        bias: Pointer,
        old: Pointer,
        y: Pointer,
        rows: Lanes,
        inputs: Lanes,
        x_pitch: Lanes,
        old_pitch: Lanes,
        y_pitch: Lanes,
    ) -> None:
        def tile(count: int) -> Any:
            places = list(product(range(count), range(VECTORS)))

            def term(k: Lanes, sources: list[Pointer], sums: list[Lanes]) -> list[Lanes]:
                weights = [w.load(k * (VECTORS * lanes) + v * lanes, lanes) for v in range(VECTORS)]
                values = [source.load(k).spread(lanes) for source in sources]
                return [own.plus(values[r], weights[v]) for own, (r, v) in zip(sums, places, strict=True)]

            def body(first: Lanes) -> None:
                sources = [x.past((first + r) * x_pitch) for r in range(count)]
                zero = code.zeros(kind, lanes)
                sums = code.each(0, inputs, 1, lambda k, *sums: term(k, sources, list(sums)), *[zero] * len(places))
                for own, (r, v) in zip(sums, places, strict=True):
                    before = old.load((first + r) * old_pitch + v * lanes, lanes)
                    y.store((first + r) * y_pitch + v * lanes, own + bias.load(v * lanes, lanes) + before)

            return body

        whole = rows // ROWS * ROWS
        code.each(0, whole, ROWS, tile(ROWS))
        code.each(whole, rows, 1, tile(1))

    return function([kind] * 5, 5, write)


@dataclass(frozen=True)
class Matrix:
    """Weights and biases, cut into strips of columns that are filled up with zeros."""

    strips: Array  # (strips, inputs, columns of a strip)
    biases: Array  # (strips, columns of a strip)
    cols: int

    @staticmethod
    def of(weight: Array, bias: Array | None, dtype: type) -> Matrix:
        """`weight` (inputs, outputs)."""
        inputs, cols = weight.shape
        wide = VECTORS * registers().size // np.dtype(dtype).itemsize
        count = -(-cols // wide)
        padded, biases = np.zeros((inputs, count * wide), dtype), np.zeros(count * wide, dtype)
        padded[:, :cols] = weight
        if bias is not None:
            biases[:cols] = bias
        strips = np.ascontiguousarray(padded.reshape(inputs, count, wide).swapaxes(0, 1))
        return Matrix(strips, biases.reshape(count, wide), cols)

    def apply(self, x: Array, y: Array, accumulate: bool) -> None:
        """y = x w + bias, or that added to y; all of one format, rows at one distance, words one after the other.

        Raises ValueError where they are not, or of other sizes. `x` may overlap y: it is read before.
        """
        count, inputs, wide = self.strips.shape
        rows, size, kind = len(y), self.strips.itemsize, f"f{self.strips.itemsize}"
        if x.shape != (rows, inputs) or y.shape != (rows, self.cols):
            raise ValueError(f"a product of {x.shape} and {(inputs, self.cols)} is not {y.shape}")
        if not rows:
            return
        step = _loops(kind)
        nothing = np.zeros(wide, y.dtype).ctypes
        x = x.copy() if np.may_share_memory(x, y) else x
        x_at, at = address(x, kind, whole=False), address(y, kind, whole=False, written=True)
        w_at, bias_at = address(self.strips, kind), address(self.biases, kind)
        x_pitch, y_pitch = x.strides[0] // size, y.strides[0] // size
        for strip in range(count):
            weights, biases = w_at + strip * inputs * wide * size, bias_at + strip * wide * size
            low = strip * wide
            if low + wide <= self.cols:
                place = at + low * size
                old = (place, y_pitch) if accumulate else (nothing.data, 0)
                step(x_at, weights, biases, old[0], place, rows, inputs, x_pitch, old[1], y_pitch)
                continue
            part = y[:, low : self.cols]
            tile = np.zeros((rows, wide), y.dtype)
            if accumulate:
                tile[:, : self.cols - low] = part
            place = tile.ctypes.data
            step(x_at, weights, biases, place, place, rows, inputs, x_pitch, wide, wide)
            part[...] = tile[:, : self.cols - low]
