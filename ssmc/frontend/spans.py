"""What takes spans of the time axis that no linear system explains: strided filters, patches, the last steps, weights
over all steps.

These ops may also be parts of a recurrence in disguise, so they stay raw until nothing else explains what they make;
then they are said one by one: delays and a matrix, every n-th step of it, a sum over the sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ssmc.frontend.builder import Builder, Operand
from ssmc.frontend.contraction import einsum
from ssmc.frontend.flow import Flow, Known, Raw, TimeMixing, Tracked, Unsupported, wrap
from ssmc.frontend.listing import Call
from ssmc.frontend.operands import axes_of, conv_padding, pad_widths, reshape_target, slices_of, text
from ssmc.frontend.rules.context import arrays_or_flows, known_of
from ssmc.frontend.rules.elementwise import binary
from ssmc.frontend.rules.matrix import dense_groups, einsum_terms, gemm_terms, product_terms
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor

LONGEST = 256  # steps that one value may span (ours)


def spelled_out(translator: Any, call: Call) -> list[Tracked]:
    """The results of a call whose operands are known. Raises Unsupported, with the reason, where there is no rule."""
    if call.kind not in RULES:
        raise Unsupported("it mixes time")
    return RULES[call.kind](translator, call, [None if v is None else translator.lookup(v) for v in call.operands])


# -- filters -----------------------------------------------------------------------------------------------


def _conv(translator: Any, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """A convolution along time with a stride, or without enough padding to keep the length."""
    flow, padding = _padded(translator, call, items[0])
    weight = np.asarray(known_of(items[1], "kernel"))
    if flow.axes != "bft":
        raise Unsupported("its axes are not batch, channels, time")
    builder, outputs = translator.builder, len(weight)
    reach = (weight.shape[2] - 1) * int(call.attrs.get("dilations", [1])[0]) + 1
    left, right = conv_padding(call.attrs, flow.shape[2] + sum(padding), weight.shape[2])
    groups = int(call.attrs.get("group", 1))
    wide = np.zeros((*weight.shape[:2], reach))
    wide[..., :: int(call.attrs.get("dilations", [1])[0])] = weight
    taps = [dense_groups(wide[..., k], groups) for k in range(reach)]
    full = np.stack(taps, axis=2) if groups == 1 or groups != outputs or outputs != flow.shape[1] else wide
    found: Flow | Known = filtered(
        builder, flow, full, (left + padding[0], right + padding[1]), int(call.attrs.get("strides", [1])[0])
    )
    if len(items) > 2 and items[2] is not None:
        found = binary(builder, "add", found, Known(np.asarray(known_of(items[2], "bias")).reshape(-1, 1)))
    return [found]


def _padded(translator: Any, call: Call, item: Any) -> tuple[Flow, tuple[int, int]]:
    """The stream that a convolution reads, and the zeros that a Pad before it puts around it."""
    if isinstance(item, Flow):
        return item, (0, 0)
    before = translator.listing.producer.get(call.operands[0])
    items = [] if before is None else [None if v is None else translator.lookup(v) for v in before.operands]
    if before is None or before.kind != "Pad" or not items or not isinstance(items[0], Flow):
        raise Unsupported("it mixes time")
    flow = items[0]
    widths, value = pad_widths([np.empty(flow.shape), *arrays_or_flows(items[1:])], before.attrs)
    others = [w for w, a in zip(widths, flow.axes, strict=True) if a != "t"]
    if text(before.attrs.get("mode", "constant")) != "constant" or value or any(any(w) for w in others):
        raise Unsupported("it pads with more than zeros")
    return flow, widths[flow.axes.index("t")]


def filtered(builder: Builder, flow: Flow, taps: Array, padding: tuple[int, int], stride: int) -> Flow:
    """y_j = sum_i taps[..., i] x_{j stride - left + i} of a stream (batch, channels, time), zeros around it.

    `taps` is (outputs, channels, reach), or (channels, 1, reach) for a filter a channel.
    """
    (left, right), reach, length = padding, taps.shape[2], flow.shape[2]
    if min(left, right) < 0:
        raise Unsupported("its padding is negative")
    size = (length + left + right - reach) // stride + 1
    anchor = _anchor(reach, left, right, stride, length)
    if anchor is None:
        raise TimeMixing("what it gives is no regular part of the steps")
    lags = anchor + left - np.arange(reach)  # how many steps before the anchor each tap meets
    used = [k for k in range(reach) if np.any(taps[..., k])]
    x: Operand = flow.value
    own = taps.shape[1] == 1 and taps.shape[0] == flow.shape[1] and flow.shape[1] > 1
    if own:
        y = _each_channel(builder, x, taps[:, 0], lags)
    else:
        parts = [_late(builder, x, int(lags[k])) for k in used]
        matrix = np.concatenate([taps[..., k].T for k in used])
        y = builder.linear(builder.concat(parts, -1), matrix)
    assert isinstance(y, Value)
    if stride > 1 or anchor:
        y = builder.add("downsample", [y], stride=stride, kind="take", offset=anchor)
    return Flow(y, "bft", (flow.shape[0], len(taps), size))


def _anchor(reach: int, left: int, right: int, stride: int, length: int) -> int | None:
    """The step, the latest, at which output 0 stands if output j stands at j strides more, at every length."""
    for anchor in range(max(reach - 1 - left, 0), -1, -1):
        lengths = range(max(reach - left - right, anchor + 1), max(reach, length) + 2 * stride + 1)
        if all(len(range(anchor, n, stride)) == max((n + left + right - reach) // stride + 1, 0) for n in lengths):
            return anchor
    return None


def _late(builder: Builder, x: Operand, lag: int) -> Operand:
    """The stream `lag` steps later, or earlier."""
    if lag == 0:
        return x
    if lag > 0:
        return builder.add("delay", [x], steps=lag)
    return builder.reverse(builder.add("delay", [builder.reverse(x)], steps=-lag))


def _each_channel(builder: Builder, x: Operand, taps: Array, lags: Array) -> Operand:
    """A filter a channel: what came before and what comes after."""
    total: Operand | None = None
    for ahead in (False, True):
        own = np.flatnonzero(lags < 0 if ahead else lags >= 0)
        if not len(own) or not np.any(taps[:, own]):
            continue
        kernel = np.zeros((len(taps), int(np.abs(lags[own]).max()) + 1))
        kernel[:, np.abs(lags[own])] = taps[:, own]
        y, _ = builder.recurrent("fir", [x], kernel=Tensor(kernel), reverse=ahead)
        total = y if total is None else builder.binary("add", total, y)
    return total if total is not None else builder.binary("mul", x, np.zeros(1))


# -- parts of the time axis --------------------------------------------------------------------------------


def _slice(translator: Any, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """All but the first steps, or the last ones, which are then features of the sequence."""
    flow = items[0]
    if not isinstance(flow, Flow):
        raise Unsupported("it mixes time")
    builder = translator.builder
    for axis, part in slices_of(arrays_or_flows(items), call.attrs, len(flow.shape)):
        length = flow.shape[axis]
        chosen = range(length)[part]
        if flow.axes[axis] != "t" or len(slices_of(arrays_or_flows(items), call.attrs, len(flow.shape))) > 1:
            raise Unsupported("it takes parts of several axes")
        if chosen.step < 1 or len(chosen) != len(range(chosen.start, length, chosen.step)):
            raise TimeMixing(f"it takes steps {chosen.start} to {chosen.stop} of {length}")
        if part.start is not None and part.start < 0 and chosen.step == 1:
            return [_last_steps(builder, flow, axis, len(chosen))]
        value = builder.add("downsample", [flow.value], stride=chosen.step, kind="take", offset=chosen.start)
        return [Flow(value, flow.axes, (*flow.shape[:axis], len(chosen), *flow.shape[axis + 1 :]))]
    raise Unsupported("it mixes time")


def _last_steps(builder: Builder, flow: Flow, axis: int, count: int) -> Tracked:
    if count > LONGEST:
        raise TimeMixing(f"it takes the last {count} steps (at most {LONGEST})")
    axes = flow.axes[:axis] + "f" + flow.axes[axis + 1 :]
    one = (*flow.shape[:axis], 1, *flow.shape[axis + 1 :])
    place = Flow(flow.value, axes, one)
    parts: list[Operand] = [flow.value]
    for _ in range(count - 1):
        parts.insert(0, builder.add("delay", [parts[0]], steps=1))
    stacked = builder.concat([builder.reshape(p, place.features) for p in parts], place.from_right(axis))
    value = builder.add("pool", [stacked], kind="last")
    return wrap(value, axes, (*flow.shape[:axis], count, *flow.shape[axis + 1 :]))


def _reshape(translator: Any, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """Patches: `n` steps and their features become the features of one step."""
    from ssmc.frontend.rules.shape import reshaped

    flow = items[0]
    if not isinstance(flow, Flow):
        raise Unsupported("it mixes time")
    wanted = known_of(items[1], "shape") if len(items) > 1 else call.attrs["shape"]
    target = reshape_target(flow.shape, [int(d) for d in wanted], bool(call.attrs.get("allowzero", 0)))
    if "w" not in flow.axes:
        at = flow.axes.index("t") if "t" in flow.axes else -1
        steps = target[at] if 0 <= at < len(target) else 0
        if at < 0 or target[:at] != flow.shape[:at] or not steps or flow.shape[at] % steps:
            raise TimeMixing("it merges or splits the time axis")
        window = flow.shape[at] // steps
        shape = (*flow.shape[:at], steps, window, *flow.shape[at + 1 :])
        flow = Flow(flow.value, flow.axes[:at] + "tw" + flow.axes[at + 1 :], shape)
    return [reshaped(translator, unfolded(translator.builder, flow), target)]


def unfolded(builder: Builder, flow: Flow) -> Flow:
    """A stream in windows, with the steps of a window as features of one step."""
    at = flow.axes.index("w")
    window = flow.shape[at]
    if window > LONGEST:
        raise TimeMixing(f"a window of {window} steps (at most {LONGEST})")
    axes = flow.axes.replace("w", "f")
    place = Flow(flow.value, axes, (*flow.shape[:at], 1, *flow.shape[at + 1 :]))
    parts: list[Operand] = [flow.value]
    for _ in range(window - 1):
        parts.insert(0, builder.add("delay", [parts[0]], steps=1))
    stacked = builder.concat([builder.reshape(p, place.features) for p in parts], place.from_right(at))
    value = builder.add("downsample", [stacked], stride=window, kind="take", offset=window - 1)
    return Flow(value, axes, flow.shape)


def _windowed(translator: Any, call: Call, items: Sequence[Any]) -> list[Tracked]:
    if not any(isinstance(item, Flow) and "w" in item.axes for item in items):
        raise Unsupported("it mixes time")
    plain = [unfolded(translator.builder, i) if isinstance(i, Flow) and "w" in i.axes else i for i in items]
    found: list[Tracked] = translator.apply(call, plain)
    return found


# -- sums over all steps -----------------------------------------------------------------------------------


def _contracted(translator: Any, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """A product that sums over time: what it sums, at every step, and a sum over the sequence of it."""
    if call.kind == "Gemm":
        terms, result = gemm_terms(call.attrs)
    elif call.kind == "Einsum":
        terms, result = einsum_terms(call, items)
    else:
        terms, result = product_terms([len(_shape_of(translator, v)) for v in call.operands if v is not None])
    if len(terms) != 2:
        raise Unsupported("it mixes time")
    operands, terms = _unflattened(translator, call, list(items[:2]), list(terms))
    found = summed_over_time(translator.builder, terms, result, operands)
    if call.kind == "Gemm":
        found = binary(translator.builder, "mul", found, Known(np.asarray(call.attrs.get("alpha", 1.0))))
        if len(items) > 2 and items[2] is not None:
            beta = Known(np.asarray(known_of(items[2], "bias")) * call.attrs.get("beta", 1.0))
            found = binary(translator.builder, "add", found, beta)
    return [found]


def summed_over_time(
    builder: Builder, terms: Sequence[str], result: str, items: Sequence[Flow | Known]
) -> Flow | Known:
    """An einsum whose sum runs over the steps too."""
    times = {
        x
        for term, item in zip(terms, items, strict=True)
        if isinstance(item, Flow)
        for x, a in zip(term, item.axes, strict=True)
        if a == "t"
    }
    if len(times) != 1 or not times.isdisjoint(result):
        raise TimeMixing("every step meets every other (attention)")
    each = einsum(builder, terms, result + next(iter(times)), items)
    assert isinstance(each, Flow)
    value = builder.add("pool", [each.value], kind="sum")
    return Flow(value, each.axes[:-1], each.shape[:-1])


def _shape_of(translator: Any, value: Value) -> tuple[int, ...]:
    item = translator.lookup(value)
    if isinstance(item, Raw):
        return tuple(np.shape(translator.samples.at(0, [value])[value]))
    return tuple(item.shape)


def _unflattened(
    translator: Any, call: Call, items: list[Any], terms: list[str]
) -> tuple[list[Flow | Known], list[str]]:
    """The operands of a product; where one is steps and features flattened into one axis, as they were before."""
    if isinstance(items[0], Raw) and isinstance(items[1], Known) and len(terms[0]) == 2:
        value = call.operands[0]
        assert value is not None
        before = translator.listing.producer.get(value)
        while before is not None and before.kind in ("Identity", "Dropout"):
            before = translator.listing.producer.get(before.operands[0])
        flow = None if before is None or before.kind not in ("Reshape", "Flatten") else before.operands[0]
        source = None if flow is None else translator.lookup(flow)
        if isinstance(source, Flow) and source.axes[:1] == "b" and set(source.axes) <= set("btf"):
            flat = prod(source.shape[1:])
            if _shape_of(translator, value) == (source.shape[0], flat):
                letters = "ABCDEFGH"[: len(source.shape) - 1]
                gone = terms[0][1]
                at = terms[1].index(gone)
                weight = np.asarray(items[1].stored)
                shape = (*weight.shape[:at], *source.shape[1:], *weight.shape[at + 1 :])
                return [source, Known(weight.reshape(shape))], [terms[0][0] + letters, terms[1].replace(gone, letters)]
    if any(isinstance(item, Raw) for item in items):
        raise Unsupported("it mixes time")
    return items, terms


# -- values of a sequence that are meant step by step ------------------------------------------------------


def _stepwise(translator: Any, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """An elementwise op between a stream and a mask: what the mask is made of has its time axis seen from here."""
    if any(isinstance(item, Flow) and "w" in item.axes for item in items):
        return _windowed(translator, call, items)
    stream = next((i for i in items if isinstance(i, Flow) and "t" in i.axes), None)
    if stream is None or any(not isinstance(item, Flow | Known) for item in items):
        raise Unsupported("it mixes time")
    behind = len(stream.axes) - stream.axes.index("t")  # the time axis, counted from the right
    timed = [_timed(translator, v, behind, stream) for v in call.operands if v is not None]
    found: list[Tracked] = translator.apply(call, timed)
    return found


def _timed(translator: Any, value: Value, behind: int, stream: Flow) -> Flow | Known:
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
        timed = [_timed(translator, operands[0], inner, stream), *map(translator.lookup, operands[1:])]
    else:
        timed = [_timed(translator, v, behind, stream) for v in operands]
    found = translator.apply(call, timed)[0]
    assert isinstance(found, Flow)
    return found


def in_time(translator: Any, call: Call, item: Flow, axes: Sequence[int]) -> Flow:
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
            found = _timed(translator, value, behind, stream)
            assert isinstance(found, Flow)
            return found
    return item


def _counts(translator: Any, value: Value, behind: int) -> bool:
    """Is an axis, so far from the right, as long as a table that the file makes from the length of its inputs?"""
    item = translator.lookup(value)
    at = len(getattr(item, "shape", ())) - behind
    if not isinstance(item, Flow | Known) or at < 0 or item.shape[at] == 1:
        return False
    if isinstance(item, Known):
        return value not in translator.listing.constants
    call = translator.listing.producer.get(value)
    if call is None or call.kind not in POINTWISE:
        return False
    if call.kind == "Unsqueeze":
        return _counts(translator, call.operands[0], behind - _new_behind(translator, call, len(item.shape), at))
    return any(_counts(translator, v, behind) for v in call.operands if v is not None)


def _new_behind(translator: Any, call: Call, rank: int, at: int) -> int:
    """How many axes an Unsqueeze adds behind axis `at` of its result."""
    operands = [None if v is None else translator.lookup(v) for v in call.operands]
    return sum(a % rank > at for a in axes_of(arrays_or_flows(operands), call.attrs, 1, ()) or [])


def _picked(translator: Any, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """The step that a number tells, -1 the last: a sum over all steps, of which that one alone counts."""
    data, index, builder = items[0], items[1], translator.builder
    axis = int(call.attrs.get("axis", 0)) % max(len(getattr(data, "shape", ())), 1)
    known = isinstance(data, Flow) and isinstance(index, Flow) and data.axes[axis] == "t"
    if not known or "t" in index.axes or len(index.shape) != len(data.shape) or index.shape[axis] != 1:
        raise Unsupported("it mixes time")
    steps = Flow(builder.steps(data.value), "f" * axis + "t" + "f" * (len(data.axes) - axis - 1), _only(data, axis))
    there = binary(builder, "equal", steps, index)
    each = binary(builder, "mul", there, data)
    assert isinstance(each, Flow)
    shape = (*each.shape[:axis], 1, *each.shape[axis + 1 :])
    axes = each.axes[:axis] + "f" + each.axes[axis + 1 :]
    value = builder.add("pool", [each.value], kind="sum")
    features = tuple(d for d, a in zip(shape, axes, strict=True) if a == "f")
    found = wrap(builder.reshape(value, features), axes, shape)
    last = builder.reshape(builder.add("pool", [data.value], kind="last"), _placed(data, axis, axes))
    final = wrap(last, axes, _one(data, axis))
    behind = binary(builder, "mul", binary(builder, "equal", index, Known(np.asarray(-1.0))), final)
    return [binary(builder, "add", found, behind)]


def _one(flow: Flow, axis: int) -> tuple[int, ...]:
    return (*flow.shape[:axis], 1, *flow.shape[axis + 1 :])


def _placed(flow: Flow, axis: int, axes: str) -> tuple[int, ...]:
    return tuple(d for d, a in zip(_one(flow, axis), axes, strict=True) if a == "f")


def _only(flow: Flow, axis: int) -> tuple[int, ...]:
    return tuple(d if i == axis else 1 for i, d in enumerate(flow.shape))


def _viewed(translator: Any, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """A tensor flattened whole and looked up in the order in which it lies there (as_strided)."""
    from ssmc.frontend.rules.shape import reshaped

    value = call.operands[0]
    assert value is not None
    before = translator.listing.producer.get(value)
    source = None if before is None or before.kind != "Reshape" else translator.lookup(before.operands[0])
    if not isinstance(items[0], Raw) or not isinstance(source, Flow) or not isinstance(items[1], Known):
        raise Unsupported("it mixes time")
    index, size = np.asarray(items[1].array), prod(source.shape)
    if _shape_of(translator, value) != (size,) or not np.array_equal(index.reshape(-1), np.arange(size)):
        raise Unsupported("it mixes time")
    return [reshaped(translator, source, index.shape)]


COMPARISONS = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "And", "Or", "Not")
ARITHMETIC = ("Mul", "Add", "Sub", "Div", "Where", "Neg", "Exp", "Clip", "Sigmoid", "Min", "Max")
POINTWISE = frozenset([*COMPARISONS, *ARITHMETIC, "Cast", "Identity", "Unsqueeze"])
Rule = Callable[[Any, Call, Sequence[Any]], list[Tracked]]
RULES: dict[str, Rule] = {
    "Conv": _conv,
    "Slice": _slice,
    "Reshape": _reshape,
    "Flatten": _windowed,
    "Transpose": _windowed,
    "Add": _stepwise,
    "Sub": _stepwise,
    "Mul": _stepwise,
    "Div": _stepwise,
    "Where": _stepwise,
    "Gather": _viewed,
    "GatherElements": _picked,
    "Concat": _windowed,
    "MatMul": _contracted,
    "Gemm": _contracted,
    "Einsum": _contracted,
}
