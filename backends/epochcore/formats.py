"""Number formats: how parameters and vectors become the integers of the realistic machine.

All are ours; the paper's formats are not published. Rounding is to the nearest, ties to even, everywhere. Integers are
held in float64, which is exact below 2^53.

* A vector that enters the array: integers with one power-of-two exponent for the whole vector of a step.
* A weight: an integer, and a float32 scale for its column.
* 1 - a, b and c in an element: an integer mantissa with its own power-of-two exponent. 1 - a, not a, so that
  decays near 1 keep their relative precision.
* A state: fixed point. It is held divided by its gain, the power of two next above 1 / (1 - |a|), so that it stays
  within the range of its drive.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Numbers

Array = NDArray[Any]
MOST_GAIN = 2.0**20


def mantissas(values: Array, bits: int, axis: int | tuple[int, ...] | None = None) -> tuple[Array, Array]:
    """Signed integers of `bits` bits and the power-of-two unit that they count, `values` ~ integer * unit.

    A unit is shared along `axis` (None: every value has its own). Zero has the unit 1.
    """
    size = np.abs(values)
    if axis is not None:
        size = size.max(axis, keepdims=True)
    _, exponent = np.frexp(size)
    top = 2.0 ** (bits - 1)
    # the largest magnitude lies in [1/2, 1) units * top, and may round up to top itself: one bit more then
    unit = np.where(size == 0, 1.0, np.ldexp(1.0, exponent) / top)
    unit = np.where(np.rint(size / unit) >= top, 2 * unit, unit)
    return np.rint(values / unit), unit


def gain(decay: Array) -> Array:
    """The power of two next above 1 / (1 - |a|): the largest state that a drive of at most 1 can make (l1 norm)."""
    room = np.maximum(1.0 - np.abs(decay), 1.0 / MOST_GAIN)
    return np.asarray(2.0 ** np.ceil(np.log2(1.0 / room)))


def weight_integers(weight: Array, bits: int) -> tuple[Array, Array]:
    """Integers (inputs, outputs) and float32 scales (outputs,) for a float matrix, symmetric, by column."""
    top = 2.0 ** (bits - 1) - 1
    scale = (np.abs(weight).max(0, initial=0.0) / top).astype(np.float32)
    scale = np.where(scale == 0, np.float32(1), scale)
    return np.clip(np.rint(weight / scale), -top, top), scale


def state_unit(numbers: Numbers) -> float:
    """What one count of a state is worth, before its gain."""
    return float(2.0**-numbers.state_fraction_bits)


def saturate(values: Array, bits: int, out: Array | None = None) -> tuple[Array, int]:
    """Integers limited to `bits` bits, two's complement, and how many were outside."""
    low, high = -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    outside = int(np.count_nonzero((values < low) | (values > high)))
    return (np.clip(values, low, high, out=out) if outside else values), outside
