"""What is known of a whole sequence, laid out along its steps again: `mean.expand_as(x)`, `zeros_like(x) + last`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, is_stream
from ssmc.frontend.rules.context import Surroundings
from ssmc.frontend.source.listing import Call
from ssmc.ir.graph import Value

POINTWISE = frozenset(["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Where", "Equal", "Greater", "Less"])


def along_steps(translator: Surroundings, call: Call, items: Sequence[Any]) -> list[Any]:
    """The operands; a value of the sequence that the call repeats for every step becomes a stream."""
    wanted = _wanted(translator, call, items)
    steps = None if wanted is None else _steps(translator)
    if wanted is None or steps is None:
        return list(items)
    found = [_spread(translator, item, wanted, *steps) if _is_of_sequence(translator, item) else item for item in items]
    if call.kind == "Tile":  # what was repeated is not repeated again
        rest = [1 if a == "t" else n for a, n in zip(found[0].axes, np.reshape(items[1].stored, -1), strict=True)]
        found[1] = Known(np.asarray(rest))
    return found


def _is_of_sequence(translator: Surroundings, item: Any) -> bool:
    return isinstance(item, Flow) and set(item.axes) <= set("bf") and not is_stream(translator.builder, item)


def _wanted(translator: Surroundings, call: Call, items: Sequence[Any]) -> tuple[int, ...] | None:
    """The shape to which a call broadcasts its operands, where a value of the sequence is among them."""
    if not any(_is_of_sequence(translator, item) for item in items):
        return None
    if call.kind in POINTWISE:
        known = [
            item.shape
            for value, item in zip(call.operands, items, strict=True)
            if isinstance(item, Known) and not (translator.dynamic and value in translator.listing.constants)
        ]
        return tuple(np.broadcast_shapes(*known)) if known else None
    if call.kind not in ("Expand", "Tile") or not isinstance(items[1], Known):
        return None
    if translator.dynamic and call.operands[1] in translator.listing.constants:
        return None
    told = tuple(int(d) for d in np.reshape(items[1].stored, -1))
    return told if call.kind == "Expand" else tuple(d * n for d, n in zip(items[0].shape, told, strict=True))


def _steps(translator: Surroundings) -> tuple[int, Value] | None:
    """The number of steps of the model's inputs, and one of them."""
    for value in translator.listing.inputs.values():
        item = translator.lookup(value)
        if isinstance(item, Flow) and "t" in item.axes:
            return item.shape[item.axes.index("t")], item.value
    return None


def _spread(translator: Surroundings, flow: Flow, wanted: tuple[int, ...], steps: int, like: Value) -> Flow:
    """The flow as a stream, its first axis of one entry that is to have as many as there are steps being time."""
    shift = len(wanted) - len(flow.shape)
    for axis, (letter, size) in enumerate(zip(flow.axes, flow.shape, strict=True)):
        if letter == "f" and size == 1 and axis + shift >= 0 and wanted[axis + shift] == steps > 1:
            axes = flow.axes[:axis] + "t" + flow.axes[axis + 1 :]
            shape = (*flow.shape[:axis], steps, *flow.shape[axis + 1 :])
            place = Flow(flow.value, axes, shape)
            builder = translator.builder
            return Flow(builder.stream(builder.reshape(flow.value, place.features), like), axes, shape)
    return flow
