"""The number of steps as a value: where the file divides by it, or by one less, and the length is dynamic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, Tracked
from ssmc.frontend.rules.context import Surroundings
from ssmc.frontend.source.listing import Call
from ssmc.ir.graph import Value

ARITHMETIC = frozenset(["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"])
FUNCTIONS = frozenset(["Neg", "Log", "Exp", "Sqrt", "Reciprocal"])
SAME = frozenset(["Cast", "Squeeze", "Unsqueeze", "Identity", "Reshape", "ReduceProd", "ReduceSum", "ReduceMax"])


def with_lengths(translator: Surroundings, call: Call, items: Sequence[Any]) -> list[Any]:
    """The operands of an arithmetic op, numbers that the file makes from the number of steps as values of the graph."""
    flows = [item for item in items if isinstance(item, Flow)]
    if call.kind not in ARITHMETIC or not flows or any("t" in flow.axes or "w" in flow.axes for flow in flows):
        return list(items)
    found = []
    for value, item in zip(call.operands, items, strict=True):
        length = as_length(translator, value) if isinstance(item, Known) and value is not None else None
        found.append(item if length is None else length)
    return found


def as_length(translator: Surroundings, value: Value) -> Flow | None:
    """A single number as a function of the number of steps; None where it is none."""
    item, call = translator.lookup(value), translator.listing.producer.get(value)
    if call is None or value in translator.listing.constants or not isinstance(item, Known):
        return None
    if np.size(item.stored) != 1:
        return None
    if call.kind in ("Shape", "Gather", "Slice"):
        return _counted(translator, call, item)
    operands = [v for v in call.operands if v is not None]
    inner = {v: as_length(translator, v) for v in (operands[:1] if call.kind in SAME else operands)}
    if all(flow is None for flow in inner.values()):
        return None
    if call.kind in SAME:
        flow = inner[operands[0]]
        return None if flow is None else _shaped(translator, flow, item.shape)
    if call.kind not in ARITHMETIC | FUNCTIONS:
        return None
    result: Tracked = translator.apply(call, [inner[v] or translator.lookup(v) for v in operands])[0]
    return result if isinstance(result, Flow) else None


def _counted(translator: Surroundings, call: Call, item: Known) -> Flow | None:
    """One size of a stream's shape, that of its time axis."""
    axis = int(call.attrs.get("start", 0))
    shape: Call | None = call
    if call.kind != "Shape":
        source = call.operands[0]
        shape = None if source is None else translator.listing.producer.get(source)
        told = translator.lookup(call.operands[1])
        if shape is None or shape.kind != "Shape" or not isinstance(told, Known) or np.size(told.stored) != 1:
            return None
        axis = int(np.asarray(told.stored).reshape(-1)[0]) + int(shape.attrs.get("start", 0))
    assert shape is not None
    stream = translator.lookup(shape.operands[0])
    if not isinstance(stream, Flow) or stream.axes[axis % len(stream.axes)] != "t":
        return None
    builder = translator.builder
    count = builder.add("pool", [builder.stream(np.ones(()), stream.value)], kind="sum")
    return _shaped(translator, Flow(count, "", ()), item.shape)


def _shaped(translator: Surroundings, flow: Flow, shape: tuple[int, ...]) -> Flow:
    value = translator.builder.reshape(flow.value, shape)
    assert isinstance(value, Value)
    return Flow(value, "f" * len(shape), shape)
