"""What a Loop's body computes from the number of its step alone: known at every trip before anything is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.findings import PICKED_ELSEWHERE
from ssmc.frontend.graph.flow import Flow, Known, Tick, Tracked, Unsupported, is_stream, known_operand
from ssmc.frontend.rules.restored import whole_stream
from ssmc.frontend.source.evaluate import run_call
from ssmc.frontend.source.listing import Call
from ssmc.ir.op import Array

if TYPE_CHECKING:
    from ssmc.frontend.translator import Translator

# Ops whose result has the elements of their first operand (all operands of Concat), in other places.
PLACING = frozenset(
    ["Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Slice", "Expand", "Tile"]
)
ELEMENTWISE = frozenset(
    ["Add", "Sub", "Mul", "Div", "Neg", "Abs", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "Not"]
) | frozenset(
    ["And", "Or", "Where", "Max", "Min", "Mod", "Cast", "Exp", "Log", "Pow", "Sqrt", "Reciprocal", "Floor", "Ceil"]
)


LATE = "start the loop at step 0, or compute the gates and drives of all steps in front of it"
LONGEST = 2048  # trips that what follows from their number is known for, where a run may have more or fewer (ours)


def tick_of(values: Array, trips: int) -> Tick | Known:
    """Values (trips or more, ...) of every trip: a constant where they are all the same."""
    return Known(values[0]) if bool((values == values[:1]).all()) else Tick(values, trips)


def counted_on(values: Array, trips: int) -> Array:
    """The values of a counter at more trips than it was run for, if it goes on as it began; else as they are."""
    steps = np.diff(values, axis=0)
    if len(values) >= trips or values.dtype.kind not in "iu" or not len(steps) or np.any(steps != steps[0]):
        return values
    more = np.arange(trips).reshape(-1, *(1,) * (values.ndim - 1))
    return np.asarray(values[0] + more * steps[0], values.dtype)


def apply_tick(translator: Translator, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """A node with what depends on the step number among its operands. Raises Unsupported where it cannot be said."""
    if call.kind in ("Gather", "Slice") and isinstance(items[0], Flow):
        return [_picked(translator, call, items)]
    if call.kind == "If":
        # Its condition is another one: where that of the step decides, it was made a Where.
        return translator.meanings.control["If"](translator, call, items)
    if any(isinstance(item, Flow) for item in items):
        streams = (i.value for i in items if isinstance(i, Flow) and is_stream(translator.builder, i))
        like = next(streams, translator.stream)
        return translator.apply(call, [_stream(translator, i, like) if isinstance(i, Tick) else i for i in items])
    if call.kind in ("Shape", "Size"):
        return [Known(a) for a in run_call(call, [np.empty(items[0].shape)])]
    ticks = [item for item in items if isinstance(item, Tick)]
    trips, rows = ticks[0].trips, min(len(tick.values) for tick in ticks)
    arrays: list[Any] = [
        item.values[:rows] if isinstance(item, Tick) else None if item is None else item.stored for item in items
    ]
    moving = [isinstance(item, Tick) for item in items]
    if call.kind in ELEMENTWISE:
        results = run_call(call, _lined_up(arrays, moving))
    elif call.kind in PLACING and (call.kind == "Concat" or not any(moving[1:])):
        results = [_placed(call, arrays, moving)]
    else:
        found = _trip_by_trip(call, arrays, moving, trips, rows)
        results = [_stacked([row[j] for row in found]) for j in range(len(found[0]))]
    return [tick_of(np.asarray(array), trips) for array in results]


def _trip_by_trip(
    call: Call, arrays: Sequence[Any], moving: Sequence[bool], trips: int, rows: int
) -> list[Sequence[Any]]:
    """Results of a node at every trip, and at as many more as it runs for, as where it looks up a table that ends."""
    found: list[Sequence[Any]] = []
    for k in range(rows):
        try:
            found.append(run_call(call, [a[k] if moves else a for a, moves in zip(arrays, moving, strict=True)]))
        except UserError:
            if k < trips:
                raise
            break
        if k >= trips and [np.shape(a) for a in found[-1]] != [np.shape(a) for a in found[0]]:
            del found[-1]  # a slice beyond the end of a table is empty
            break
    return found


def _stacked(rows: Sequence[Array]) -> Array:
    if len({np.shape(row) for row in rows}) > 1:
        raise Unsupported("the shape of its result changes with the number of the step")
    return np.stack(rows)


def _lined_up(arrays: Sequence[Any], moving: Sequence[bool]) -> list[Any]:
    """The operands with the trips as their first axis, so that they broadcast."""
    ranks = [np.ndim(a) - moves for a, moves in zip(arrays, moving, strict=True)]
    return [
        None if a is None else np.reshape(a, (*np.shape(a)[:moves], *(1,) * (max(ranks) - rank), *np.shape(a)[moves:]))
        for a, moves, rank in zip(arrays, moving, ranks, strict=True)
    ]


def _placed(call: Call, arrays: Sequence[Any], moving: Sequence[bool]) -> Array:
    """Where every element of the result is from is found once, for all trips."""
    count = len(arrays) if call.kind == "Concat" else 1
    trips = len(next(a for a, moves in zip(arrays, moving, strict=True) if moves))
    columns, places, start = [], [], 0
    for array, moves in zip(arrays[:count], moving, strict=False):
        rows = array if moves else np.broadcast_to(array, (trips, *np.shape(array)))
        size = int(np.prod(rows.shape[1:]))
        columns.append(rows.reshape(trips, size))
        places.append(np.arange(start, start + size).reshape(rows.shape[1:]))
        start += size
    where = np.asarray(run_call(call, [*places, *arrays[count:]])[0])
    return np.concatenate(columns, axis=1)[:, where]


def _stream(translator: Translator, tick: Tick, like: Any) -> Flow:
    """The values of all trips as a stream that a counter looks up."""
    if like is None:
        raise Unsupported("it computes with the number of the step where no stream is")
    values = np.asarray(tick.values, np.float64)
    labels = "t" + "f" * (values.ndim - 1)
    found = known_operand(translator.builder, values, labels, like)
    return Flow(found, labels[1:], values.shape[1:])  # type: ignore[arg-type]


def _picked(translator: Translator, call: Call, items: Sequence[Any]) -> Tracked:
    """The present step of a whole sequence."""
    flow: Flow = items[0]
    if call.kind == "Gather" and _turns(call, flow, items[1]):
        (found,) = translator.apply(call, [flow, _stream(translator, items[1], translator.stream or flow.value)])
        return found
    items = [replace(i, values=i.values[: i.trips]) if isinstance(i, Tick) else i for i in items]
    if call.kind == "Gather":
        if not isinstance(items[1], Tick):
            raise Unsupported("it picks by the step number in a way that is not understood")
        axis, kept = int(call.attrs.get("axis", 0)) % len(flow.shape), len(items[1].shape)
        if int(np.prod(items[1].shape)) != 1:
            raise Unsupported("it takes more than the present step")
        return _at_step(translator, flow, axis, kept, items[1].values.reshape(len(items[1].values)))
    trips = len(next(item.values for item in items if isinstance(item, Tick)))
    starts, ends = (_rows(items[k], trips) for k in (1, 2))
    axes = range(starts.shape[1]) if len(items) < 4 or items[3] is None else _rows(items[3], 1)[0]
    steps = [1] * starts.shape[1] if len(items) < 5 or items[4] is None else [int(s) for s in _rows(items[4], 1)[0]]
    found = flow
    for k, place in enumerate(axes):
        axis = int(place) % len(flow.shape)
        taken = [range(flow.shape[axis])[slice(a, b, steps[k])] for a, b in zip(starts[:, k], ends[:, k], strict=True)]
        if bool((starts[:, k] == starts[0, k]).all()) and all(part == taken[0] for part in taken):
            if len(taken[0]) != flow.shape[axis]:
                raise Unsupported("it takes a part of each step")
            continue
        if flow.axes[axis] != "t" or any(len(part) != 1 for part in taken):
            raise Unsupported("it takes more than the present step")
        found = _at_step(translator, flow, axis, 1, np.asarray([part[0] for part in taken]))
    return found


def _turns(call: Call, flow: Flow, index: Any) -> bool:
    """Are places in each step picked in turn, as in a ring: the same ones again after some trips?"""
    axis = int(call.attrs.get("axis", 0)) % len(flow.shape)
    if not isinstance(index, Tick) or flow.axes[axis] != "f" or index.values.size == 0:
        return False
    first = index.values.reshape(len(index.values), -1)[:, 0]
    return len(np.unique(first)) <= flow.shape[axis] < len(first)


def _rows(item: Any, trips: int) -> Array:
    """One-dimensional integers of every trip."""
    if isinstance(item, Tick):
        return item.values.reshape(len(item.values), -1)
    if not isinstance(item, Known):
        raise Unsupported("it picks by something that is not known")
    return np.broadcast_to(np.asarray(item.array, np.int64).reshape(1, -1), (trips, np.size(item.array)))


def _at_step(translator: Translator, flow: Flow, axis: int, kept: int, numbers: Array) -> Flow:
    """One index of an axis, index `numbers[k]` at trip k; `kept` axes of size one stand in its place."""
    if flow.axes[axis] != "t":
        raise Unsupported(PICKED_ELSEWHERE)
    length, trips = flow.shape[axis], np.arange(len(numbers))
    before = translator.lead == 1 and np.array_equal(numbers, trips - 1)
    numbers = np.where(numbers < 0, numbers + length, numbers)
    if np.array_equal(numbers, trips) and length == len(trips):
        value = flow.value
    elif np.array_equal(numbers, length - 1 - trips) and length == len(trips):
        value = translator.builder.reverse(flow.value)
    elif before and length == len(trips):
        value = translator.builder.add("delay", [flow.value], steps=1)
    elif before and length == len(trips) - 1 and (whole := whole_stream(translator.builder, flow.value, 1)) is not None:
        value = whole
    else:
        what = ", ".join(str(int(n)) for n in numbers[:3])
        late = numbers[0] > 0 and np.array_equal(numbers, trips + numbers[0])
        more = f" ({LATE})" if late else ""
        raise Unsupported(f"it takes the steps {what}, ... of {length}, not the present one{more}")
    shape = (*flow.shape[:axis], *(1,) * kept, *flow.shape[axis + 1 :])
    labels = flow.axes[:axis] + "f" * kept + flow.axes[axis + 1 :]
    features = tuple(d for d, a in zip(shape, labels, strict=True) if a == "f")
    return Flow(translator.builder.reshape(value, features), labels, shape)  # type: ignore[arg-type]
