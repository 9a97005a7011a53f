"""Values of a sequence that are meant step by step: masks made of lengths, tables of positions, the step that a number
tells."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, TimeMixing, Tracked, Unsupported, counted_samples, wrap
from ssmc.frontend.rules.context import Surroundings, arrays_or_flows
from ssmc.frontend.rules.elementwise import binary
from ssmc.frontend.rules.least import least
from ssmc.frontend.rules.shape import cut, require_feature
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import axes_of
from ssmc.ir.graph import Value

COMPARISONS = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "And", "Or", "Not")
ARITHMETIC = ("Mul", "Add", "Sub", "Div", "Where", "Neg", "Exp", "Clip", "Sigmoid", "Min", "Max")
POINTWISE = frozenset([*COMPARISONS, *ARITHMETIC, "Cast", "Identity", "Unsqueeze"])


def as_stream(translator: Surroundings, value: Value, behind: int, stream: Flow) -> Flow | Known:
    """A value whose axis so far from the right is time, as a stream where it differs from step to step."""
    item, steps = translator.lookup(value), stream.shape[stream.axes.index("t")]
    if not isinstance(item, Flow | Known):
        raise Unsupported("it mixes time")
    at = len(item.shape) - behind
    if at < 0 or item.shape[at] != steps or (isinstance(item, Flow) and item.axes[at] == "t"):
        return item
    if isinstance(item, Known):
        table = np.moveaxis(np.asarray(item.array, np.float64), at, 0)
        axes = "f" * at + "t" + "f" * (behind - 1)
        source = np.asarray(item.array), axes
        return Flow(translator.builder.positional(table, stream.value, source), axes, item.shape)
    call = translator.listing.producer.get(value)
    if call is None or call.kind not in POINTWISE:
        raise TimeMixing("a feature axis meets the time axis")
    operands = [v for v in call.operands if v is not None]
    if call.kind == "Unsqueeze":
        inner = behind - _new_behind(translator, call, len(item.shape), at)
        timed = [as_stream(translator, operands[0], inner, stream), *map(translator.lookup, operands[1:])]
    else:
        timed = [as_stream(translator, v, behind, stream) for v in operands]
    found = translator.apply(call, timed)[0]
    assert isinstance(found, Flow)
    return found


def in_time(translator: Surroundings, call: Call, item: Flow, axes: Sequence[int]) -> Flow:
    """A value of a sequence that is to be reduced over as many features as there are steps, counted by the file itself:
    the stream that it is."""
    streams = [i for v in translator.listing.inputs.values() if isinstance(i := translator.lookup(v), Flow)]
    stream = next((i for i in streams if "t" in i.axes), None)
    value = call.operands[0]
    if stream is None or value is None or translator.in_step or "t" in item.axes:
        return item
    for axis in axes:
        behind = len(item.shape) - axis % len(item.shape)
        if item.shape[axis] == stream.shape[stream.axes.index("t")] and _counts(translator, value, behind):
            found = as_stream(translator, value, behind, stream)
            assert isinstance(found, Flow)
            return found
    return item


def _counts(translator: Surroundings, value: Value | None, behind: int) -> bool:
    """Is an axis, so far from the right, as long as a table that the file makes from the length of its inputs?"""
    item = translator.lookup(value)
    at = len(getattr(item, "shape", ())) - behind
    if not isinstance(item, Flow | Known) or at < 0 or item.shape[at] == 1:
        return False
    if isinstance(item, Known):
        return value not in translator.listing.constants
    call = translator.listing.maker(value)
    if call is None or call.kind not in POINTWISE:
        return False
    if call.kind == "Unsqueeze":
        return _counts(translator, call.operands[0], behind - _new_behind(translator, call, len(item.shape), at))
    return any(_counts(translator, v, behind) for v in call.operands if v is not None)


def _new_behind(translator: Surroundings, call: Call, rank: int, at: int) -> int:
    """How many axes an Unsqueeze adds behind axis `at` of its result."""
    operands = [None if v is None else translator.lookup(v) for v in call.operands]
    return sum(a % rank > at for a in axes_of(arrays_or_flows(operands), call.attrs, 1, ()) or [])


def picked_step(translator: Surroundings, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """GatherElements: the step that a number tells."""
    data, index = items[0], items[1]
    axis = int(call.attrs.get("axis", 0)) % max(len(getattr(data, "shape", ())), 1)
    known = isinstance(data, Flow) and isinstance(index, Flow) and data.axes[axis] == "t"
    if not known or "t" in index.axes or len(index.shape) != len(data.shape) or index.shape[axis] != 1:
        raise Unsupported("it mixes time")
    for i, size in enumerate(index.shape):  # the first features, where it does not go over all
        if i != axis and size != data.shape[i]:
            require_feature(data, i, "it takes a part of")
            data = cut(translator, data, i, 0, size, 1)
    return [picked(translator, data, index, axis, least(translator, call.operands[1]))]


def picked_of_samples(translator: Surroundings, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """Of every sample the step that its number tells: x[arange(batch), number], as GatherND of pairs, or as Gather of
    (batch * time, features) by number + time * sample."""
    data, index = items[0], None if call.operands[1] is None else translator.listing.producer.get(call.operands[1])
    parts = {} if index is None else {v: translator.lookup(v) for v in index.operands if v is not None}
    numbers = [item for item in parts.values() if isinstance(item, Flow)]
    samples = [item for item in parts.values() if isinstance(item, Known)]
    if not isinstance(data, Flow) or index is None or len(numbers) != 1 or len(samples) != 1 or len(parts) != 2:
        raise Unsupported("it mixes time")
    (number,), count = numbers, np.asarray(samples[0].array)
    step, batch = counted_samples(count), max(count.shape, default=0)
    if index.kind == "Add" and call.kind == "Gather" and data.axes[:1] == "m" and call.attrs.get("axis", 0) == 0:
        data = Flow(data.value, "bt" + data.axes[1:], (batch, data.shape[0] // max(batch, 1), *data.shape[1:]))
        right = step == data.shape[1] and index.kind == "Add"
        flat = True
    else:
        flat = False
        first = isinstance(translator.lookup(index.operands[0]), Known)
        right = step == 1 and first and index.kind == "Concat" and int(index.attrs["axis"]) % len(number.shape) == 1
    if not right or data.axes[:2] != "bt" or number.axes.strip("f") != "b" or prod(number.features) != 1:
        raise Unsupported("it mixes time")
    ones = (1,) * (len(data.axes) - 1)
    value = translator.builder.reshape(number.value, ones)
    assert isinstance(value, Value)
    low = 0.0 if flat else least(translator, next(v for v, item in parts.items() if item is number))
    found = picked(translator, data, Flow(value, "b" + "f" * len(ones), (batch, *ones)), 1, low)
    assert isinstance(found, Flow)
    axes, shape = found.axes[:1] + found.axes[2:], (*found.shape[:1], *found.shape[2:])
    return [wrap(translator.builder.reshape(found.value, shape[1:]), axes, shape)]


def picked_by_ones(
    translator: Surroundings, call: Call, items: Sequence[Any], terms: Sequence[str], result: str
) -> Flow | Known | None:
    """Of every sample the step that its number tells, as a sum over time against rows of a one and zeros (OneHot); None
    where a product is something else."""
    for rows, data, term, other, value in (
        (items[0], items[1], terms[0], terms[1], call.operands[0]),
        (items[1], items[0], terms[1], terms[0], call.operands[1]),
    ):
        if not isinstance(rows, Flow) or rows.axes != "bf" or not isinstance(data, Flow) or len(term) != 2:
            continue
        if sorted(data.axes) != sorted("bt" + "f" * (len(data.axes) - 2)) or len(set(other)) != len(other):
            continue
        batch, time = data.axes.index("b"), data.axes.index("t")
        if term != other[batch] + other[time] or result != other.replace(other[time], ""):
            continue
        made = translator.listing.maker(value)
        while made is not None and made.kind in ("Cast", "Identity"):
            made = translator.listing.maker(made.operands[0])
        if made is None or made.kind != "OneHot":
            continue
        number, values = translator.lookup(made.operands[0]), translator.lookup(made.operands[2])
        if not isinstance(number, Flow) or number.axes != "b" or not isinstance(values, Known):
            continue
        if not np.array_equal(values.array, [0, 1]) or rows.shape[1] != data.shape[time]:
            continue
        shape = tuple(d if i == batch else 1 for i, d in enumerate(data.shape))
        index = translator.builder.reshape(number.value, (1,) * (len(shape) - 1))
        assert isinstance(index, Value)
        axes = "".join("b" if i == batch else "f" for i in range(len(shape)))
        found = picked(translator, data, Flow(index, axes, shape), time, least(translator, made.operands[0]))
        assert isinstance(found, Flow)
        shape, axes = (found.shape[:time] + found.shape[time + 1 :]), found.axes[:time] + found.axes[time + 1 :]
        features = tuple(d for d, a in zip(shape, axes, strict=True) if a == "f")
        return wrap(translator.builder.reshape(found.value, features), axes, shape)
    return None


def picked(translator: Surroundings, data: Flow, index: Flow, axis: int, low: float) -> Flow | Known:
    """The step that a number tells: a sum over all steps, of which that one alone counts.

    Numbers from `low` on are told. Negative ones are counted from the end: -1 is the last step, and what others are
    is known where the length is fixed, else after the last step.
    """
    builder = translator.builder
    counter = builder.steps(data.value)
    assert isinstance(counter, Value)
    steps = Flow(counter, "f" * axis + "t" + "f" * (len(data.axes) - axis - 1), _only(data, axis))
    start: Flow | Known = index
    if low < -1:
        length = _length(translator, data, axis)
        under = binary(builder, "greater", Known(np.asarray(0.0)), index)
        start = binary(builder, "add", index, binary(builder, "mul", under, length))
    there = binary(builder, "equal", steps, start)
    each = binary(builder, "mul", there, data)
    assert isinstance(each, Flow)
    shape = (*each.shape[:axis], 1, *each.shape[axis + 1 :])
    axes = each.axes[:axis] + "f" + each.axes[axis + 1 :]
    value = builder.add("pool", [each.value], kind="sum")
    features = tuple(d for d, a in zip(shape, axes, strict=True) if a == "f")
    found = wrap(builder.reshape(value, features), axes, shape)
    if low != -1:
        return found
    last = builder.reshape(builder.add("pool", [data.value], kind="last"), _placed(data, axis, axes))
    final = wrap(last, axes, _one(data, axis))
    behind = binary(builder, "mul", binary(builder, "equal", index, Known(np.asarray(-1.0))), final)
    return binary(builder, "add", found, behind)


def _length(translator: Surroundings, data: Flow, axis: int) -> Flow | Known:
    """How many steps there are; where that differs from run to run, what is known after the last one."""
    if not translator.dynamic:
        return Known(np.asarray(float(data.shape[axis])))
    builder = translator.builder
    return Flow(builder.add("pool", [builder.stream(np.ones(()), data.value)], kind="sum"), "", ())


def _one(flow: Flow, axis: int) -> tuple[int, ...]:
    return (*flow.shape[:axis], 1, *flow.shape[axis + 1 :])


def _placed(flow: Flow, axis: int, axes: str) -> tuple[int, ...]:
    return tuple(d for d, a in zip(_one(flow, axis), axes, strict=True) if a == "f")


def _only(flow: Flow, axis: int) -> tuple[int, ...]:
    return tuple(d if i == axis else 1 for i, d in enumerate(flow.shape))
