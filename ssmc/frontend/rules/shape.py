"""Ops that move numbers: their effect on feature axes is emitted, on batch and time only tracked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.findings import PART_OF_BATCH
from ssmc.frontend.graph.flow import (
    Flow,
    Known,
    Merged,
    TimeMixing,
    Tracked,
    Unsupported,
    is_stream,
    known_operand,
    wrap,
)
from ssmc.frontend.graph.joint import TOGETHER, apart
from ssmc.frontend.rules.batches import beside_samples
from ssmc.frontend.rules.context import Context, Rule, arrays_or_flows, flow_of, known_of
from ssmc.frontend.rules.regrouping import regrouped
from ssmc.frontend.rules.restored import restored
from ssmc.frontend.source.bounds import LEAST_ENDLESS
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import axes_of, reshape_target, slices_of, split_sizes
from ssmc.ir.graph import Value
from ssmc.ir.tensor import Tensor


def _transpose(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow = flow_of(items[0])
    order = list(call.attrs.get("perm", reversed(range(len(flow.shape)))))
    if sorted(order) != list(range(len(flow.shape))):
        raise Unsupported(f"it permutes axes {order} of {len(flow.shape)}")
    features = flow.feature_axes()
    permutation = [features.index(i) for i in order if i in features]
    value = context.builder.transpose(flow.value, permutation)
    return [wrap(value, "".join(flow.axes[i] for i in order), tuple(flow.shape[i] for i in order))]


def _reshape(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow = flow_of(items[0])
    wanted = known_of(items[1], "shape") if len(items) > 1 else call.attrs["shape"]
    target = reshape_target(flow.shape, [int(d) for d in wanted], bool(call.attrs.get("allowzero", 0)))
    return [reshaped(context, flow, target)]


def reshaped(context: Context, flow: Flow, target: tuple[int, ...]) -> Tracked:
    """A flow in another shape. Raises TimeMixing where batch or time do not come through."""
    if flow.axes.endswith("x"):  # groups of channels with their steps, see `rules.norms`
        inner = context.builder.features(flow.value)[flow.axes.count("f") :]
        wide = (*flow.shape[:-1], *inner, flow.shape[-1] // int(np.prod(inner)))
        flow = Flow(flow.value, flow.axes[:-1] + "f" * len(inner) + "t", wide)
    flow = apart(flow)
    axes, merged = regrouped(flow.axes, flow.shape, target)
    parts = iter(merged)
    kept = [
        ((d,) if a == "f" else ()) if a != TOGETHER else _features_of(next(parts))
        for d, a in zip(target, axes, strict=True)
    ]
    value = context.builder.reshape(flow.value, tuple(d for sizes in kept for d in sizes))
    if merged and isinstance(value, Value):
        return Flow(value, axes, target, tuple(merged))
    return wrap(value, axes, target)


def _features_of(merged: Merged) -> tuple[int, ...]:
    return tuple(d for a, d in zip(*merged, strict=True) if a == "f")


def _flatten(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow, axis = flow_of(items[0]), call.attrs.get("axis", 1)
    first = int(np.prod(flow.shape[:axis], dtype=np.int64))
    return [reshaped(context, flow, (first, int(np.prod(flow.shape[axis:], dtype=np.int64))))]


def _unsqueeze(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow = flow_of(items[0])
    axes = axes_of(arrays_or_flows(items), call.attrs, 1, ()) or []
    rank = len(flow.shape) + len(axes)
    new = {a % rank for a in axes}
    if len(new) < len(axes) or not new <= set(range(rank)):
        raise Unsupported(f"the axes {', '.join(map(str, axes))} are no {len(axes)} of the result's {rank}")
    old = iter(zip(flow.axes, flow.shape, strict=True))
    pairs = [("f", 1) if i in new else next(old) for i in range(rank)]
    return [_same_numbers(context, flow, "".join(a for a, _ in pairs), tuple(d for _, d in pairs))]


def _squeeze(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow = flow_of(items[0])
    axes = axes_of(arrays_or_flows(items), call.attrs, 1)
    rank = len(flow.shape)
    gone = (
        {i for i, d in enumerate(flow.shape) if d == 1 and flow.axes[i] == "f"}
        if axes is None
        else {a % rank for a in axes}
    )
    if any(flow.axes[i] == "t" for i in gone):
        raise TimeMixing("it removes the time axis")
    if any(flow.axes[i] == "b" for i in gone):
        raise Unsupported("it removes the batch axis")
    kept = [i for i in range(rank) if i not in gone]
    return [_same_numbers(context, flow, "".join(flow.axes[i] for i in kept), tuple(flow.shape[i] for i in kept))]


def _same_numbers(context: Context, flow: Flow, axes: str, shape: tuple[int, ...]) -> Tracked:
    features = tuple(d for d, a in zip(shape, axes, strict=True) if a == "f")
    return wrap(context.builder.reshape(flow.value, features), axes, shape)


def _concat(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flows = [item for item in items if isinstance(item, Flow)]
    axis = call.attrs["axis"] % len(flows[0].shape)
    labels = flows[0].axes
    for flow in flows[1:]:
        labels = "".join(
            b if a == "f" and b != "f" and i != axis else a
            for i, (a, b) in enumerate(zip(labels, flow.axes, strict=True))
        )
    streams = [flow for flow in flows if is_stream(context.builder, flow)]
    if any(flow.axes[axis] != "f" for flow in flows):
        label = next(flow.axes[axis] for flow in flows if flow.axes[axis] != "f")
        if label == "b" and all(
            isinstance(item, Flow) and (item.axes, item.shape) == (labels, flows[0].shape) for item in items
        ):
            return [beside_samples(context.builder, flows, axis)]
        whole = restored(context, items[:-1], items[-1], axis) if isinstance(items[-1], Flow) else None
        if whole is not None:
            return [whole]
        raise TimeMixing("it joins along time") if label == "t" else Unsupported("it joins along the batch")
    if any(flow.axes != labels for flow in flows):
        raise TimeMixing("it joins a sequence of steps with something else")
    parts: list[Any] = []
    for item in items:
        if isinstance(item, Flow):
            parts.append(item.value)
            continue
        array = np.asarray(item.array)
        if array.size:
            parts.append(known_operand(context.builder, array, labels, streams[0].value if streams else None))
    shape = list(flows[0].shape)
    shape[axis] = sum(item.shape[axis] for item in items)
    value = context.builder.concat(parts, flows[0].from_right(axis))
    return [wrap(value, labels, tuple(shape))]


def _split(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow = flow_of(items[0])
    axis = call.attrs.get("axis", 0) % len(flow.shape)
    require_feature(flow, axis, "it splits")
    sizes = split_sizes([flow, *arrays_or_flows(items[1:])], call.attrs, len(call.results))
    found: list[Tracked] = []
    start = 0
    for size in sizes:
        found.append(cut(context, flow, axis, start, start + size, 1))
        start += size
    return found


def require_feature(flow: Flow, axis: int, doing: str) -> None:
    """Raise unless an axis is one of features; `doing` says what is done to it."""
    if flow.axes[axis] == "t":
        raise TimeMixing(f"{doing} the time axis")
    if flow.axes[axis] == "b":
        raise Unsupported(f"{doing} the batch axis")


def cut(context: Context, flow: Flow, axis: int, start: int | None, stop: int | None, step: int) -> Tracked:
    """Entries `start` to `stop` of a feature axis."""
    size = len(range(flow.shape[axis])[slice(start, stop, step)])
    shape = (*flow.shape[:axis], size, *flow.shape[axis + 1 :])
    if size == 0:
        return Known(np.zeros(shape))
    value = context.builder.slice(flow.value, flow.from_right(axis), start, stop, step)
    return wrap(value, flow.axes, shape)


def _slice(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow: Tracked = flow_of(items[0])
    for k, item in enumerate(items[1:]):
        known_of(item, ("starts", "ends", "axes", "steps")[k]) if item is not None else None
    for axis, part in slices_of(arrays_or_flows(items), call.attrs, len(items[0].shape)):
        if not isinstance(flow, Flow):
            break
        chosen = range(flow.shape[axis])[part]
        if chosen == range(flow.shape[axis]):
            if context.dynamic and flow.axes[axis] == "t":  # of more steps it may be a part
                ends = (-end if end < 0 else end for end in (part.start, part.stop) if end is not None)
                context.findings.cuts |= {end for end in ends if flow.shape[axis] < end < LEAST_ENDLESS}
            continue
        if flow.axes[axis] == "t":
            flow = _steps(context, flow, axis, chosen)
        elif flow.axes[axis] == "b":
            raise Unsupported(PART_OF_BATCH)
        else:
            flow = _entries(context, flow, axis, chosen)
    return [flow]


def _entries(context: Context, flow: Flow, axis: int, chosen: range) -> Tracked:
    """Entries of a feature axis by their numbers."""
    if len(chosen) < 2:
        return cut(context, flow, axis, first := chosen[0] if chosen else 0, first + len(chosen), 1)
    return cut(context, flow, axis, chosen.start, None if chosen.stop < 0 else chosen.stop, chosen.step)


def _steps(context: Context, flow: Flow, axis: int, chosen: range) -> Tracked:
    """Some steps of a stream: all of them backwards, the first or the last one, or every n-th."""
    length, builder = flow.shape[axis], context.builder
    if chosen == range(length)[::-1]:
        return Flow(builder.reverse(flow.value), flow.axes, flow.shape)
    if len(chosen) == 1 and chosen[0] in (0, length - 1) and length > 1:
        pooled = builder.add("pool", [flow.value], kind="last" if chosen[0] else "first")
        features = tuple(
            1 if i == axis else d for i, (d, a) in enumerate(zip(flow.shape, flow.axes, strict=True)) if a != "b"
        )
        axes = flow.axes[:axis] + "f" + flow.axes[axis + 1 :]
        shape = (*flow.shape[:axis], 1, *flow.shape[axis + 1 :])
        return wrap(builder.reshape(pooled, features), axes, shape)
    if chosen.step > 1 and len(chosen) == len(range(chosen.start, length, chosen.step)) and chosen.start < chosen.step:
        value = builder.add("downsample", [flow.value], stride=chosen.step, kind="take", offset=chosen.start)
        return wrap(value, flow.axes, (*flow.shape[:axis], len(chosen), *flow.shape[axis + 1 :]))
    raise TimeMixing(f"it takes steps {chosen.start} to {chosen.stop} of {length}")


BY_LENGTHS = (
    "it reverses every sequence by its own length and leaves the padding behind it, as bidirectional layers over "
    "padded batches do; the targets turn all steps round, or none. Export it for batches of one length (x.flip(1)), "
    "or give it the reversed stream as an input of its own"
)


def _reverse_sequence(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """An axis backwards, where no sequence ends before it does."""
    flow = flow_of(items[0])
    axis = int(call.attrs.get("time_axis", 0)) % len(flow.shape)
    if not isinstance(items[1], Known) and flow.axes[axis] == "t":
        raise Unsupported(BY_LENGTHS)
    ends, size = np.asarray(known_of(items[1], "sequence_lens")), flow.shape[axis]
    count = flow.shape[int(call.attrs.get("batch_axis", 1))]
    if ends.shape != (count,):
        raise Unsupported(f"it is given {ends.size} lengths, one for each sequence, of {count} sequences")
    if bool((ends != size).any()):
        where = "steps" if flow.axes[axis] == "t" else "entries"
        raise Unsupported(f"it turns the first {int(ends.min())} of {size} {where} round and leaves the others")
    if flow.axes[axis] == "t":
        return [_steps(context, flow, axis, range(size)[::-1])]
    require_feature(flow, axis, "it turns round")
    return [cut(context, flow, axis, None, None, -1)]


def gather(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """Entries at constant places, or rows of a constant table. Raises TimeMixing for computed places of a flow."""
    source, index = items
    if isinstance(source, Known):
        return [_looked_up(context, source, flow_of(index), call.attrs.get("axis", 0) % source.array.ndim)]
    flow = flow_of(source)
    axis = call.attrs.get("axis", 0) % len(flow.shape)
    if isinstance(index, Flow):
        raise TimeMixing("it picks entries by a computed index")
    return [gathered(context, flow, axis, np.asarray(index.array).astype(np.int64))]


def gathered(context: Context, flow: Flow, axis: int, position: Any) -> Tracked:
    """Entries of an axis, at constant places."""
    size = flow.shape[axis]
    position = np.where(position < 0, position + size, position)
    shape = (*flow.shape[:axis], *position.shape, *flow.shape[axis + 1 :])
    if flow.axes[axis] == "t":
        return _gathered_steps(context, flow, axis, position, shape)
    if flow.axes[axis] == "b":
        if position.ndim == 1 and np.array_equal(position, np.arange(size)):
            return flow
        raise Unsupported(PART_OF_BATCH)
    axes = flow.axes[:axis] + "f" * position.ndim + flow.axes[axis + 1 :]
    flat = position if position.ndim <= 1 else position.reshape(-1)
    value = context.builder.emit("take", [flow.value], axis=flow.from_right(axis), index=Tensor(flat))
    features = tuple(d for d, a in zip(shape, axes, strict=True) if a == "f")
    return wrap(context.builder.reshape(value, features), axes, shape)


def _gathered_steps(context: Context, flow: Flow, axis: int, position: Any, shape: tuple[int, ...]) -> Tracked:
    length = flow.shape[axis]
    if position.ndim == 1 and np.array_equal(position, np.arange(length)[::-1]):
        return Flow(context.builder.reverse(flow.value), flow.axes, flow.shape)
    if position.size == 1 and int(position.reshape(-1)[0]) in (0, length - 1) and length > 1:
        pooled = _steps(context, flow, axis, range(int(position.reshape(-1)[0]), int(position.reshape(-1)[0]) + 1))
        assert isinstance(pooled, Flow)
        axes = flow.axes[:axis] + "f" * position.ndim + flow.axes[axis + 1 :]
        return _same_numbers(context, pooled, axes, shape)
    raise TimeMixing("it takes single steps")


def embedded(context: Context, table: Known, index: Flow) -> Tracked:
    """Rows of a table by a computed index."""
    array = np.asarray(table.stored)
    rows = array.reshape(len(array), -1)
    value = context.builder.emit(
        "embed", [index.value], table=Tensor(rows if rows.dtype.kind == "f" else rows.astype(np.float64))
    )
    axes, shape = index.axes + "f" * (array.ndim - 1), (*index.shape, *array.shape[1:])
    features = tuple(d for d, a in zip(shape, axes, strict=True) if a == "f")
    return wrap(context.builder.reshape(value, features), axes, shape)


def _looked_up(context: Context, table: Known, index: Flow, axis: int) -> Tracked:
    """Entries of an axis of a constant table by a computed index, whose axes take the place of it."""
    if axis == 0:
        return embedded(context, table, index)
    array = np.asarray(table.stored)
    rows = embedded(context, Known(np.moveaxis(array, axis, 0)), index)
    assert isinstance(rows, Flow)
    count = index.axes.count("f")
    own, before, behind = range(count), range(count, count + axis), range(count + axis, count + array.ndim - 1)
    value = context.builder.transpose(rows.value, [*before, *own, *behind])
    axes, shape = (
        "f" * axis + index.axes + "f" * len(behind),
        array.shape[:axis] + index.shape + array.shape[axis + 1 :],
    )
    return wrap(value, axes, tuple(shape))


def _expand(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow = flow_of(items[0])
    target = tuple(int(d) for d in np.broadcast_shapes(flow.shape, tuple(known_of(items[1], "shape"))))
    return [_expanded(context, flow, target)]


def _expanded(context: Context, flow: Flow, target: tuple[int, ...]) -> Tracked:
    axes = "f" * (len(target) - len(flow.shape)) + flow.axes
    features = tuple(d for d, a in zip(target, axes, strict=True) if a == "f")
    if any(
        a != "f" and d != target[i + len(target) - len(flow.shape)]
        for i, (a, d) in enumerate(zip(flow.axes, flow.shape, strict=True))
    ):
        raise Unsupported("it repeats the batch or the time axis")
    return wrap(context.builder.broadcast(flow.value, features), axes, target)


def _tile(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow: Tracked = flow_of(items[0])
    for axis, count in enumerate(int(r) for r in known_of(items[1], "repeats")):
        if count == 1:
            continue
        assert isinstance(flow, Flow)
        require_feature(flow, axis, "it repeats")
        shape = (*flow.shape[:axis], flow.shape[axis] * count, *flow.shape[axis + 1 :])
        value = context.builder.concat([flow.value] * count, flow.from_right(axis))
        flow = wrap(value, flow.axes, shape)
    return [flow]


def _shape_of(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow = flow_of(items[0])
    if call.kind == "Size":
        return [Known(np.asarray(int(np.prod(flow.shape, dtype=np.int64))))]
    return [Known(np.asarray(flow.shape[slice(call.attrs.get("start", 0), call.attrs.get("end"))], np.int64))]


RULES: dict[str, Rule] = {
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "ReverseSequence": _reverse_sequence,
    "Expand": _expand,
    "Tile": _tile,
    "Shape": _shape_of,
    "Size": _shape_of,
}
