"""Edges of the graph: inputs, outputs, constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssmc.ir.op import Array, Attribute, Op, OpSpec
from ssmc.ir.tensor import Tensor
from ssmc.ir.types import ConstantType, Element, SequenceType, StreamType, TensorType, ValueType

AXES_DOC = (
    "one letter for each axis of the user's array: b batch, t time, f a feature axis, 1 an axis of size one; "
    "a stream's own array is btf..."
)


def _given_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    kind: ValueType = op["type"]
    return (kind,)


def _outside(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    raise ValueError(f"the interpreter gives '{op.name}' its value")


def _same(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    return (kinds[0],)


def _pass(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    return (arrays[0],)


def _constant_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    value: Tensor = op["value"]
    element: Element = {"c": "complex", "i": "index", "b": "bool"}.get(value.array.dtype.kind, "real")  # type: ignore[assignment]
    return (ConstantType(value.shape, element),)


def _constant(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    return (op["value"].array,)


SPECS = (
    OpSpec(
        "input",
        "any",
        (),
        ("value",),
        (
            Attribute("name", str, "the model input's name"),
            Attribute("type", (StreamType, SequenceType, TensorType), "the value's type"),
            Attribute("axes", str, AXES_DOC, ""),
            Attribute("role", str, "'data', 'state' (optional, zero if left out) or 'dt' (elapsed time)", "data"),
        ),
        _given_type,
        _outside,
        "A value that the user gives.",
    ),
    OpSpec(
        "output",
        "any",
        ("x",),
        ("value",),
        (
            Attribute("name", str, "the model output's name"),
            Attribute("axes", str, AXES_DOC, ""),
            Attribute("role", str, "'data' or 'state' (the last state of a sequence)", "data"),
        ),
        _same,
        _pass,
        "A value that the user gets.",
    ),
    OpSpec(
        "constant",
        "any",
        (),
        ("value",),
        (Attribute("value", Tensor, "the array"),),
        _constant_type,
        _constant,
        "The same array for every sequence and step.",
    ),
)
