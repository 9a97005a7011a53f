"""What the steps give, as a sequence: the time axis comes (back) into the ONNX tensor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ssmc.frontend.graph.builder import Builder
from ssmc.frontend.graph.flow import Flow, Known, Tracked
from ssmc.ir.graph import Value


def sequence_of(builder: Builder, item: Tracked, like: Value, axis: int, backward: bool, length: int) -> Tracked:
    """The values of all steps, stacked along a new axis."""
    if isinstance(item, Known):
        stacked = np.broadcast_to(np.expand_dims(item.array, axis), inserted(item.shape, axis, length))
        return Known(np.array(stacked))
    if not isinstance(item, Flow):
        return item
    value = builder.stream(item.value, like)
    value = builder.reverse(value) if backward else value
    place = axis % (len(item.shape) + 1)
    axes = item.axes[:place] + "t" + item.axes[place:]
    return replace(item, value=value, axes=axes, shape=inserted(item.shape, axis, length))


def inserted(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    """The shape with an axis more."""
    place = axis % (len(shape) + 1)
    return (*shape[:place], size, *shape[place:])
