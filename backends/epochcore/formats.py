"""Number formats: how parameters and vectors become the numbers of the realistic machine.

All are ours; the paper's formats are not published. In fixed point (`numbers.format: fixed`) integers are held in
float64, which is exact below 2^53:

* A vector that enters the array: integers with one power-of-two exponent for the whole vector of a step.
* A weight: an integer, and a float32 scale for its column.
* 1 - a, b and c in an element: an integer mantissa with its own power-of-two exponent. 1 - a, not a (unless
  `numbers.decay: plain`), so that decays near 1 keep their relative precision.
* A state: fixed point, held divided by its gain, a power of two, of its own. The compiler chooses it (`choose-units`)
  by how far the state goes; without that it is the one next above 1 / (1 - |a|), so that it stays within the range of
  its drive. A change of basis: b and c hold the gain in an element, elsewhere the word that enters or leaves is
  multiplied by it on the way. As c x counts about as much for every state then, one exponent does for a column's c.
* A sum down a column: an integer that every element adds its term to, limited there (see `simulate.sums`).

In floating point (see `floats`) all of these are numbers of one format, and states of one of their own, without units
and gains; an element's new state is rounded once, and sums down a column are rounded to float32 when they leave it.

What the compiler stores it rounds to the nearest; what the machine computes it rounds as `numbers.rounding` says.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from backends.epochcore.arch import Numbers
from backends.epochcore.floats import rounded
from ssmc.ir.op import Array

Rule = Callable[[Array], Array]
MOST_GAIN = 2.0**20


def mantissas(
    values: Array, bits: int, axis: int | tuple[int, ...] | None = None, rule: Rule = np.rint
) -> tuple[Array, Array]:
    """Signed integers of `bits` bits and the power-of-two unit that they count, `values` ~ integer * unit.

    A unit is shared along `axis` (None: every value has its own). Zero has the unit 1. `rule` makes integers.
    """
    size = np.abs(values)
    if axis is not None:
        size = size.max(axis, keepdims=True)
    _, exponent = np.frexp(size)
    top = 2.0 ** (bits - 1)
    # the largest magnitude lies in [1/2, 1) units * top, and may round up to top itself: one bit more then
    unit = np.where(size == 0, 1.0, np.ldexp(1.0, exponent) / top)
    unit = np.where(rule(size / unit) >= top, 2 * unit, unit)
    return rule(values / unit), unit


def gains(decay: Array, unit: Array | None, numbers: Numbers) -> Array:
    """What states are divided by: as the compiler chose, else by their decays."""
    return gain(decay) if unit is None else unit / state_unit(numbers)


def gain(decay: Array) -> Array:
    """The power of two next above 1 / (1 - |a|): the largest state that a drive of at most 1 can make (l1 norm)."""
    room = np.maximum(1.0 - np.abs(decay), 1.0 / MOST_GAIN)
    return np.asarray(2.0 ** np.ceil(np.log2(1.0 / room)))


def weight_integers(weight: Array, bits: int) -> tuple[Array, Array]:
    """Integers (..., inputs, outputs) and float32 scales (..., outputs) for float matrices, symmetric, by column."""
    top = 2.0 ** (bits - 1) - 1
    scale = (np.abs(weight).max(-2, initial=0.0) / top).astype(np.float32)
    scale = np.where(scale == 0, np.float32(1), scale)
    integers = weight / scale[..., None, :]
    return np.clip(np.rint(integers, out=integers), -top, top, out=integers), scale


def state_unit(numbers: Numbers) -> float:
    """What one count of a state is worth, before its gain."""
    return float(2.0**-numbers.state_fraction_bits) if numbers.fixed else 1.0


def limited(values: Array, bits: int, *, wrap: bool = False) -> tuple[Array, int]:
    """Integers limited to `bits` bits, two's complement (or what is left of them), and how many were outside."""
    low, high = -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    outside = int(np.count_nonzero((values < low) | (values > high)))
    if not outside:
        return values, 0
    return (np.mod(values - low, 2.0**bits) + low if wrap else np.clip(values, low, high)), outside


def overflows(numbers: Numbers) -> str:
    """What becomes of numbers that do not fit: the name under which a run counts them."""
    if numbers.overflow == "saturate":
        return "saturations"
    return "wrapped" if numbers.fixed else "infinities"


# -- what the machine does ---------------------------------------------------------------------------------------


def rule_of(numbers: Numbers) -> Rule:
    """How products become integers."""
    return np.floor if numbers.rounding == "truncate" else np.rint


def entering(values: Array, numbers: Numbers) -> tuple[Array, Array, int]:
    """Vectors (..., words) that enter the array: numbers, the unit of each vector, and how many were too large."""
    if numbers.fixed:
        return *mantissas(values, numbers.activation_bits, -1, rule_of(numbers)), 0
    kept, outside = _floating(values, numbers, numbers.format)
    return kept, np.ones(1), outside


def parameters(values: Array, numbers: Numbers) -> tuple[Array, Array, int]:
    """Decays that are computed, halves on the first axis: numbers, the unit that the halves share, and as above."""
    if numbers.fixed:
        return *mantissas(values, numbers.parameter_bits, 0, rule_of(numbers)), 0
    kept, outside = _floating(values, numbers, numbers.format)
    return kept, np.ones((1, *values.shape[1:])), outside


def drives(values: Array, numbers: Numbers) -> Array:
    """What is added to states, in their unit. Floating point is rounded with the state itself."""
    return rule_of(numbers)(values) if numbers.fixed else values


def states(values: Array, numbers: Numbers) -> tuple[Array, int]:
    """New states, in their unit, as an element holds them, and how many did not fit."""
    if numbers.fixed:
        return limited(values, numbers.state_bits, wrap=numbers.overflow == "wrap")
    return _floating(values, numbers, numbers.of_states)


def _floating(values: Array, numbers: Numbers, name: str) -> tuple[Array, int]:
    return rounded(values, name, truncate=numbers.rounding == "truncate", wrap=numbers.overflow == "wrap")
