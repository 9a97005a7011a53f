"""Steps that a file takes in an order that its data give: sequences that are reversed by their own lengths.

What a node picks is compared with what it picks from, at the sample inputs, where no two numbers are alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssmc.frontend.findings import Refusal
from ssmc.frontend.graph.flow import Flow, Raw
from ssmc.frontend.rules.shape import BY_LENGTHS
from ssmc.frontend.source.listing import Call
from ssmc.frontend.translator import Translator
from ssmc.ir.op import Array

PICKING = frozenset(["Gather", "GatherElements", "GatherND"])
BY_DATA = (
    "it takes the steps of a sequence in an order that the data give; the targets go through a sequence forwards or "
    "backwards. Give the model its input in that order"
)


def ordered_by_data(translator: Translator, cone: Sequence[Call]) -> Refusal | None:
    """The first call of a cone that takes steps in an order which the data give, and in which one."""
    for call in cone:
        index = call.operands[1] if call.kind in PICKING and len(call.operands) > 1 else None
        flow = translator.lookup(call.operands[0])
        if not isinstance(translator.lookup(index), Flow | Raw) or not isinstance(flow, Flow):
            continue
        orders = [_order(translator, call, flow, point) for point in range(len(translator.samples.points))]
        found = [order for order in orders if order is not None]
        if not found or len(found) < len(orders):
            continue
        if all(_reverses(order) for order in found) and any((order[:, 0] > 0).any() for order in found):
            return Refusal(call.name, call.kind, BY_LENGTHS)
        if all((np.sort(order) == np.arange(order.shape[1])).all() for order in found):
            return Refusal(call.name, call.kind, BY_DATA)
    return None


def _order(translator: Translator, call: Call, flow: Flow, point: int) -> NDArray[np.int64] | None:
    """(batch, steps): which step of its sequence each step of the result is; -1 for one of another sequence."""
    assert call.operands[0] is not None
    arrays = translator.samples.at(point, [call.operands[0], call.results[0]])
    data, result = (np.asarray(arrays[v]) for v in (call.operands[0], call.results[0]))
    steps = translator.steps
    if data.size != result.size or not steps or flow.axes[:1] not in ("b", "m") or data.size % steps:
        return None
    if flow.axes[:1] == "b" and (flow.axes[:2] != "bt" or data.shape[1] != steps):
        return None
    batch = data.shape[0] if flow.axes[0] == "b" else data.shape[0] // steps
    rows = [np.asarray(array, np.float64).reshape(batch, steps, -1)[..., 0] for array in (data, result)]
    same: Array = rows[0][:, None, :] == rows[1][:, :, None]  # batch, step of the result, step of the data
    return np.where(same.any(axis=2), same.argmax(axis=2), -1)


def _reverses(order: NDArray[np.int64]) -> bool:
    """Does every sequence begin with its first steps in reverse?"""
    rows = zip(order, order[:, 0] + 1, strict=True)
    return all(n > 0 and bool((row[:n] == np.arange(n)[::-1]).all()) for row, n in rows)
