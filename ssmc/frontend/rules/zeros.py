"""Zeros that are computed of a value, as states are written to start: nothing of the value is in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known
from ssmc.frontend.source.listing import Call


def zeros_of(call: Call, items: Sequence[Flow | Known]) -> Known | None:
    """`x[:, 0] * 0` and `x[:, 0] - x[:, 0]` as the constant that they are; None for anything else, and for streams."""
    if any(isinstance(item, Flow) and "t" in item.axes for item in items):
        return None
    none = call.kind == "Mul" and any(isinstance(item, Known) and not np.any(item.array) for item in items)
    if none or (call.kind == "Sub" and call.operands[0] == call.operands[1]):
        return Known(np.zeros(np.broadcast_shapes(*(item.shape for item in items))))
    return None
