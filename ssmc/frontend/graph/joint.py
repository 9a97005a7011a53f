"""One axis that batch and features make together, and the same tensor with the axes apart.

Such an axis has the letter `y`, and `Flow.merged` says of which axes and sizes it is made. The new graph's value is
that of the tensor with the axes apart.
"""

from __future__ import annotations

from math import prod
from typing import Any

from ssmc.frontend.graph.flow import Flow, Merged, TimeMixing

TOGETHER = "y"
REASON = "batch and features are one axis"


def apart(flow: Flow) -> Flow:
    """The flow with its merged axes as the axes that they are made of."""
    axes, shape, parts = "", list[int](), iter(flow.merged)
    for label, size in zip(flow.axes, flow.shape, strict=True):
        letters, sizes = next(parts) if label == TOGETHER else (label, (size,))
        axes, shape = axes + letters, [*shape, *sizes]
    return Flow(flow.value, axes, tuple(shape))


def joined(flow: Flow, at: int, merged: Merged) -> Flow:
    """The flow with the axes from `at` on as one. Raises TimeMixing where they are others."""
    letters, sizes = merged
    end = at + len(letters)
    if at < 0 or flow.axes[at:end] != letters or flow.shape[at:end] != sizes:
        raise TimeMixing(REASON)
    axes = flow.axes[:at] + TOGETHER + flow.axes[end:]
    return Flow(flow.value, axes, (*flow.shape[:at], prod(sizes), *flow.shape[end:]), (merged,))


def merged_place(flow: Flow) -> int | None:
    """Which axis of the flow is merged; None where none is."""
    return flow.axes.index(TOGETHER) if flow.merged else None


def is_joint(item: Any) -> bool:
    """Is this a flow whose batch is one axis with features, and time none with others?"""
    return (
        isinstance(item, Flow) and not set(item.axes) - {*"btf", TOGETHER} and all("t" not in m for m, _ in item.merged)
    )
