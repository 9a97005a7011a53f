"""The number of steps as a value: where the file divides by it, by one less, or by a sum of weights of all steps, and
the length is dynamic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, Tracked
from ssmc.frontend.rules.context import Surroundings, arrays_or_flows
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import axes_of
from ssmc.ir.graph import Value

ARITHMETIC = frozenset(["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"])
FUNCTIONS = frozenset(["Neg", "Log", "Exp", "Sqrt", "Reciprocal"])
POOLED = {"ReduceSum": "sum", "ReduceMean": "mean"}
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
    """A number, or several, as a function of the number of steps; None where it is none."""
    item, call = translator.lookup(value), translator.listing.producer.get(value)
    if call is None or value in translator.listing.constants or not isinstance(item, Known):
        return None
    if call.kind in ("Shape", "Gather", "Slice"):
        return _counted(translator, call, item) if np.size(item.stored) == 1 else None
    if call.kind in POOLED and (total := _total(translator, call, item)) is not None:
        return total
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


def _total(translator: Surroundings, call: Call, item: Known) -> Flow | None:
    """A sum over the time axis of a table that the file makes from the number of steps."""
    value, like = call.operands[0], _any_stream(translator)
    table = None if value is None or value in translator.listing.constants else translator.lookup(value)
    if not isinstance(table, Known) or like is None:
        return None
    operands = [None if v is None else translator.lookup(v) for v in call.operands]
    over = {
        a % len(table.shape) for a in axes_of(arrays_or_flows(operands), call.attrs, 1, range(len(table.shape))) or []
    }
    steps = like.shape[like.axes.index("t")]
    timed = [axis for axis in over if table.shape[axis] == steps]
    if len(timed) != 1 or any(table.shape[axis] != 1 for axis in over.difference(timed)):
        return None
    array, axes = np.asarray(table.array), "".join("t" if a in timed else "f" for a in range(len(table.shape)))
    rows = np.moveaxis(np.asarray(array, np.float64), timed[0], 0)
    stream = translator.builder.positional(rows, like.value, (array, axes))
    pooled = translator.builder.add("pool", [stream], kind=POOLED[call.kind])
    return _shaped(translator, Flow(pooled, "", ()), item.shape)


def _any_stream(translator: Surroundings) -> Flow | None:
    streams = [i for v in translator.listing.inputs.values() if isinstance(i := translator.lookup(v), Flow)]
    return next((i for i in streams if "t" in i.axes), None)


def _shaped(translator: Surroundings, flow: Flow, shape: tuple[int, ...]) -> Flow:
    value = translator.builder.reshape(flow.value, shape)
    assert isinstance(value, Value)
    return Flow(value, "f" * len(shape), shape)
