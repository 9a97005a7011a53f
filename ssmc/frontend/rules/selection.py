"""Features that are picked by computed places: sorting, one-hot reads and writes, running products."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ssmc.frontend.graph.contraction import einsum
from ssmc.frontend.graph.flow import Flow, Known, TimeMixing, Tracked, Unsupported, align, wrap
from ssmc.frontend.rules.context import Context, Rule, flow_of, known_of
from ssmc.frontend.rules.elementwise import binary, scalar
from ssmc.frontend.rules.reduction import plain, reduced
from ssmc.frontend.rules.shape import gather, gathered
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import text

MOST = 1 << 16  # pairs of features that are compared (ours)
WRITES = 64  # computed places that are written one after the other (ours)


def _top(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """The largest features in order and their places: a feature's rank is how many stand before it."""
    flow, builder = flow_of(items[0]), context.builder
    axis = int(call.attrs.get("axis", -1)) % len(flow.shape)
    if flow.axes[axis] != "f":
        raise TimeMixing("it sorts steps")
    told = known_of(items[1], "count") if len(items) > 1 else call.attrs["k"]
    count, size = int(np.asarray(told).reshape(-1)[0]), flow.shape[axis]
    _require_few(size * size)
    each, others = inserted(context, flow, axis + 1), inserted(context, flow, axis)
    first, second = (others, each) if call.attrs.get("largest", 1) else (each, others)
    behind = len(flow.shape) - axis - 1
    earlier = np.tri(size, k=-1).reshape(size, size, *[1] * behind)
    tied = binary(builder, "mul", binary(builder, "equal", each, others), Known(earlier))
    before = plain(binary(builder, "add", binary(builder, "greater", first, second), tied))
    rank = reduced(context, before, "sum", [axis + 1], True)
    places = np.arange(float(count)).reshape(count, *[1] * behind)
    chosen = binary(builder, "equal", rank, Known(places))  # (..., size, count, ...)
    numbers = np.arange(float(size)).reshape(size, *[1] * (behind + 1))
    return [_sum_where(context, chosen, of, axis) for of in (each, Known(numbers))]


def _sum_where(context: Context, chosen: Flow | Known, values: Flow | Known, axis: int) -> Tracked:
    """The one value along an axis that is chosen."""
    operands, axes, shape = align(context.builder, [chosen, values, scalar(0)])
    picked = wrap(context.builder.emit("select", operands), axes, shape)
    return reduced(context, plain(picked), "sum", [axis], False)


def inserted(context: Context, flow: Flow, at: int) -> Flow:
    """The flow with a feature axis of size one before axis `at`."""
    axes, shape = flow.axes[:at] + "f" + flow.axes[at:], (*flow.shape[:at], 1, *flow.shape[at:])
    wide = Flow(flow.value, axes, shape)
    return plain(wrap(context.builder.reshape(flow.value, wide.features), axes, shape))


def _require_few(pairs: int) -> None:
    if pairs > MOST:
        raise Unsupported(f"it compares {pairs} pairs of features (at most {MOST})")


