"""States as ONNX tensors, and as one row of features for each sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssmc.frontend.graph.builder import Operand
from ssmc.frontend.graph.flow import Flow, Known, Merged, Tracked, wrap
from ssmc.frontend.graph.joint import apart, joined, merged_place
from ssmc.ir.op import Array


@dataclass(frozen=True)
class Layout:
    """How a state lies in its ONNX tensor of some `shape`: its `axes` and `sizes`, what is merged of them apart."""

    shape: tuple[int, ...]
    axes: str
    sizes: tuple[int, ...]
    merged: tuple[int, Merged] | None = None  # where, and of what

    @property
    def features(self) -> tuple[int, ...]:
        return tuple(d for d, a in zip(self.sizes, self.axes, strict=True) if a == "f")

    @property
    def batch(self) -> int:
        return self.sizes[self.axes.index("b")] if "b" in self.axes else 1

    def spread(self, array: Array) -> Array:
        """An array that broadcasts to the tensor, its axes apart."""
        return np.array(np.broadcast_to(array, self.shape)).reshape(self.sizes)

    def rows(self, array: Array) -> Array:
        """The tensor as (batch, features in one row)."""
        array = np.broadcast_to(array, self.shape).reshape(self.sizes)
        if "b" not in self.axes:
            return array.reshape(1, -1)
        return np.moveaxis(array, self.axes.index("b"), 0).reshape(self.batch, -1)

    def tensor(self, rows: Array) -> Array:
        """The inverse of `rows`."""
        if "b" not in self.axes:
            return rows.reshape(self.shape)
        at = self.axes.index("b")
        moved = rows.reshape(self.batch, *self.sizes[:at], *self.sizes[at + 1 :])
        return np.moveaxis(moved, 0, at).reshape(self.shape)

    def tracked(self, value: Operand) -> Flow | Known:
        """What is of these features in the new graph, as the tensor."""
        found = wrap(value, self.axes, self.sizes)
        if self.merged is None:
            return found
        return joined(found, *self.merged) if isinstance(found, Flow) else Known(found.array.reshape(self.shape))


def layout_of(item: Tracked, shape: tuple[int, ...]) -> Layout:
    """The layout of a state: that of its drive; with no drive to tell, the batch is the first axis."""
    if not isinstance(item, Flow):
        return Layout(shape, "b" + "f" * (len(shape) - 1) if shape else "", shape)
    more, place = len(shape) - len(item.shape), merged_place(item)
    axes = "f" * more + apart(item).axes
    if place is None:
        return Layout(shape, axes, shape)
    at = more + place
    return Layout(shape, axes, (*shape[:at], *item.merged[0][1], *shape[at + 1 :]), (at, item.merged[0]))
