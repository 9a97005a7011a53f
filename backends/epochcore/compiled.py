"""The vector unit's dearest functions, compiled: one pass over memory, where numpy would make a dozen.

Each is a numpy ufunc.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from ssmc.jit import elementwise, inlined

F, I = np.float32, np.int32

# -- float64 -----------------------------------------------------------------------------------------------------

CELLS = 512.0  # table cells per unit
EDGE = 9.0  # the normal distribution is 0 or 1 beyond, to within 1e-18
LAST = int(2 * EDGE * CELLS)
# Adding this to |v| < 2^51 rounds v to an integer and leaves it in the low bits of the float64.
MAGIC = 1.5 * 2.0**52
BITS = int(np.float64(MAGIC).view(np.int64)) - int(EDGE * CELLS)


def _normal_table() -> NDArray[np.float64]:
    """(cells, 2): the normal distribution and a sixth of its density."""
    x = np.arange(-EDGE * CELLS, EDGE * CELLS + 1) / CELLS
    values = ndtr(x)
    values[0] = 0.0  # and for all x below
    return np.ascontiguousarray(np.stack([values, np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi) / 6.0], axis=1))


TABLE = _normal_table()


@elementwise("f8(f8)")
def normal(x: Any) -> Any:
    """The normal distribution by Taylor's series around the nearest table entry c, to the third order in h = x - c.

    Phi(c + h) = Phi(c) + phi(c) h (1 - c h / 2 + (c^2 - 1) h^2 / 6) (Abramowitz & Stegun 26.2.29); with |h| <= 2^-10
    the rest is below 0.55 h^4 / 24 = 3e-14.
    """
    h = -EDGE if x < -EDGE else x
    h = EDGE if h > EDGE else h
    rounded = np.float64(h * CELLS + MAGIC)
    cell: Any = min(max(np.float64(rounded).view(np.int64) - BITS, 0), LAST)  # whatever it is for NaN
    c = (rounded - MAGIC) * (1.0 / CELLS)
    h -= c
    series = ((c * c - 1.0) * h - 3.0 * c) * h + 6.0
    return TABLE[cell, 1] * (series * h) + TABLE[cell, 0]


# -- float32 -----------------------------------------------------------------------------------------------------

LOG2_E = F(np.log2(np.e))
# ln 2 in two parts, the first with bits to spare, so that n times it is exact (Cody & Waite).
LN_2_HIGH = F(0.693359375)
LN_2_LOW = F(np.log(2.0) - 0.693359375)
ROUND = F(1.5 * 2.0**23)  # as MAGIC
ROUND_BITS = I(F(1.5 * 2.0**23).view(I) - 127)
TAYLOR = tuple(F(1.0 / k) for k in (720, 120, 24, 6, 2, 1, 1))
LOWEST, HIGHEST = F(-87.3), F(89.0)  # the smallest normal number, and infinity

# P of x P(x^2) = log(Phi(x) / Phi(-x)), the highest power first: fitted so that x / (1 + exp(-x P(x^2))) is within
# 7e-8 of x Phi(x) for |x| < 6 (Lawson's algorithm), and with P > 0 it tends to x and 0 as x Phi(x) does beyond.
LOGIT = tuple(
    map(F, (3.61123251e-09, -2.66892808e-07, 7.93821882e-06, -1.10480317e-04, -6.6259984e-05, 0.072668567, 1.59576843))
)
ONE = F(1.0)


@inlined
def _exp(x: Any) -> Any:
    """2^n exp(r) with |r| <= ln(2) / 2: r by Taylor's series, to 1.2e-7; 1e-38 below its range and infinite above."""
    x = LOWEST if x < LOWEST else x
    x = HIGHEST if x > HIGHEST else x
    rounded = F(x * LOG2_E + ROUND)
    power = I((F(rounded).view(I) - ROUND_BITS) << I(23))
    n = rounded - ROUND
    r = x - n * LN_2_HIGH
    r -= n * LN_2_LOW
    p = TAYLOR[0]
    p = p * r + TAYLOR[1]
    p = p * r + TAYLOR[2]
    p = p * r + TAYLOR[3]
    p = p * r + TAYLOR[4]
    p = p * r + TAYLOR[5]
    p = p * r + TAYLOR[6]
    return p * I(power).view(F)


@elementwise("f4(f4)")
def gelu_narrow(x: Any) -> Any:
    """x Phi(x) as x / (1 + exp(-x P(x^2)))."""
    square = x * x
    p = LOGIT[0] * square + LOGIT[1]
    p = p * square + LOGIT[2]
    p = p * square + LOGIT[3]
    p = p * square + LOGIT[4]
    p = p * square + LOGIT[5]
    p = p * square + LOGIT[6]
    return x / (ONE + _exp(-x * p))


@elementwise("f4(f4,f4)")
def gate_narrow(a: Any, b: Any) -> Any:
    """a sigmoid(b)."""
    return a / (ONE + _exp(-b))
