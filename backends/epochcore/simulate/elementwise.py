"""The vector unit's functions, fast: into a given array.

`ssmc.ir.functions` is the meaning; what is here agrees with it to 1e-13, or to float32's rounding (tests hold it to
that), and is several times faster on whole blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ssmc.ir.functions import UNARY
from ssmc.ir.op import Array

Into = Callable[[Array, Array], None]
"""(x, out): `out` does not overlap x and has its format, float64 or float32."""


def _erf(x: Array, out: Array) -> None:
    from backends.epochcore.simulate.compiled import normal

    found = x.astype(np.float64) * np.sqrt(2.0)
    normal(found, found)
    out[...] = 2.0 * found - 1.0


def _gelu(x: Array, out: Array) -> None:
    from backends.epochcore.simulate.compiled import gelu_narrow, normal

    if x.dtype == np.float32:
        gelu_narrow(x, out)
        return
    normal(x, out)
    out *= x


def _sigmoid(x: Array, out: Array) -> None:
    """1 / (1 + exp(-x)); exp overflows to infinity far below zero, where the result is then 0."""
    np.negative(x, out=out)
    np.exp(out, out=out)
    out += 1.0
    np.reciprocal(out, out=out)


def _silu(x: Array, out: Array) -> None:
    _sigmoid(x, out)
    out *= x


def _relu(x: Array, out: Array) -> None:
    np.maximum(x, 0.0, out=out)


def _ufunc(ufunc: Any) -> Into:
    return lambda x, out: ufunc(x, out=out)


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

    def general(x: Array, out: Array) -> None:
        out[...] = fn(x.astype(np.float64, copy=False))

    return general


def gate_into(name: str, a: Array, b: Array, out: Array, gated: Array) -> None:
    """a times the function `name` of b; `gated` is an array like b to work in."""
    if name == "sigmoid":
        if out.dtype == a.dtype == b.dtype == np.float32:
            from backends.epochcore.simulate.compiled import gate_narrow

            gate_narrow(a, b, out)
            return
        np.negative(b, out=gated)
        np.exp(gated, out=gated)
        gated += 1.0
        np.divide(a, gated, out=out)
        return
    into(name)(b, gated)
    np.multiply(a, gated, out=out)
