"""Types of values. Batch is always an outer axis and never part of a type."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Element = Literal["real", "complex", "index", "bool"]


@dataclass(frozen=True)
class StreamType:
    """A value of `shape` at every time step; the array is (batch, time * rate, *shape).

    `rate` is relative to the model's input steps: after an event pooling by 8 it is 1/8.
    """

    shape: tuple[int, ...]
    element: Element = "real"
    rate: Fraction = Fraction(1)


@dataclass(frozen=True)
class SequenceType:
    """One value of `shape` per sequence; the array is (batch, *shape)."""

    shape: tuple[int, ...]
    element: Element = "real"


@dataclass(frozen=True)
class ConstantType:
    """The same value for every sequence and step; the array is (*shape)."""

    shape: tuple[int, ...]
    element: Element = "real"


@dataclass(frozen=True)
class TensorType:
    """A tensor of the ONNX level; a dimension is a size, or a name where it is dynamic, or None unknown."""

    shape: tuple[int | str | None, ...] | None
    dtype: str


FlowType = StreamType | SequenceType | ConstantType
ValueType = FlowType | TensorType


def show_type(kind: ValueType) -> str:
    """The text form of a type, as in `stream<32>`, `stream<16 complex @1/8>`, `tensor<batch,64,f64>`."""
    if isinstance(kind, TensorType):
        dims = "*" if kind.shape is None else ",".join(map(_show_dimension, kind.shape))
        return f"tensor<{dims};{kind.dtype}>"
    dims = "x".join(map(str, kind.shape)) or "scalar"
    suffix = "" if kind.element == "real" else f" {kind.element}"
    if isinstance(kind, StreamType):
        rate = "" if kind.rate == 1 else f" @{kind.rate}"
        return f"stream<{dims}{suffix}{rate}>"
    word = "sequence" if isinstance(kind, SequenceType) else "constant"
    return f"{word}<{dims}{suffix}>"


def _show_dimension(dimension: int | str | None) -> str:
    if isinstance(dimension, str) and re.fullmatch(r"[A-Za-z_][\w.]*", dimension) is None:
        return json.dumps(dimension)
    return "?" if dimension is None else str(dimension)


def join(*kinds: FlowType) -> FlowType:
    """The type of an elementwise result: streams win over sequences over constants; shapes broadcast.

    Raises ValueError where rates or shapes do not agree.
    """
    import numpy as np

    shape = tuple(int(d) for d in np.broadcast_shapes(*(k.shape for k in kinds)))
    elements = [k.element for k in kinds]
    element: Element = "complex" if "complex" in elements else "real"
    rates = {k.rate for k in kinds if isinstance(k, StreamType)}
    if len(rates) > 1:
        raise ValueError(f"streams of different rates meet: {', '.join(map(str, sorted(rates)))}")
    if rates:
        return StreamType(shape, element, rates.pop())
    if any(isinstance(k, SequenceType) for k in kinds):
        return SequenceType(shape, element)
    return ConstantType(shape, element)


def with_shape(kind: FlowType, shape: tuple[int, ...], element: Element | None = None) -> FlowType:
    """The same kind of flow with another feature shape (and element)."""
    element = element or kind.element
    if isinstance(kind, StreamType):
        return StreamType(shape, element, kind.rate)
    return type(kind)(shape, element)


def outer_axes(kind: FlowType) -> int:
    """How many axes stand before the feature axes: 2 for a stream, 1 for a sequence, 0 for a constant."""
    return 2 if isinstance(kind, StreamType) else 1 if isinstance(kind, SequenceType) else 0
