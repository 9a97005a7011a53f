"""Weights as conductances: a differential pair or an offset, in one device or in slices of several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backends.cim.arch import Crossbar
from ssmc.ir.op import Array


@dataclass(frozen=True)
class Encoding:
    """w = sum_s gain_s (r+_s - r-_s) for a pair, sum_s gain_s r_s - 1 for an offset; r in 0..1 of a device's window.

    One step of r is twice as much weight in an offset as in a pair, so that errors of its devices and of the ADC count
    twice. Its reference column, devices at g_min in every row, is read beside the others (`devices.reference`).

    `steps` is the number of a device's steps from one end to the other. Slice s counts `levels`^s, as digits do.
    """

    pair: bool
    slices: int
    levels: int

    @property
    def devices(self) -> int:
        """Devices of a slice."""
        return 2 if self.pair else 1

    @property
    def steps(self) -> int:
        return self.levels - 1

    @property
    def end(self) -> int:
        """The word of the largest weight, in steps of the lowest slice from a weight of zero."""
        whole = int(self.levels**self.slices - 1)
        return whole if self.pair else whole // 2

    @property
    def gains(self) -> Array:
        """(slices,) what full conductance of a slice stands for."""
        return np.array([self.levels**s * self.steps / self.end for s in range(self.slices)])


def encoding_of(box: Crossbar) -> Encoding:
    """How a crossbar's cells hold a weight."""
    return Encoding(box.encoding == "pair", box.slices, box.levels)


def encode(relative: Array, code: Encoding, *, rounded: bool) -> Array:
    """(devices, slices, *shape) of relative conductances in 0..1 that stand for weights in -1..1.

    `rounded`: every device takes one of its levels; else the representation is exact.
    """
    relative = np.clip(relative, -1.0, 1.0)
    if code.pair:
        words = np.stack([np.maximum(relative, 0.0), np.maximum(-relative, 0.0)]) * code.end
    else:
        words = ((relative + 1.0) * code.end)[None]
    if rounded:
        words = np.rint(words)
    digits, rest = [], words
    for s in reversed(range(code.slices)):
        unit = float(code.levels**s)
        # A digit takes what the lower ones cannot hold; of whole numbers that is never a fraction.
        digit = np.maximum(np.floor(rest / unit), (rest - (unit - 1)) / unit) if s else rest
        digits.append(digit)
        rest = rest - digit * unit
    return np.asarray(np.stack(digits[::-1], axis=1) / code.steps)


def decode(r: Array, code: Encoding) -> Array:
    """The weights that relative conductances (devices, slices, *shape) stand for."""
    total = np.tensordot(code.gains, r, axes=(0, 1))
    return np.asarray(total[0] - total[1] if code.pair else total[0] - 1.0)
