"""States as ONNX tensors, and as one row of features for each sample."""

from __future__ import annotations

import numpy as np

from ssmc.frontend.flow import Flow, Tracked
from ssmc.ir.op import Array


def axes_of_state(item: Tracked, shape: tuple[int, ...]) -> str:
    """The axes of a state: those of its drive; with no drive to tell, the batch is the first one."""
    if isinstance(item, Flow):
        return "f" * (len(shape) - len(item.axes)) + item.axes
    return "b" + "f" * (len(shape) - 1) if shape else ""


def to_rows(array: Array, axes: str) -> Array:
    """An ONNX tensor as (batch, features in one row)."""
    if "b" not in axes:
        return array.reshape(1, -1)
    return np.moveaxis(array, axes.index("b"), 0).reshape(array.shape[axes.index("b")], -1)


def from_rows(rows: Array, axes: str, shape: tuple[int, ...]) -> Array:
    """The inverse of `to_rows`."""
    if "b" not in axes:
        return rows.reshape(shape)
    at = axes.index("b")
    moved = rows.reshape(shape[at], *shape[:at], *shape[at + 1 :])
    return np.moveaxis(moved, 0, at)
