"""Functions of single numbers, applied everywhere; complex values apart and together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.ir.functions import BINARY, UNARY
from ssmc.ir.op import Array, Attribute, Op, OpSpec, align
from ssmc.ir.types import ValueType, join, with_shape


def _known(op: Op, table: dict[str, Any]) -> None:
    if op["fn"] not in table:
        raise ValueError(f"op '{op.name}' has no function '{op['fn']}'; it has: {', '.join(table)}")


def _unary_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    _known(op, UNARY)
    return (kinds[0],)


def _unary(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    with np.errstate(all="ignore"):
        return (np.asarray(UNARY[op["fn"]](arrays[0])),)


def _binary_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    _known(op, BINARY)
    return (join(*kinds),)


def aligned(arrays: Sequence[Array], kinds: Sequence[Any]) -> list[Array]:
    """Operand arrays made to broadcast against each other (batch with batch, time with time)."""
    target = join(*kinds)
    return [align(array, kind, target) for array, kind in zip(arrays, kinds, strict=True)]


def _binary(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    a, b = aligned(arrays, kinds)
    with np.errstate(all="ignore"):
        return (np.asarray(BINARY[op["fn"]](a, b)),)


def _gate_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    _known(op, UNARY)
    return (join(*kinds),)


def _gate(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    a, b = aligned(arrays, kinds)
    return (np.asarray(a * UNARY[op["fn"]](b)),)


def _select_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    return (join(*kinds),)


def _select(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    condition, a, b = aligned(arrays, kinds)
    return (np.where(condition != 0, a, b),)


def _pair_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    joined = join(*kinds)
    return (with_shape(joined, joined.shape, "complex"),)


def _pair(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    re, im = aligned(arrays, kinds)
    return (np.asarray(re + 1j * im),)


def _part_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    return (with_shape(kinds[0], kinds[0].shape, "real"),)


SPECS = (
    OpSpec(
        "unary",
        "ssm",
        ("x",),
        ("y",),
        (Attribute("fn", str, "a name of `ssmc.ir.functions.UNARY`"),),
        _unary_type,
        _unary,
        "y = fn(x), elementwise.",
    ),
    OpSpec(
        "binary",
        "ssm",
        ("a", "b"),
        ("y",),
        (Attribute("fn", str, "a name of `ssmc.ir.functions.BINARY`"),),
        _binary_type,
        _binary,
        "y = fn(a, b), elementwise with broadcasting; constants and sequence values meet every step.",
    ),
    OpSpec(
        "gate",
        "ssm",
        ("a", "b"),
        ("y",),
        (Attribute("fn", str, "a name of `ssmc.ir.functions.UNARY`", "sigmoid"),),
        _gate_type,
        _gate,
        "y = a fn(b): GLU with sigmoid, Mamba's gate with silu.",
    ),
    OpSpec(
        "select",
        "ssm",
        ("condition", "a", "b"),
        ("y",),
        (),
        _select_type,
        _select,
        "y = a where the condition is not zero, else b.",
    ),
    OpSpec("complex", "ssm", ("re", "im"), ("z",), (), _pair_type, _pair, "z = re + i im."),
    OpSpec(
        "real",
        "ssm",
        ("z",),
        ("re",),
        (),
        _part_type,
        lambda op, arrays, kinds: (np.ascontiguousarray(arrays[0].real),),
        "The real part.",
    ),
    OpSpec(
        "imag",
        "ssm",
        ("z",),
        ("im",),
        (),
        _part_type,
        lambda op, arrays, kinds: (np.ascontiguousarray(np.imag(arrays[0])),),
        "The imaginary part.",
    ),
)
