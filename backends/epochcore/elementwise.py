"""The vector unit's functions, fast: into a given array, with the normal distribution by table.

`ssmc.ir.functions` is the meaning; what is here agrees with it to 1e-13 (a test holds it to that) and is several times
faster on whole blocks: nothing is allocated, and no scalar library function is called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssmc.ir.functions import UNARY

Array = NDArray[Any]
Scratch = Callable[[int], Array]
Into = Callable[[Array, Array, Scratch], None]
"""(x, out, scratch): `out` does not overlap x; `scratch(i)` for i = 1, 2, 3 is an array like x to work in, and
`scratch(PAIR)` a complex one."""
PAIR = 4

_CELLS = 512.0  # table cells per unit
_EDGE = 9.0  # the normal distribution is 0 or 1 beyond, to within 1e-18
# Adding this to |v| < 2^51 rounds v to an integer and leaves it in the low bits of the float64.
_MAGIC = 1.5 * 2.0**52
_BITS = np.float64(_MAGIC).view(np.int64) - int(_EDGE * _CELLS)


@cache
def _normal_table() -> Array:
    """The normal distribution and (as imaginary part, for one look-up) a sixth of its density at the cells."""
    from scipy.special import ndtr

    x = np.arange(-_EDGE * _CELLS, _EDGE * _CELLS + 1) / _CELLS
    values = ndtr(x)
    values[0] = 0.0  # and for all x below
    return np.asarray(values + 1j * np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi) / 6.0)


def normal_into(x: Array, out: Array, scratch: Scratch) -> None:
    """The normal distribution by Taylor's series around the nearest table entry c, to the third order in h = x - c.

    Phi(c + h) = Phi(c) + phi(c) h (1 - c h / 2 + (c^2 - 1) h^2 / 6) (Abramowitz & Stegun 26.2.29); with |h| <= 2^-10
    the rest is below 0.55 h^4 / 24 = 3e-14.
    """
    h, c, index, pair = scratch(1), scratch(2), scratch(3).view(np.int64), scratch(PAIR)
    np.clip(x, -_EDGE, _EDGE, out=h)
    np.multiply(h, _CELLS, out=c)
    c += _MAGIC
    np.subtract(c.view(np.int64), _BITS, out=index)
    c -= _MAGIC
    c *= 1.0 / _CELLS
    h -= c
    np.multiply(c, c, out=out)
    out -= 1.0
    out *= h
    c *= 3.0
    out -= c
    out *= h
    out += 6.0
    out *= h
    np.take(_normal_table(), index, out=pair, mode="clip")
    out *= pair.imag
    out += pair.real


def _erf(x: Array, out: Array, scratch: Scratch) -> None:
    if x.dtype == np.float32:
        out[...] = UNARY["erf"](x.astype(np.float64))
        return
    held = np.multiply(x, np.sqrt(2.0))
    normal_into(held, out, scratch)
    out *= 2.0
    out -= 1.0


# P of x P(x^2) = log(Phi(x) / Phi(-x)), the highest power first: fitted so that x / (1 + exp(-x P(x^2))) is within
# 7e-8 of x Phi(x) for |x| < 6 (Lawson's algorithm), and with P > 0 it tends to x and 0 as x Phi(x) does beyond.
_LOGIT = (3.61123251e-09, -2.66892808e-07, 7.93821882e-06, -1.10480317e-04, -6.62599840e-05, 7.26685670e-02, 1.59576843)


def _gelu(x: Array, out: Array, scratch: Scratch) -> None:
    if x.dtype == np.float32:
        _gelu_narrow(x, out, scratch)
        return
    normal_into(x, out, scratch)
    out *= x


def _gelu_narrow(x: Array, out: Array, scratch: Scratch) -> None:
    """x / (1 + exp(-x P(x^2))) to float32's precision, as x / 2 (1 + tanh(x P(x^2) / 2)): numpy's tanh is faster."""
    square = scratch(1)
    np.multiply(x, x, out=square)
    np.multiply(square, 0.5 * _LOGIT[0], out=out)
    for coefficient in _LOGIT[1:-1]:
        out += 0.5 * coefficient
        out *= square
    out += 0.5 * _LOGIT[-1]
    out *= x
    np.tanh(out, out=out)
    out += 1.0
    out *= np.multiply(x, 0.5, out=square)


def _sigmoid(x: Array, out: Array, scratch: Scratch) -> None:
    """1 / (1 + exp(-x)); exp overflows to infinity far below zero, where the result is then 0."""
    np.negative(x, out=out)
    np.exp(out, out=out)
    out += 1.0
    np.reciprocal(out, out=out)


def _silu(x: Array, out: Array, scratch: Scratch) -> None:
    _sigmoid(x, out, scratch)
    out *= x


def _relu(x: Array, out: Array, scratch: Scratch) -> None:
    np.maximum(x, 0.0, out=out)


def _ufunc(ufunc: Any) -> Into:
    return lambda x, out, scratch: ufunc(x, out=out)


_FAST: dict[str, Into] = {
    "erf": _erf,
    "gelu": _gelu,
    "sigmoid": _sigmoid,
    "silu": _silu,
    "relu": _relu,
    **{name: _ufunc(UNARY[name]) for name, fn in UNARY.items() if isinstance(fn, np.ufunc)},
}


def into(name: str) -> Into:
    """The function `name` of `ssmc.ir.functions.UNARY`, writing into its second argument."""
    if name in _FAST:
        return _FAST[name]
    fn = UNARY[name]

    def general(x: Array, out: Array, scratch: Scratch) -> None:
        out[...] = fn(x.astype(np.float64, copy=False))

    return general
