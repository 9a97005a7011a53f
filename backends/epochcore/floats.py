"""Floating-point formats of the realistic machine: rounding to them, and how their numbers are kept in a program.

Sizes: IEEE 754-2008 (binary32, binary16); bfloat16 is the upper half of a binary32. Numbers below the smallest normal
one keep its unit (subnormal), in all three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ssmc.ir.op import Array

DOUBLE_BITS = 52


@dataclass(frozen=True)
class Format:
    """`bits` behind the binary point of a normal number, and the exponent of the smallest and the largest one."""

    bits: int
    smallest: int
    largest: int

    @property
    def greatest(self) -> float:
        """The largest number."""
        return float(2.0**self.largest * (2.0 - 2.0**-self.bits))


FORMATS: Mapping[str, Format] = {
    "float32": Format(23, -126, 127),
    "bfloat16": Format(7, -126, 127),
    "float16": Format(10, -14, 15),
}


def rounded(values: Array, name: str, *, truncate: bool = False, wrap: bool = False) -> tuple[Array, int]:
    """`values` in the format `name`, held in float64, and how many were too large for it.

    To the nearest, ties to even, or (`truncate`) towards zero. What is too large becomes the largest number, or
    (`wrap`) infinite.
    """
    form = FORMATS[name]
    kept = _cut(np.asarray(values, np.float64), DOUBLE_BITS - form.bits, truncate)
    normal = 2.0**form.smallest
    small = np.abs(values) < normal
    if small.any():
        unit = normal * 2.0**-form.bits
        counts = np.where(small, values, 0.0) / unit
        kept = np.where(small, (np.trunc(counts) if truncate else np.rint(counts)) * unit, kept)
    outside = int(np.count_nonzero(np.abs(kept) > form.greatest))
    if outside:
        most = np.inf if wrap else form.greatest
        kept = np.where(np.abs(kept) > form.greatest, np.copysign(most, kept), kept)
    return kept, outside


def _cut(values: Array, bits: int, truncate: bool) -> Array:
    """Without the last `bits` bits of their mantissas. A carry into the exponent is what it should be."""
    words = np.ascontiguousarray(values).view(np.int64)
    if not truncate:
        words = words + ((words >> bits & 1) + ((1 << (bits - 1)) - 1))
    return (words >> bits << bits).view(np.float64)


def stored(values: Array, name: str) -> Array:
    """Numbers of a format as a program holds them, 2 or 4 bytes each; bfloat16, which numpy does not have, as its bits.

    Rounded to the nearest; this is done once, by the compiler.
    """
    kept, _ = rounded(values, name)
    if name == "bfloat16":
        return (kept.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return kept.astype(name)


def restored(array: Array) -> Array:
    """The inverse of `stored` for bfloat16; other arrays as they are."""
    if array.dtype != np.uint16:
        return array
    return (array.astype(np.uint32) << 16).view(np.float32)
