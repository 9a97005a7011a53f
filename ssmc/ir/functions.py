"""Elementwise and reducing functions by name: the one table that the IR and the vector units read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ssmc.ir.op import Array


def _erf(x: Array) -> Array:
    from scipy.special import erf

    return np.asarray(erf(x))


def _sigmoid(x: Array) -> Array:
    from scipy.special import expit

    return np.asarray(expit(x))


def _gelu(x: Array) -> Array:
    """Hendrycks & Gimpel, arXiv 1606.08415: x Phi(x)."""
    from scipy.special import erf

    share = np.asarray(x / np.sqrt(2.0))  # in place from here on: there may be many
    np.add(erf(share, out=share), 1.0, out=share)
    return np.asarray(np.multiply(0.5 * x, share, out=share))


def _gelu_tanh(x: Array) -> Array:
    """Hendrycks & Gimpel, arXiv 1606.08415: the tanh approximation."""
    return np.asarray(0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3))))


UNARY: dict[str, Callable[[Array], Array]] = {
    "identity": lambda x: x,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "square": np.square,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "reciprocal": np.reciprocal,
    "exp": np.exp,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "erf": _erf,
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "relu": lambda x: np.maximum(x, 0.0),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "softplus": lambda x: np.logaddexp(x, 0.0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0.0))),
    "hardsigmoid": lambda x: np.clip(x / 6.0 + 0.5, 0.0, 1.0),
    "hardswish": lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0),
    "mish": lambda x: x * np.tanh(np.logaddexp(x, 0.0)),
    "softsign": lambda x: x / (1.0 + np.abs(x)),
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "heaviside": lambda x: (x > 0).astype(np.float64),
    "heaviside_or_equal": lambda x: (x >= 0).astype(np.float64),
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
}

BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "pow": np.power,
    "greater": lambda a, b: (a > b).astype(np.float64),
    "greater_or_equal": lambda a, b: (a >= b).astype(np.float64),
    "equal": lambda a, b: (a == b).astype(np.float64),
}


def mean(x: Array, axis: int | tuple[int, ...], keepdims: bool = False) -> Array:
    """As numpy's, but NaN without a warning where there is nothing, as in windows over no steps."""
    if x.size:
        return np.asarray(np.mean(x, axis=axis, keepdims=keepdims))
    return np.full(np.sum(x, axis=axis, keepdims=keepdims).shape, np.nan)


REDUCE: dict[str, Callable[..., Array]] = {
    "sum": np.sum,
    "mean": mean,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
}
