"""Writes into a tensor at constant places, where they stay within a sample and a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, TimeMixing, Tracked, is_stream, known_operand, wrap
from ssmc.frontend.rules.context import Context, Rule
from ssmc.frontend.rules.selection import computed_rows, computed_writes
from ssmc.frontend.source.evaluate import run_call
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import text
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor

TOGETHER = "it brings several steps together"


def _scatter(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """The op itself, run on the numbers of features, says which of them each of the result is.

    Raises TimeMixing where the places are computed, or where a sample or step gets what is another's.
    """
    data, index, updates = items
    if call.kind == "ScatterElements" and isinstance(index, Flow):
        return computed_writes(context, call, items)
    if call.kind == "ScatterND" and isinstance(index, Flow):
        return computed_rows(context, call, items)
    if text(call.attrs.get("reduction", "none")) != "none" or not isinstance(index, Known):
        raise TimeMixing(TOGETHER)
    axes = data.axes if isinstance(data, Flow) else _axes_like(data, updates)
    written = updates.axes if isinstance(updates, Flow) else _axes_like(updates, data)
    if set(axes + written) - set("btf"):
        raise TimeMixing(TOGETHER)
    own, count = _numbered(axes, data.shape, 0)
    new, places = _numbered(written, updates.shape, count)
    cell, other = _cells(axes, data.shape), _cells(written, updates.shape)
    (mapped,) = run_call(call, [own + places * cell, index.array.astype(np.int64), new + places * other])
    if np.any(mapped // places != cell):
        raise TimeMixing(TOGETHER)
    features = [i for i, a in enumerate(axes) if a == "f"]
    found = np.moveaxis(mapped % places, features, range(-len(features), 0)) if features else mapped % places
    found = found.reshape(-1, *(_features(axes, data.shape)))
    if np.any(found != found[0]):
        raise TimeMixing("it writes to other places at every step")
    stream = next((f.value for f in (data, updates) if isinstance(f, Flow) and is_stream(context.builder, f)), None)
    parts = [_flat(context, data, axes, stream), _flat(context, updates, written, stream)]
    joined = context.builder.concat(parts, -1)
    value = context.builder.emit("take", [joined], axis=-1, index=Tensor(found[0].reshape(-1).astype(np.int64)))
    return [wrap(context.builder.reshape(value, found.shape[1:]), axes, data.shape)]


def _features(axes: str, shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(d for d, a in zip(shape, axes, strict=True) if a == "f")


def _axes_like(known: Known, flow: Any) -> str:
    """The axes of a constant that is of a flow's shape, but for features."""
    if not isinstance(flow, Flow) or len(known.shape) != len(flow.shape):
        raise TimeMixing(TOGETHER)
    if any(a != "f" and d != e for a, d, e in zip(flow.axes, flow.shape, known.shape, strict=True)):
        raise TimeMixing(TOGETHER)
    return flow.axes


def _numbered(axes: str, shape: Sequence[int], first: int) -> tuple[Array, int]:
    """The number of the feature that an element is, counted from `first`; and the next number."""
    count = int(np.prod(_features(axes, shape), dtype=np.int64))
    numbers = np.arange(first, first + count).reshape([d if a == "f" else 1 for d, a in zip(shape, axes, strict=True)])
    return np.array(np.broadcast_to(numbers, shape)), first + count


def _cells(axes: str, shape: Sequence[int]) -> Array:
    """The number of the sample and step that an element belongs to, the same for every tensor with these axes."""
    cell = np.zeros(shape, np.int64)
    for letter in "bt":
        if letter in axes:
            axis = axes.index(letter)
            numbers = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
            cell = cell * 2**20 + 1 + numbers
    return cell


def _flat(context: Context, item: Any, axes: str, stream: Any) -> Any:
    """A flow or a constant, its features in one axis."""
    count = int(np.prod(_features(axes, item.shape), dtype=np.int64))
    value = (
        item.value if isinstance(item, Flow) else known_operand(context.builder, np.asarray(item.array), axes, stream)
    )
    return np.reshape(value, count) if isinstance(value, np.ndarray) else context.builder.reshape(value, (count,))


RULES: dict[str, Rule] = {"ScatterElements": _scatter, "ScatterND": _scatter}
