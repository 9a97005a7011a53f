"""ONNX nodes made anew around a re-rolled loop: slices, zeros of the right size, shapes that follow the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import helper

from ssmc.frontend.unrolled.survey import Survey
from ssmc.ir.graph import Graph, Value
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor
from ssmc.ir.types import TensorType

UNTYPED = TensorType(None, "?")
MAX_SHAPE = 64  # entries of a static integer array that is taken for a shape


@dataclass(eq=False)
class Rebuilder:
    """Adds ONNX nodes to `graph`, which holds the nodes of the surveyed graph (or is the body of a Scan)."""

    graph: Graph
    survey: Survey
    _outer: dict[Value, Value] = field(default_factory=dict)

    @property
    def opset(self) -> int:
        return int(self.survey.graph.attributes.get("opset", 17))

    def constant(self, array: Any) -> Value:
        tensor = Tensor(array)
        kind = TensorType(tensor.shape, str(tensor.array.dtype))
        return self.graph.add("constant", [], {"value": tensor}, types=(kind,))

    def node(self, kind: str, operands: Sequence[Value], **attributes: Any) -> Value:
        proto = helper.make_node(kind, [str(v) for v in operands], ["result"], **attributes)
        attrs = {"node": proto, "version": self.opset, "opset": self.opset, "regions": {}, "captured": 0}
        return self.graph.add(f"onnx.{kind}", operands, attrs, types=(UNTYPED,))

    def unsqueeze(self, value: Value, axis: int) -> Value:
        return self._with_axes("Unsqueeze", value, axis)

    def squeeze(self, value: Value, axis: int) -> Value:
        return self._with_axes("Squeeze", value, axis)

    def _with_axes(self, kind: str, value: Value, axis: int) -> Value:
        if self.opset < 13:
            return self.node(kind, [value], axes=[axis])
        return self.node(kind, [value, self.constant(np.array([axis]))])

    def summed(self, value: Value) -> Value:
        """The sum over the first axis, which goes."""
        if self.opset < 13:
            return self.node("ReduceSum", [value], axes=[0], keepdims=0)
        return self.node("ReduceSum", [value, self.constant(np.array([0]))], keepdims=0)

    def taken(self, stream: Value, axis: int, start: int, stride: int, steps: int, size: int) -> Value:
        """The steps of a stream that are read, in the stream's own order."""
        stream, last = self.outer(stream), start + stride * (steps - 1)
        low, high, every = min(start, last), max(start, last), abs(stride)
        if (low, high, every) == (0, size - 1, 1):
            return stream
        if self.opset < 10:
            raise ValueError("Slice has no steps before opset 10")
        parts = [self.constant(np.array([n])) for n in (low, high + 1, axis, every)]
        return self.node("Slice", [stream, *parts])

    # -- what follows the batch ----------------------------------------------------------------------------

    def _following(self, arrays: Sequence[Array]) -> Value:
        """Integers that grow evenly with the batch, computed from the shape of a model input."""
        first, second = (np.asarray(a, np.int64) for a in arrays)
        source, axis = next(
            (value, axis)
            for value in self.survey.listing.inputs.values()
            for axis, (a, b) in enumerate(zip(*(shapes[value] for shapes in self.survey.shapes), strict=True))
            if a != b
        )
        size = self.survey.shapes[0][source][axis]
        slope = second - first
        batch = self.node("Gather", [self.node("Shape", [source]), self.constant(np.array([axis]))], axis=0)
        scaled = self.node("Mul", [batch, self.constant(slope)])
        return self.node("Add", [scaled, self.constant(first - slope * size)])

    def filled(self, shapes: Sequence[tuple[int, ...]], array: Array | None, kind: Any) -> Value:
        """A tensor of these shapes (one for each sample point): zeros, or `array` broadcast."""
        array = np.zeros((), kind) if array is None else array
        if all(shape == shapes[0] for shape in shapes):
            return self.constant(np.broadcast_to(array, shapes[0]))
        target = self._following([np.array(shape) for shape in shapes])
        return self.node("Expand", [self.constant(array), target])

    def outer(self, value: Value) -> Value:
        """A value of the surveyed graph; static ones are made anew, so that they need no unrolled node."""
        if not renewable(self.survey, value):
            return value
        if value not in self._outer:
            self._outer[value] = self._renewed([static[value] for static in self.survey.static])
        return self._outer[value]

    def _renewed(self, arrays: list[Any]) -> Value:
        first = np.asarray(arrays[0])
        if _all_equal(arrays):
            return self.constant(first)
        if first.dtype.kind in "iu":
            return self._following(arrays)
        return self.filled([np.shape(a) for a in arrays], np.full((), first.flat[0]), first.dtype)


def renewable(survey: Survey, value: Value) -> bool:
    """Can a value be made anew: it is static, and the same for every batch, or a shape, or filled with one number?"""
    arrays: list[Any] = [static.get(value) for static in survey.static]
    if any(a is None or isinstance(a, list) for a in arrays) or value in survey.listing.constants:
        return False
    first = np.asarray(arrays[0])
    if _all_equal(arrays):
        return True
    if first.dtype.kind in "iu":
        return all(np.shape(a) == first.shape for a in arrays) and first.size <= MAX_SHAPE
    return first.size > 0 and all(bool((a == first.flat[0]).all()) for a in arrays)


def _all_equal(arrays: Sequence[Any]) -> bool:
    first = np.asarray(arrays[0])
    return all(
        np.shape(a) == first.shape and np.array_equal(a, first, equal_nan=first.dtype.kind == "f") for a in arrays
    )
