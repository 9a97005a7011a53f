"""Streams without their first steps that get these back: `concat([first, seg[1:] != seg[:-1]])`, or padding in front.

What is computed of the steps behind the first ones is computed of all steps; at the first ones stands what the file
puts there. So segments begin (a state is reset where its sequence's number changes), and tokens are shifted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.graph.builder import PER_STEP, Builder, Operand
from ssmc.frontend.graph.flow import Flow, Known, Tracked, is_stream, known_operand, wrap
from ssmc.frontend.rules.context import Context
from ssmc.ir.graph import Value
from ssmc.ir.op import Op
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
    if whole is None or all(_is_linear(builder.graph.op(value.node)) for value in way):
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
    shape = (*flow.shape[:axis], flow.shape[axis] + missing, *flow.shape[axis + 1 :])
    return wrap(found, flow.axes, shape)


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
