"""Streams without their first steps that get these back: `concat([first, seg[1:] != seg[:-1]])`, or padding in front.

What is computed of the steps behind the first ones is computed of all steps; at the first ones stands what the file
puts there. So segments begin (a state is reset where its sequence's number changes), and tokens are shifted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.graph.builder import COUNTER, PER_STEP, Builder, Operand, features_of
from ssmc.frontend.graph.flow import Flow, Known, Tracked, is_stream, known_operand, wrap
from ssmc.frontend.rules.context import Context
from ssmc.ir.graph import Value
from ssmc.ir.op import Op
from ssmc.ir.tensor import Tensor
from ssmc.ir.types import StreamType

MOST = 8  # steps that are put in front one by one (ours)
LINEAR = frozenset(["downsample", "delay", "take", "slice", "reshape", "transpose", "broadcast", "concat", "linear"])


def restored(context: Context, front: Sequence[Any], flow: Flow, axis: int) -> Tracked | None:
    """The stream `flow`, which lacks its first steps, behind the tensors `front` along its time axis.

    None where it lacks another number of them, or a step of it is made of more than itself; and where it is linear, for
    which a region has fewer words and, with first steps of the same stream, no need of another sweep.
    """
    builder, missing = context.builder, sum(item.shape[axis] for item in front)
    if flow.axes[axis] != "t" or not is_stream(builder, flow) or not 0 < missing <= MOST:
        return None
    way: dict[Value, Value | None] = {}
    whole = _whole(builder, flow.value, missing, way)
    if whole is None:
        return None
    shape = (*flow.shape[:axis], flow.shape[axis] + missing, *flow.shape[axis + 1 :])
    if missing == 1 and isinstance(front[0], Flow) and _is_first_of(builder, front[0].value, whole):
        return wrap(whole, flow.axes, shape)
    if all(_is_linear(builder.graph.op(value.node)) for value in way):
        return None
    found: Operand = whole
    number, step = builder.steps(whole), 0
    for item in front:
        for k in range(item.shape[axis]):
            first = _entry(builder, item, axis, k, flow.axes)
            if first is None:
                return None
            here = builder.reshape(builder.binary("equal", number, np.full((), float(step))), (1,) * len(flow.features))
            found = builder.emit("select", [here, builder.broadcast(first, flow.features), found])
            step += 1
    return wrap(found, flow.axes, shape)


def _is_first_of(builder: Builder, value: Value, stream: Value) -> bool:
    """Is a value made from first steps as the first step of a stream is, which may choose it by the step's number?"""
    graph = builder.graph
    value, stream = _laid_from(builder, value), _laid_from(builder, stream)
    first, step = graph.node(value.node), graph.node(stream.node)
    if value == stream:
        return step.op.name == "constant"
    if step.op.name == "constant":
        return _is_same(first.op, step.op)
    if step.op.name == "select" and _is_first_step(builder, graph.operands(stream.node)[0]):
        return _is_first_of(builder, value, graph.operands(stream.node)[1])  # type: ignore[arg-type]
    if step.op.name == "recurrence" and stream.index == 0 and not step.op["read_before"]:
        _, drive, *start = graph.operands(stream.node)
        return drive is not None and start in ([], [None]) and _is_first_of(builder, value, drive)
    if first.op.name == "pool" and first.op["kind"] == "first":
        return _laid_from(builder, graph.operands(value.node)[0]) == stream  # type: ignore[arg-type]
    if not _is_same(first.op, step.op) or value.index != stream.index or step.op.name not in PER_STEP:
        return False
    return all(
        a == b
        or (
            (a is not None and b is not None and features_of(graph, a) == features_of(graph, b))
            and _is_first_of(builder, a, b)
        )
        for a, b in zip(graph.operands(value.node), graph.operands(stream.node), strict=True)
    )


def _is_same(op: Op, other: Op) -> bool:
    """Do two ops do the same?"""
    if op.name != other.name or op.attrs.keys() != other.attrs.keys():
        return False
    pairs = ((mine, other.attrs[key]) for key, mine in op.attrs.items())
    return all(
        np.array_equal(a.array, b.array) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
        for a, b in pairs
    )


def _laid_from(builder: Builder, value: Value) -> Value:
    """A value before it was given another shape."""
    while builder.graph.op(value.node).name == "reshape":
        value = builder.graph.operands(value.node)[0]  # type: ignore[assignment]
    return value


def _is_first_step(builder: Builder, value: Value | None) -> bool:
    """Is a value true in the first step and nowhere else?"""
    graph = builder.graph
    if value is None or (op := graph.op((value := _laid_from(builder, value)).node)).name != "binary":
        return False
    number, zero = (None if v is None else _laid_from(builder, v) for v in graph.operands(value.node))
    if op["fn"] != "equal" or number is None or zero is None or graph.op(zero.node).name != "constant":
        return False
    counts = graph.op(number.node)
    return not np.any(graph.op(zero.node)["value"].array) and counts.name == "ssm" and counts["system"] is COUNTER


def _is_linear(op: Op) -> bool:
    return op.name in LINEAR or (op.name == "binary" and op["fn"] in ("add", "sub"))


def _entry(builder: Builder, item: Any, axis: int, number: int, axes: str) -> Operand | None:
    """What a tensor in front of the stream has at one of its places along time."""
    if isinstance(item, Known):
        array = np.take(np.asarray(item.array), [number], axis=axis)
        return known_operand(builder, array, axes)
    expected = axes[:axis] + "f" + axes[axis + 1 :]
    if not isinstance(item, Flow) or item.axes != expected or is_stream(builder, item):
        return None
    features = tuple(d for i, (d, a) in enumerate(zip(item.shape, item.axes, strict=True)) if a == "f" and i != axis)
    one = builder.slice(item.value, item.from_right(axis), number, number + 1)
    return builder.reshape(one, features)


def whole_stream(builder: Builder, value: Value, missing: int) -> Value | None:
    """The stream of which `value` is all but the first `missing` steps; None where it cannot be told."""
    return _whole(builder, value, missing, {})


def _whole(builder: Builder, value: Value, missing: int, known: dict[Value, Value | None]) -> Value | None:
    """The stream of which `value` is all but the first steps, as far as each step is computed by itself."""
    if value in known:
        return known[value]
    known[value] = None
    graph, node = builder.graph, builder.graph.node(value.node)
    op, operands = node.op, graph.operands(value.node)
    if op.name == "downsample" and (op["kind"], op["stride"], op["offset"]) == ("take", 1, missing):
        known[value] = operands[0]
    elif op.name in PER_STEP or op.name == "spread":
        inner: list[Value | None] = []
        for operand in operands:
            changes = operand is not None and isinstance(graph.type(operand), StreamType)
            inner.append(_whole(builder, operand, missing, known) if operand is not None and changes else operand)
            if changes and inner[-1] is None:
                return None
        found = graph.add(op, inner, provenance=node.provenance)
        known[value] = Value(found.node, value.index)
    return known[value]
