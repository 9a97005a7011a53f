"""Streams joined along the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ssmc.frontend.graph.builder import Builder
from ssmc.frontend.graph.flow import Flow
from ssmc.frontend.graph.joint import joined
from ssmc.ir.graph import Value


def beside_samples(builder: Builder, flows: Sequence[Flow], axis: int) -> Flow:
    """Streams joined along the batch, as where both directions go through one layer: features beside the samples."""
    axes, shape = flows[0].axes, flows[0].shape
    wide = Flow(flows[0].value, axes[:axis] + "fb" + axes[axis + 1 :], (*shape[:axis], 1, *shape[axis:]))
    parts = [builder.reshape(flow.value, wide.features) for flow in flows]
    value = builder.concat(parts, wide.from_right(axis))
    assert isinstance(value, Value)
    together = (*shape[:axis], len(flows), *shape[axis:])
    return joined(replace(wide, value=value, shape=together), axis, ("fb", (len(flows), shape[axis])))
