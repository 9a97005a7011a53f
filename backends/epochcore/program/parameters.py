"""What a `preload` puts into the array: packing at compile time, unpacking in the simulator.

Ideal programs hold float64 values, one flat constant a pass: decay, b, c (by columns, then rows; imaginary halves
after real ones) and d (by columns). In floating point realistic ones hold the same in their format, the decay as 1 - a
where the architecture says so; in fixed point mantissas and, after them, exponents, all of them 16 bits wide, or 32
where `parameter_bits` wants more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Numbers
from backends.epochcore.floats import restored, stored
from backends.epochcore.formats import gains, mantissas
from ssmc.ir.op import Array

Whole = TypeVar("Whole", int, NDArray[np.int64])


@dataclass(frozen=True)
class Element:
    """Parameters of the elements of a pass, real arrays with the halves of complex ones on the first axis.

    `decay` is a, or (realistic) 1 - a or a in units of `decay_unit`; likewise `b`, `c` (halves, cols, rows) and
    `d` (cols,). `gain` (cols, rows) is what a state is divided by; it is in the units of b and c already.
    """

    decay: Array
    decay_unit: Array
    gain: Array
    b: Array
    b_unit: Array
    c: Array
    c_unit: Array
    d: Array
    d_unit: Array


def halves(values: Array) -> Array:
    """(2, ...) real and imaginary parts of a complex array, (1, ...) of a real one."""
    return np.stack([values.real, values.imag]) if np.iscomplexobj(values) else np.asarray(values)[None]


def pack_element(
    decay: Array, b: Array, c: Array, d: Array, numbers: Numbers | None, unit: Array | None = None
) -> Array:
    """Parameters of a `fri` or `tri` pass: decay, b, c (cols, rows), all complex or all real; d (cols,). `unit` is what
    a count of a fixed-point state is worth (None: as its decay says)."""
    if numbers is None:
        return np.concatenate([halves(decay).ravel(), halves(b).ravel(), halves(c).ravel(), d])
    kept = halves(1 - decay if numbers.decay == "one-minus" else decay)
    if not numbers.fixed:
        return stored(np.concatenate([kept.ravel(), halves(b).ravel(), halves(c).ravel(), d]), numbers.format)
    bits, g = numbers.parameter_bits, gains(decay, unit, numbers)
    a_int, a_unit = mantissas(kept, bits, 0)
    b_int, b_unit = mantissas(halves(b) / g, bits, 0)
    c_int, c_unit = mantissas(halves(c) * g, bits, (0, 2))
    d_int, d_unit = mantissas(d, bits)
    return _integers([a_int, b_int, c_int, d_int], [a_unit, b_unit, c_unit, d_unit, g], bits)


def pack_decay(decay: Array, numbers: Numbers | None, unit: Array | None = None) -> Array:
    """Parameters of a `fri.x` or `tri.x` pass: decay (cols,), and `unit` as above."""
    if numbers is None:
        return halves(decay).ravel()
    kept = halves(1 - decay if numbers.decay == "one-minus" else decay)
    if not numbers.fixed:
        return stored(kept.ravel(), numbers.format)
    a_int, a_unit = mantissas(kept, numbers.parameter_bits, 0)
    return _integers([a_int], [a_unit, gains(decay, unit, numbers)], numbers.parameter_bits)


def _integers(values: list[Array], units: list[Array], bits: int) -> Array:
    exponents = [np.log2(unit) for unit in units]
    packed = np.concatenate([part.ravel() for part in (*values, *exponents)])
    return packed.astype(np.int16 if bits <= 16 else np.int32)


def unpack(packed: Array, rows: int, cols: int, is_complex: bool, full: bool, units: bool) -> Element:
    """The inverse: `full` for `fri` and `tri`, else decay alone; `units` where there are exponents.

    Raises ValueError where the size does not fit.
    """
    parts, at = 2 if is_complex else 1, 0
    packed = np.asarray(restored(packed), np.float64).ravel()

    def take(*shape: int) -> Array:
        nonlocal at
        size = int(np.prod(shape))
        if at + size > packed.size:
            raise ValueError(f"{packed.size} parameters are too few for {rows} x {cols} elements")
        at += size
        return packed[at - size : at].reshape(shape)

    none = np.zeros(0)
    decay = take(parts, cols, rows)
    b, c, d = (take(parts, cols, rows), take(parts, cols, rows), take(cols)) if full else (none, none, none)
    worth = [np.ones((1, 1, 1))] * 3 + [np.ones(1), np.ones((1, 1))]
    if units:
        a_unit = 2.0 ** take(1, cols, rows)
        others = [2.0 ** take(1, cols, rows), 2.0 ** take(1, cols, 1), 2.0 ** take(cols)] if full else [none] * 3
        worth = [a_unit, *others, 2.0 ** take(cols, rows)]
    if at != packed.size:
        raise ValueError(f"{packed.size} parameters are too many for {rows} x {cols} elements")
    return Element(decay, worth[0], worth[4], b, worth[1], c, worth[2], d, worth[3])


def param_bytes(array: Array) -> int:
    """Bytes of a constant; float64 stands for the machine's 32-bit floats."""
    return array.size * min(array.itemsize, 4)


def param_words(array: Array, word_bits: int) -> int:
    """Words of a constant in the parameter memory."""
    return words_of(param_bytes(array), word_bits)


def words_of(size: Whole, word_bits: int) -> Whole:
    """Words of so many bytes in the parameter memory."""
    return -(-size * 8 // word_bits)