def _picked(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """GatherElements along features, by places that are computed or not."""
    data, index = items
    axis = int(call.attrs.get("axis", 0)) % len(index.shape)
    if isinstance(data, Flow) and data.axes[axis] != "f":
        raise TimeMixing("it takes single steps")
    if any(d != e for i, (d, e) in enumerate(zip(data.shape, index.shape, strict=True)) if i != axis):
        raise Unsupported("it takes a part of other axes than the one of its places")
    size, behind = data.shape[axis], len(index.shape) - axis - 1
    _require_few(size * index.shape[axis])
    there = _one_hot(context, index, axis, size, behind)
    wide = inserted(context, data, axis + 1) if isinstance(data, Flow) else Known(np.expand_dims(data.array, axis + 1))
    return [_sum_where(context, there, wide, axis)]


def _gather(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """Entries of a feature axis at places that are computed and the same for all samples, as those of a ring."""
    data, index = items
    if not isinstance(data, Flow) or not isinstance(index, Flow):
        return gather(context, call, items)
    axis = int(call.attrs.get("axis", 0)) % len(data.shape)
    if data.axes[axis] != "f" or set(index.axes) - {"f"}:
        return gather(context, call, items)
    return [_entries(context, data, index, axis)]


def _entries(context: Context, data: Flow, index: Flow, axis: int) -> Tracked:
    """The entries of a feature axis at computed places, which all samples share; their axes take the place of it."""
    size, count = data.shape[axis], prod(index.shape)
    _require_few(size * count)
    flat = wrap(context.builder.reshape(index.value, (count,)), "f", (count,))
    there = _one_hot(context, flat, 0, size, 0)  # (size, count)
    letters = "abcdefgh"[: len(data.shape)]
    result = letters[:axis] + "z" + letters[axis + 1 :]
    found = einsum(context.builder, [letters, letters[axis] + "z"], result, [data, there])
    shape = (*data.shape[:axis], *index.shape, *data.shape[axis + 1 :])
    axes = data.axes[:axis] + index.axes + data.axes[axis + 1 :]
    features = tuple(d for d, a in zip(shape, axes, strict=True) if a == "f")
    return wrap(context.builder.reshape(flow_of(found).value, features), axes, shape)


def _gathered_rows(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """GatherND at places (..., 1) of a first axis: a Gather, as which `table[numbers]` is exported, and turned round
    `cache[..., places]`."""
    data, index = items
    if isinstance(data, Flow) and data.axes[0] != "f":
        raise TimeMixing("it brings several steps together")
    if index.shape[-1:] != (1,) or call.attrs.get("batch_dims", 0) or not isinstance(index, Flow):
        raise Unsupported("it looks up several axes at once")
    axes, shape = index.axes[:-1], index.shape[:-1]
    rows = plain(wrap(context.builder.reshape(index.value, index.features[:-1]), axes, shape))
    if isinstance(data, Known):
        return gather(context, call, [data, rows])
    if set(axes) - {"f"}:
        raise Unsupported("it picks features by places that are each step's own")
    return [_entries(context, data, rows, 0)]


def _one_hot(context: Context, index: Flow | Known, axis: int, size: int, behind: int) -> Flow | Known:
    """Where a place (..., count, ...) tells which of `size` features: (..., size, count, ...)."""
    builder = context.builder
    wide = (
        inserted(context, index, axis)
        if isinstance(index, Flow)
        else Known(np.expand_dims(np.asarray(index.array, np.float64), axis))
    )
    numbers = Known(np.arange(float(size)).reshape(size, *[1] * (behind + 1)))
    return binary(builder, "equal", _from_start(context, wide, size), numbers)


def computed_writes(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """ScatterElements along features to computed places: what is written last stays."""
    data, index, updates = items
    reduction, builder = text(call.attrs.get("reduction", "none")), context.builder
    axis = int(call.attrs.get("axis", 0)) % len(index.shape)
    if any(isinstance(item, Flow) and item.axes[axis] != "f" for item in items):
        raise TimeMixing("it writes to single steps")
    if reduction not in ("none", "add"):
        raise Unsupported(f"it writes by '{reduction}' to computed places")
    others = [i for i in range(len(index.shape)) if i != axis]
    if any(index.shape[i] != data.shape[i] or index.shape[i] != updates.shape[i] for i in others):
        raise Unsupported("it writes a part of other axes than the one of its places")
    beside = next((item.axes for item in (data, updates) if isinstance(item, Flow) and "b" in item.axes), "")
    if isinstance(index, Flow) and "b" in beside:
        index = _for_samples(context, index, beside.index("b"))
    size, count = data.shape[axis], index.shape[axis]
    if count > WRITES:
        raise Unsupported(f"it writes to {count} computed places (at most {WRITES})")
    _require_few(size * count)
    result: Flow | Known = data
    for k in range(count):
        place, value = (_entry(context, item, axis, k) for item in (index, updates))
        numbers = Known(np.arange(float(size)).reshape(size, *[1] * (len(index.shape) - axis - 1)))
        there = binary(builder, "equal", _from_start(context, place, size), numbers)
        new = value if reduction == "none" else binary(builder, "add", result, value)
        operands, axes, shape = align(builder, [there, new, result])
        result = wrap(builder.emit("select", operands), axes, shape)
    return [result]


def _for_samples(context: Context, index: Flow, at: int) -> Flow:
    """Places that were repeated along axis `at`, which is that of the samples in what they are places of: those of each
    sample. Exporters repeat the place in a ring, a number for all samples, to the shape of what is written."""
    graph = context.builder.graph
    if index.axes[at] != "f" or graph.node(index.value.node).op.name != "broadcast":
        return index
    (repeated,) = graph.operands(index.value.node)
    before = () if repeated is None else context.builder.features(repeated)
    if len(before) + index.from_right(at) >= 0 and before[index.from_right(at)] != 1:
        return index
    first = flow_of(_entry(context, index, at, 0))
    kept = tuple(d for i, (d, a) in enumerate(zip(index.shape, index.axes, strict=True)) if a == "f" and i != at)
    value = context.builder.reshape(first.value, kept)
    return plain(wrap(value, index.axes[:at] + "b" + index.axes[at + 1 :], index.shape))


def computed_rows(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """ScatterND of whole rows, along a first axis of features, to computed places that all samples share."""
    data, index, updates = items
    reduction, builder = text(call.attrs.get("reduction", "none")), context.builder
    rows = [item for item in (data, updates) if isinstance(item, Flow)]
    if index.shape[1:] != (1,) or set(index.axes) != {"f"} or any(item.axes[0] != "f" for item in rows):
        raise TimeMixing("it writes to single steps or samples at computed places")
    if reduction not in ("none", "add"):
        raise Unsupported(f"it writes by '{reduction}' to computed places")
    size, count = data.shape[0], index.shape[0]
    if count > WRITES:
        raise Unsupported(f"it writes to {count} computed places (at most {WRITES})")
    numbers = Known(np.arange(float(size)).reshape(size, *[1] * (len(data.shape) - 1)))
    result: Flow | Known = data
    for k in range(count):
        entry = _entry(context, index, 0, k)
        place = (
            wrap(builder.reshape(entry.value, ()), "", ()) if isinstance(entry, Flow) else scalar(entry.array.item())
        )
        there = binary(builder, "equal", _from_start(context, place, size), numbers)
        value = _entry(context, updates, 0, k)
        new = value if reduction == "none" else binary(builder, "add", result, value)
        operands, axes, shape = align(builder, [there, new, result])
        result = wrap(builder.emit("select", operands), axes, shape)
    return [result]


def _from_start(context: Context, place: Flow | Known, size: int) -> Flow | Known:
    """A place that may be counted from the end, counted from the start."""
    under = binary(context.builder, "mul", binary(context.builder, "greater", scalar(0), place), scalar(size))
    return binary(context.builder, "add", place, under)


def _entry(context: Context, item: Flow | Known, axis: int, k: int) -> Flow | Known:
    """Entry k of a feature axis, which stays."""
    if isinstance(item, Known):
        return Known(np.take(np.asarray(item.array, np.float64), [k], axis=axis))
    value = context.builder.slice(item.value, item.from_right(axis), k, k + 1)
    return wrap(value, item.axes, (*item.shape[:axis], 1, *item.shape[axis + 1 :]))


def _running_product(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """A cumulative product along features: products of twice as many each time."""
    flow, builder = flow_of(items[0]), context.builder
    axis = int(np.asarray(known_of(items[1], "axis")).reshape(-1)[0]) % len(flow.shape)
    if flow.axes[axis] != "f":
        raise TimeMixing("it brings several steps together")
    place, size, backward = flow.from_right(axis), flow.shape[axis], bool(call.attrs.get("reverse"))

    def moved(x: Any, lag: int) -> Any:
        kept = builder.slice(x, place, lag, None) if backward else builder.slice(x, place, 0, size - lag)
        ones = np.ones([lag if i == len(flow.features) + place else d for i, d in enumerate(flow.features)])
        return builder.concat([kept, ones] if backward else [ones, kept], place)

    y: Any = moved(flow.value, 1) if call.attrs.get("exclusive") and size > 1 else flow.value
    lag = 1
    while lag < size:
        y, lag = builder.binary("mul", y, moved(y, lag)), 2 * lag
    return [wrap(y, flow.axes, flow.shape)]


def _compressed(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """The entries of an axis where a constant says so."""
    flow, kept = flow_of(items[0]), np.flatnonzero(known_of(items[1], "condition"))
    if "axis" not in call.attrs:
        raise Unsupported("it flattens the batch")
    return [gathered(context, flow, int(call.attrs["axis"]) % len(flow.shape), kept)]


RULES: dict[str, Rule] = {
    "TopK": _top,
    "Gather": _gather,
    "GatherElements": _picked,
    "GatherND": _gathered_rows,
    "CumProd": _running_product,
    "Compress": _compressed,
}
