"""ONNX values with their axes known: which is batch, which is time, which are features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ssmc.frontend.graph.builder import Builder, Operand
from ssmc.frontend.reasons import Reason, as_reason
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.tensor import widened
from ssmc.ir.types import StreamType

Merged: TypeAlias = tuple[str, tuple[int, ...]]  # letters and sizes of the axes that one axis is made of


@dataclass(frozen=True)
class Flow:
    """An ONNX tensor that depends on the model's inputs, and the value of the new graph that stands for it.

    `axes` has a letter for each axis of the ONNX tensor: `b` batch, `t` time, `f` a feature. The new value is
    (batch, time, *features), its features in the order of the ONNX axes. Inside one step (a Scan body, a one-step
    model) the ONNX tensor has no time axis while the value is a stream.
    """

    value: Value
    axes: str
    shape: tuple[int, ...]
    merged: tuple[Merged, ...] = ()  # of axes with the letter `y` (`together`)

    @property
    def features(self) -> tuple[int, ...]:
        """The feature shape of the value: sizes of the axes with the letter `f`."""
        return tuple(d for d, a in zip(self.shape, self.axes, strict=True) if a == "f")

    def feature_axes(self) -> list[int]:
        """Positions of the feature axes in the ONNX tensor."""
        return [i for i, a in enumerate(self.axes) if a == "f"]

    def from_right(self, axis: int) -> int:
        """The feature axis that ONNX axis `axis` is, counted from the right (-1 is the last)."""
        return self.feature_axes().index(axis) - len(self.feature_axes())


@dataclass(frozen=True, eq=False)
class Known:
    """An ONNX tensor that does not depend on the model's inputs (it may on their shapes)."""

    stored: Any  # an array (a large one perhaps in float32); a list of arrays for ONNX sequences

    @property
    def array(self) -> Any:
        """What is stored, in float64."""
        return widened(self.stored)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the ONNX tensor."""
        return tuple(np.shape(self.stored))


@dataclass(frozen=True)
class Refused:
    """A value that could not be translated; the reasons are in the translator's list."""


@dataclass(frozen=True)
class Raw:
    """A value in which time steps are mixed, on the way to something that its whole region will explain."""

    reason: Reason


