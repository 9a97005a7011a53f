"""Between the user's arrays, in the model's own axes, and the graph's (batch, time, features)."""

from __future__ import annotations

import numpy as np

from ssmc.ir.op import Array
from ssmc.ir.types import StreamType, ValueType


def to_graph(array: Array, axes: str, kind: ValueType) -> Array:
    """A user's array as the graph's value: axes in the order b, t, features; axes of size one dropped.

    `axes` names each axis of `array` (see the op `input`). An axis `1` must have size one; a missing `b`
    is added. Raises ValueError where the number of axes differs.
    """
    if not axes:
        return array
    if array.ndim != len(axes):
        raise ValueError(f"has {array.ndim} axes, the model {len(axes)} ({' '.join(axes)})")
    kept = [i for i, letter in enumerate(axes) if letter != "1"]
    array = array.reshape([array.shape[i] for i in kept])
    letters = [axes[i] for i in kept]
    order = sorted(range(len(letters)), key=lambda i: ("btf".index(letters[i]), i))
    array = array.transpose(order)
    if "b" not in letters:
        array = array[None]
    if isinstance(kind, StreamType) and array.shape[2:] != kind.shape:
        array = array.reshape(*array.shape[:2], *kind.shape)
    return np.ascontiguousarray(array)


def from_graph(array: Array, axes: str) -> Array:
    """The inverse of `to_graph`, for outputs."""
    if not axes:
        return array
    letters = [letter for letter in axes if letter != "1"]
    order = sorted(range(len(letters)), key=lambda i: ("btf".index(letters[i]), i))
    if "b" not in letters:
        array = array[0]
    array = array.transpose(np.argsort(order)) if letters else array
    shape = iter(array.shape)
    return np.ascontiguousarray(array.reshape([1 if letter == "1" else next(shape) for letter in axes]))
