"""The vector unit's dearest functions as machine code: one pass over memory, where numpy would make a dozen.

Each writes into its last array, whose rows follow each other at one distance. It may be one of the others, which are
made equal to it in shape and format.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ssmc.ir.op import Array
from ssmc.machine_code import BYTES, SIZES, Code, Function, Lanes, Pointer, address, function

F = np.float32

# -- loops -------------------------------------------------------------------------------------------------------


def _loops(kind: str, operands: int, constants: int, formula: Callable[..., Lanes], lanes: int = 0) -> Function:
    """`formula` of tables of constants and operands, number by number; arrays are rows, each of its own pitch."""

    def write(code: Code, *given: Any) -> None:
        tables, arrays = given[:constants], given[constants : constants + operands + 1]
        rows, words, *pitches = given[constants + operands + 1 :]

        def row(k: Lanes) -> None:
            out, *parts = (array.past(k * pitch) for array, pitch in zip(arrays, pitches, strict=True))

            def several(lanes: int) -> Callable[[Lanes], None]:
                return lambda j: out.store(j, formula(*tables, *(part.load(j, lanes) for part in parts)))

            together = lanes or BYTES // SIZES[kind]
            whole = words // together * together
            code.each(0, whole, together, several(together))
            code.each(whole, words, 1, several(1))

        code.each(0, rows, 1, row)

    return function([kind] * (constants + operands + 1), 3 + operands, write)


def _apply(loops: Function, kind: str, tables: tuple[Array, ...], operands: tuple[Array, ...], out: Array) -> None:
    """Raises ValueError where `out` has another format, or rows at several distances."""
    if not out.size:
        return
    arrays: list[Array]
    every = [out, *(x if x.shape == out.shape else np.broadcast_to(x, out.shape) for x in operands)]
    if all(x.flags.c_contiguous for x in every):
        arrays = [x.astype(kind, copy=False).reshape(1, -1) for x in every]
    else:
        arrays = [_in_rows(x.astype(kind, copy=False)) for x in every]
    if out.dtype != np.dtype(kind) or not np.may_share_memory(arrays[0], out):
        raise ValueError(f"no result can be written into {out.dtype} numbers at distances of {out.strides} bytes")
    pitches = (x.strides[0] // x.itemsize for x in arrays)
    places = [address(x, kind) for x in tables] + [
        address(x, kind, whole=False, written=x is arrays[0]) for x in arrays
    ]
    loops(*places, *arrays[0].shape, *pitches)


def _in_rows(x: Array) -> Array:
    """(rows, words), the words of a row one after the other."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.strides[1] == rows.itemsize else np.ascontiguousarray(rows)


# -- float64 -----------------------------------------------------------------------------------------------------

CELLS = 512.0  # table cells per unit
EDGE = 9.0  # the normal distribution is 0 or 1 beyond, to within 1e-18
LAST = int(2 * EDGE * CELLS)
# Adding this to |v| < 2^51 rounds v to an integer and leaves it in the low bits of the float64.
MAGIC = 1.5 * 2.0**52
BITS = int(np.float64(MAGIC).view(np.int64)) - int(EDGE * CELLS)


@cache
def _normal_table() -> Array:
    """(cells, 2): the normal distribution and a sixth of its density."""
    from scipy.special import ndtr

    x = np.arange(-EDGE * CELLS, EDGE * CELLS + 1) / CELLS
    values = ndtr(x)
    values[0] = 0.0  # and for all x below
    return np.ascontiguousarray(np.stack([values, np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi) / 6.0], axis=1))


def _normal(table: Pointer, x: Lanes) -> Lanes:
    """The normal distribution by Taylor's series around the nearest table entry c, to the third order in h = x - c.

    Phi(c + h) = Phi(c) + phi(c) h (1 - c h / 2 + (c^2 - 1) h^2 / 6) (Abramowitz & Stegun 26.2.29); with |h| <= 2^-10
    the rest is below 0.55 h^4 / 24 = 3e-14.
    """
    h = x.at_least(-EDGE).at_most(EDGE)
    rounded = h * CELLS + MAGIC
    cell = (rounded.bits_as("i8") - BITS).at_least(0).at_most(LAST)  # whatever it is for NaN
    c = (rounded - MAGIC) * (1.0 / CELLS)
    h = h - c
    series = ((c * c - 1.0) * h - c * 3.0) * h + 6.0
    return table.load(cell * 2 + 1) * (series * h) + table.load(cell * 2)


@cache
def _normal_loops() -> Function:
    return _loops("f8", 1, 1, _normal, lanes=1)


def normal(x: Array, out: Array) -> None:
    """Phi(x), float64."""
    _apply(_normal_loops(), "f8", (_normal_table(),), (x,), out)


# -- float32 -----------------------------------------------------------------------------------------------------

LOG2_E = float(F(np.log2(np.e)))
# ln 2 in two parts, the first with bits to spare, so that n times it is exact (Cody & Waite).
LN_2_HIGH = 0.693359375
LN_2_LOW = float(F(np.log(2.0) - 0.693359375))
ROUND = 1.5 * 2.0**23  # as MAGIC
ROUND_BITS = int(F(ROUND).view(np.int32)) - 127
TAYLOR = tuple(float(F(1.0 / k)) for k in (720, 120, 24, 6, 2, 1, 1))
LOWEST, HIGHEST = float(F(-87.3)), 89.0  # the smallest normal number, and infinity

# P of x P(x^2) = log(Phi(x) / Phi(-x)), the highest power first: fitted so that x / (1 + exp(-x P(x^2))) is within
# 7e-8 of x Phi(x) for |x| < 6 (Lawson's algorithm), and with P > 0 it tends to x and 0 as x Phi(x) does beyond.
POWERS = (3.61123251e-09, -2.66892808e-07, 7.93821882e-06, -1.10480317e-04, -6.6259984e-05, 0.072668567, 1.59576843)
LOGIT = tuple(float(F(power)) for power in POWERS)


def _exp(x: Lanes) -> Lanes:
    """2^n exp(r) with |r| <= ln(2) / 2: r by Taylor's series, to 1.2e-7; 1e-38 below its range and infinite above."""
    x = x.at_least(LOWEST).at_most(HIGHEST)
    rounded = x * LOG2_E + ROUND
    power = (rounded.bits_as("i4") - ROUND_BITS) << 23
    n = rounded - ROUND
    r = x - n * LN_2_HIGH - n * LN_2_LOW
    return _polynomial(TAYLOR, r) * power.bits_as("f4")


def _polynomial(powers: tuple[float, ...], x: Lanes) -> Lanes:
    """The highest power first."""
    value = x * powers[0] + powers[1]
    for power in powers[2:]:
        value = value * x + power
    return value


@cache
def _gelu_loops() -> Function:
    """x Phi(x) as x / (1 + exp(-x P(x^2)))."""
    return _loops("f4", 1, 0, lambda x: x / (_exp(-x * _polynomial(LOGIT, x * x)) + 1.0))


def gelu_narrow(x: Array, out: Array) -> None:
    """x Phi(x), float32."""
    _apply(_gelu_loops(), "f4", (), (x,), out)


@cache
def _gate_loops() -> Function:
    return _loops("f4", 2, 0, lambda a, b: a / (_exp(-b) + 1.0))


def gate_narrow(a: Array, b: Array, out: Array) -> None:
    """a sigmoid(b), float32."""
    _apply(_gate_loops(), "f4", (), (a, b), out)