@dataclass(frozen=True, eq=False)
class Tick:
    """What is known at every trip of a Loop and changes from trip to trip: `values` (trips or more, ...).

    Where the number of trips differs from run to run there are rows for more of them than the `trips` of the sample.
    """

    values: Array
    trips: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape at one trip."""
        return tuple(self.values.shape[1:])


@dataclass(frozen=True, eq=False)
class Pieces:
    """An ONNX sequence with one tensor for each of `length` steps: `item` is that of the present step.

    `front`: each step was put in front of those before it. The first `missing` steps are not in it.
    """

    item: Flow | Known
    like: Value  # any stream of the model
    length: int
    front: bool = False
    missing: int = 0


@dataclass(frozen=True, eq=False)
class Members:
    """An ONNX sequence of tensors that are known one by one."""

    items: tuple[Any, ...]


Tracked: TypeAlias = Flow | Known | Raw | Refused | Tick | Pieces | Members


class Unsupported(Exception):
    """This node cannot be translated: the reason in words, for the user, and by its kind, for decisions."""

    def __init__(self, why: Reason | str) -> None:
        self.reason = as_reason(why)
        super().__init__(self.reason.text)


class TimeMixing(Unsupported):
    """This node brings different time steps together, in a way that only its surroundings can explain."""


# (letters of the axes that a reshape takes together, number of axes that they become) -> letters of those (`merged`).
REGROUPED = {("bt", 1): "m", ("tb", 1): "n", ("m", 2): "bt", ("n", 2): "tb", ("t", 2): "tw"}


def letter(axis: int, flow: Flow) -> str:
    """What an axis is: b, t, f, or one of those that stand for several."""
    return flow.axes[axis % len(flow.axes)]


def known_along(array: Array, axis: int) -> Array | None:
    """The array without `axis` if it is the same all along it, else None."""
    first: Array = np.take(array, 0, axis=axis)
    if array.shape[axis] == 1 or bool((array == np.expand_dims(first, axis)).all()):
        return first
    return None


def is_stream(builder: Builder, item: Flow) -> bool:
    """Whether a flow has a value at every step."""
    return isinstance(builder.graph.type(item.value), StreamType)


def align(builder: Builder, items: Sequence[Flow | Known]) -> tuple[list[Operand], str, tuple[int, ...]]:
    """Operands that broadcast as the ONNX tensors do, with the axes and shape of the result.

    Raises Unsupported where a feature meets the batch, or a constant differs from sample to sample.
    """
    shape = tuple(int(d) for d in np.broadcast_shapes(*(item.shape for item in items)))
    axes = _joined_axes(builder, [item for item in items if isinstance(item, Flow)], shape)
    operands: list[Operand] = []
    like = next(
        (item.value for item in items if isinstance(item, Flow) and is_stream(builder, item)),
        None,
    )
    for item in items:
        labels = axes[len(axes) - len(item.shape) :]
        if isinstance(item, Flow):
            operands.append(_aligned_flow(builder, item, labels))
        else:
            operands.append(known_operand(builder, np.asarray(item.array), labels, like))
    return operands, axes, shape


def _joined_axes(builder: Builder, flows: Sequence[Flow], shape: tuple[int, ...]) -> str:
    axes = ""
    for position in range(len(shape)):
        letters = {
            flow.axes[position - len(shape) + len(flow.shape)]
            for flow in flows
            if position >= len(shape) - len(flow.shape)
        }
        if {"b", "t"} <= letters:
            raise Unsupported("the batch axis of one operand meets the time axis of another")
        axes += "b" if "b" in letters else "t" if "t" in letters else "f"
    if axes.count("b") > 1 and all(flow.axes.count("b") < 2 for flow in flows):
        raise Unsupported("every sample of the batch meets every other")
    if axes.count("t") > 1 and all(flow.axes.count("t") < 2 for flow in flows):
        raise TimeMixing("every step meets every other")
    if "t" in axes and any(is_stream(builder, flow) and "t" not in flow.axes for flow in flows):
        raise TimeMixing("one step meets a whole sequence")
    return axes


def _aligned_flow(builder: Builder, flow: Flow, labels: str) -> Operand:
    kept = []
    for own, label, size in zip(flow.axes, labels, flow.shape, strict=True):
        if own == "f" and label == "f":
            kept.append(size)
        elif own == "f" and size != 1:
            meaning = {"b": "batch", "t": "time"}[label]
            raise TimeMixing(f"a feature axis of size {size} meets the {meaning} axis")
    return builder.reshape(flow.value, tuple(kept))


def known_operand(builder: Builder, array: Array, labels: str, like: Value | None = None) -> Operand:
    """A constant as an operand: its batch axis dropped, its time axis too or made a stream of its own."""
    table, changing = reduced_table(array, labels)
    if not changing:
        return table
    if like is None:
        raise Unsupported("a constant changes with time where no stream is")
    return builder.positional(table, like, (array, labels))


def reduced_table(array: Array, labels: str) -> tuple[Array, bool]:
    """A constant without its batch axis, its time axis in front if it changes along it; and whether it does.

    Raises Unsupported where it differs from sample to sample.
    """
    table = array
    for axis in reversed(range(array.ndim)):
        if labels[axis] == "f":
            continue
        reduced = known_along(table, axis)
        if reduced is not None:
            table = reduced
        elif labels[axis] == "b":
            if counted_samples(array):
                raise TimeMixing("it numbers the samples of the batch")
            raise Unsupported("a constant differs from sample to sample of the batch")
        else:
            remaining = [i for i in range(axis) if labels[i] == "f" or known_along(array, i) is None]
            table = np.moveaxis(table, axis, 0)
            if any(labels[i] == "b" and array.shape[i] > 1 for i in remaining):
                raise Unsupported("a constant differs from sample to sample of the batch")
            for i in reversed(range(axis)):
                if labels[i] == "b":
                    table = np.take(table, 0, axis=i + 1)
            return table, True
    return table, False


def counted_samples(array: Array) -> int:
    """c where the array is 0, c, 2c ... for the samples of a batch, as indices into (batch * time) start; else 0."""
    flat = array.reshape(-1)
    step = int(flat[1]) if flat.size > 1 and flat.size == max(array.shape) else 0
    return step if step > 0 and np.array_equal(flat, step * np.arange(flat.size)) else 0


def placed(array: Array, axes: str, shape: tuple[int, ...]) -> Array:
    """A constant result (features only) as the ONNX tensor of shape `shape`."""
    full = array
    for i, axis in enumerate(axes):
        if axis != "f":
            full = np.expand_dims(full, i)
    return np.broadcast_to(full, shape)


def wrap(result: Operand, axes: str, shape: tuple[int, ...]) -> Flow | Known:
    """A builder's result as a tracked value."""
    if isinstance(result, Value):
        return Flow(result, axes, shape)
    return Known(placed(result, axes, shape))
