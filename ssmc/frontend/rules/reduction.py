"""Reductions over features and over time, and the norms made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.contraction import einsum
from ssmc.frontend.flow import Flow, Known, TimeMixing, Tracked, Unsupported, wrap
from ssmc.frontend.listing import Call
from ssmc.frontend.operands import axes_of, batch_norm_factors, conv_padding, text
from ssmc.frontend.rules.context import Context, Rule, arrays_or_flows, flow_of, known_of
from ssmc.frontend.rules.elementwise import binary, unary_any
from ssmc.frontend.rules.shape import reshaped
from ssmc.ir.tensor import Tensor


def _reduce_rule(function: str, before: str = "identity", after: str = "identity") -> Rule:
    def rule(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
        from ssmc.frontend.masks import in_time

        flow = flow_of(items[0])
        axes = axes_of(arrays_or_flows(items), call.attrs, 1)
        if not axes:
            if call.attrs.get("noop_with_empty_axes"):
                return [flow]
            axes = list(range(len(flow.shape)))
        mapped = unary_any(context.builder, before, in_time(context, call, flow, axes))
        assert isinstance(mapped, Flow)
        result = reduced(context, mapped, function, axes, bool(call.attrs.get("keepdims", 1)))
        return [unary_any(context.builder, after, result)]

    return rule


def _plain(item: Flow | Known) -> Flow:
    assert isinstance(item, Flow)
    return item


def _log_sum_exp(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """log sum exp(x), over features from the largest of them on, so that nothing overflows."""
    flow, builder = flow_of(items[0]), context.builder
    axes = axes_of(arrays_or_flows(items), call.attrs, 1)
    if not axes:
        axes = [] if call.attrs.get("noop_with_empty_axes") else list(range(len(flow.shape)))
    keep = bool(call.attrs.get("keepdims", 1))
    features = [a for a in axes if flow.axes[a] == "f"]
    result = flow
    if features:
        top = reduced(context, flow, "max", features, True)
        spread = _plain(unary_any(builder, "exp", _plain(binary(builder, "sub", flow, top))))
        sums = unary_any(builder, "log", reduced(context, spread, "sum", features, True))
        result = _plain(binary(builder, "add", sums, top))
    rest = [a for a in axes if flow.axes[a] != "f"]
    if rest:
        sums = reduced(context, _plain(unary_any(builder, "exp", result)), "sum", rest, True)
        result = _plain(unary_any(builder, "log", _plain(sums)))
    return [result if keep else _squeezed(context, result, axes)]


def _squeezed(context: Context, flow: Flow, axes: Sequence[int]) -> Flow:
    kept = [i for i in range(len(flow.shape)) if i not in {a % len(flow.shape) for a in axes}]
    labels, shape = "".join(flow.axes[i] for i in kept), tuple(flow.shape[i] for i in kept)
    features = tuple(d for d, a in zip(shape, labels, strict=True) if a == "f")
    return _plain(wrap(context.builder.reshape(flow.value, features), labels, shape))


def _arg_rule(largest: bool) -> Rule:
    """ArgMax, ArgMin over a feature axis: the first (or last) place where the extreme stands."""

    def rule(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
        flow, builder = flow_of(items[0]), context.builder
        axis = int(call.attrs.get("axis", 0)) % len(flow.shape)
        if flow.axes[axis] != "f":
            raise TimeMixing("it asks at which step the extreme stands")
        extreme = reduced(context, flow, "max" if largest else "min", [axis], True)
        there = _plain(binary(builder, "equal", flow, extreme))
        size, behind = flow.shape[axis], len(flow.shape) - axis - 1
        places = np.arange(float(size)) if call.attrs.get("select_last_index") else size - np.arange(float(size))
        marked = _plain(binary(builder, "mul", there, Known(places.reshape(size, *[1] * behind))))
        found: Flow | Known = reduced(context, marked, "max", [axis], bool(call.attrs.get("keepdims", 1)))
        if not call.attrs.get("select_last_index"):
            found = binary(builder, "sub", Known(np.asarray(float(size))), found)
        return [found]

    return rule


def reduced(context: Context, flow: Flow, function: str, axes: Sequence[int], keep: bool) -> Flow:
    """A reduction: over features at every step, over time to one value per sequence."""
    rank, builder = len(flow.shape), context.builder
    gone = sorted({a % rank for a in axes})
    if any(flow.axes[a] == "b" for a in gone):
        raise Unsupported("it reduces over the batch")
    time = [a for a in gone if flow.axes[a] == "t"]
    if time and function == "min":  # the largest of the negated
        opposite = reduced(context, _plain(unary_any(builder, "neg", flow)), "max", axes, keep)
        return _plain(unary_any(builder, "neg", opposite))
    if time and function not in ("mean", "sum", "max"):
        raise TimeMixing(f"it takes the {function} over time")
    features = [flow.from_right(a) for a in gone if flow.axes[a] == "f"]
    value: Any = flow.value
    if features:
        value = builder.emit("reduce", [value], fn=function, axes=tuple(features), keepdims=True)
    if time:
        value = builder.add("pool", [value], kind=function)
    kept = [i for i in range(rank) if keep or i not in gone]
    shape = tuple(1 if i in gone else flow.shape[i] for i in kept)
    labels = "".join("f" if i in gone else flow.axes[i] for i in kept)
    value = builder.reshape(value, tuple(d for d, a in zip(shape, labels, strict=True) if a == "f"))
    result = wrap(value, labels, shape)
    assert isinstance(result, Flow)
    return result


def _global_average(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow = flow_of(items[0])
    function = "mean" if call.kind == "GlobalAveragePool" else "max"
    return [reduced(context, flow, function, range(2, len(flow.shape)), True)]


def _windowed(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """AveragePool and MaxPool over time, windows side by side: event pooling."""
    flow, attrs = flow_of(items[0]), call.attrs
    window = list(attrs["kernel_shape"])
    padded = any(attrs.get("pads", [0])) or text(attrs.get("auto_pad", "NOTSET")) not in ("NOTSET", "VALID")
    if not padded and flow.axes == "bft" and window == [flow.shape[2]]:  # one window is the whole sequence
        return [reduced(context, flow, "mean" if call.kind == "AveragePool" else "max", [2], True)]
    if call.kind == "AveragePool" and flow.axes == "bft" and (padded or list(attrs.get("strides", [1])) != window):
        return [_moving_average(context, call, flow, window[0])]
    plain = not padded and not attrs.get("ceil_mode", 0) and all(d == 1 for d in attrs.get("dilations", [1]))
    time = [i for i, axis in enumerate(flow.axes[2:]) if axis == "t"]
    if not time or flow.axes[1] != "f":
        raise Unsupported("it pools over features")
    others = [w for i, w in enumerate(window) if i not in time]
    if not plain or list(attrs.get("strides", [1] * len(window))) != window or any(w != 1 for w in others):
        raise TimeMixing("its windows overlap or are padded")
    axis, stride = time[0] + 2, window[time[0]]
    value = context.builder.add(
        "downsample", [flow.value], stride=stride, kind="mean" if call.kind == "AveragePool" else "max"
    )
    return [Flow(value, flow.axes, (*flow.shape[:axis], flow.shape[axis] // stride, *flow.shape[axis + 1 :]))]


def _moving_average(context: Context, call: Call, flow: Flow, window: int) -> Flow | Known:
    """Means of windows that overlap or reach over the ends: a filter, and every n-th step of what it gives."""
    from ssmc.frontend.strided import filtered

    builder, attrs = context.builder, call.attrs
    if attrs.get("ceil_mode", 0):
        raise TimeMixing("its last window may be broken")
    padding = conv_padding(attrs, flow.shape[2], window)
    stride, spacing = int(attrs.get("strides", [1])[0]), int(attrs.get("dilations", [1])[0])
    taps = np.zeros((flow.shape[1], 1, (window - 1) * spacing + 1))
    taps[..., ::spacing] = 1.0
    sums = filtered(builder, flow, taps, padding, stride)
    if attrs.get("count_include_pad", 0) or not any(padding):
        return binary(builder, "div", sums, Known(np.asarray(float(window))))
    ones = builder.stream(np.ones(flow.shape[1]), flow.value)
    return binary(builder, "div", sums, filtered(builder, Flow(ones, flow.axes, flow.shape), taps, padding, stride))


def _running_sum(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """A cumulative sum along features: a triangular matrix."""
    flow = flow_of(items[0])
    axis = int(np.asarray(known_of(items[1], "axis")).reshape(-1)[0]) % len(flow.shape)
    if flow.axes[axis] != "f":
        raise TimeMixing("it brings several steps together")
    size = flow.shape[axis]
    matrix = np.triu(np.ones((size, size)), 1 if call.attrs.get("exclusive") else 0)
    matrix = matrix.T if call.attrs.get("reverse") else matrix
    letters = "abcdefghijkl"[: len(flow.shape)]
    result = letters[:axis] + "z" + letters[axis + 1 :]
    return [einsum(context.builder, [letters, letters[axis] + "z"], result, [flow, Known(matrix)])]


def _mean_of(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    total = items[0]
    for other in items[1:]:
        total = binary(context.builder, "add", total, other)
    return [binary(context.builder, "div", total, Known(np.asarray(float(len(items)))))]


def _norm(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """LayerNormalization and RMSNormalization over the last axes, all of them features."""
    flow = flow_of(items[0])
    kind = "layer" if call.kind == "LayerNormalization" else "rms"
    return [normalized(context, flow, kind, call.attrs.get("axis", -1), call.attrs.get("epsilon", 1e-5), items[1:])]


def normalized(
    context: Context, flow: Flow, kind: str, axis: int, epsilon: float, parameters: Sequence[Any]
) -> Tracked:
    rank, builder = len(flow.shape), context.builder
    first = axis % rank
    if any(flow.axes[i] == "t" for i in range(first, rank)):
        raise TimeMixing("it normalises over time")
    if any(flow.axes[i] == "b" for i in range(first, rank)):
        raise Unsupported("it normalises over the batch")
    width = int(np.prod(flow.shape[first:], dtype=np.int64))
    features = flow.features
    outer = features[: len(features) - (rank - first)]
    names: list[Tensor | None] = [None, None]
    for i, item in enumerate(parameters[:2]):
        if item is not None:
            array = np.broadcast_to(np.asarray(known_of(item, "scale")), flow.shape[first:]).reshape(-1)
            names[i] = Tensor(array)
    x = builder.reshape(flow.value, (*outer, width))
    y = builder.emit("norm", [x], kind=kind, epsilon=float(epsilon), scale=names[0], shift=names[1])
    return wrap(builder.reshape(y, features), flow.axes, flow.shape)


def _batch_norm(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow = flow_of(items[0])
    if flow.axes[1] != "f":
        raise TimeMixing("its channel axis is not a feature axis")
    arrays = [None, *(known_of(item, "parameters") for item in items[1:])]
    scale, shift = batch_norm_factors(arrays, call.attrs)
    shape = (-1, *([1] * (len(flow.shape) - 2)))
    scaled = binary(context.builder, "mul", flow, Known(scale.reshape(shape)))
    return [binary(context.builder, "add", scaled, Known(shift.reshape(shape)))]


def _group_norm(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """InstanceNormalization and GroupNormalization where nothing but features is behind the channels."""
    flow, builder = flow_of(items[0]), context.builder
    if any(a == "t" for a in flow.axes[1:]):
        raise TimeMixing("it normalises over time")
    channels = flow.shape[1]
    groups = int(call.attrs.get("num_groups", channels))
    folded = reshaped(context, flow, (flow.shape[0], groups, -1 if 0 in flow.shape else _rest(flow, groups)))
    assert isinstance(folded, Flow)
    normal = normalized(context, folded, "layer", -1, call.attrs.get("epsilon", 1e-5), [])
    assert isinstance(normal, Flow)
    back = reshaped(context, normal, flow.shape)
    assert isinstance(back, Flow)
    shape = (-1, *([1] * (len(flow.shape) - 2)))
    arrays = [np.asarray(known_of(item, "parameters")) for item in items[1:3]]
    if arrays[0].size != channels:  # opset 18 to 20: a scale a group
        arrays = [np.repeat(a, channels // groups) for a in arrays]
    scaled = binary(builder, "mul", back, Known(arrays[0].reshape(shape)))
    return [binary(builder, "add", scaled, Known(arrays[1].reshape(shape)))]


def _rest(flow: Flow, groups: int) -> int:
    return int(np.prod(flow.shape[1:], dtype=np.int64)) // groups


def _softmax(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow, builder = flow_of(items[0]), context.builder
    old = int(call.op["version"]) < 13
    axis = call.attrs.get("axis", 1 if old else -1) % len(flow.shape)
    if flow.axes[axis] == "b":
        raise Unsupported("a softmax over the batch")
    if flow.axes[axis] == "t":  # its sum is known after the last step
        grown = _plain(unary_any(builder, "exp", flow))
        total = reduced(context, grown, "sum", [axis], True)
        if call.kind == "LogSoftmax":
            return [binary(builder, "sub", flow, unary_any(builder, "log", total))]
        return [binary(builder, "div", grown, total)]
    if old and axis != len(flow.shape) - 1:
        raise Unsupported("a softmax over several axes (opset below 13)")
    features = flow.feature_axes()
    order = [i for i in range(len(features)) if features[i] != axis] + [features.index(axis)]
    x = builder.transpose(flow.value, order)
    y = builder.emit("softmax", [x], log=call.kind == "LogSoftmax")
    return [wrap(builder.transpose(y, list(np.argsort(order))), flow.axes, flow.shape)]


RULES: dict[str, Rule] = {
    "ReduceMean": _reduce_rule("mean"),
    "ReduceSum": _reduce_rule("sum"),
    "ReduceMax": _reduce_rule("max"),
    "ReduceMin": _reduce_rule("min"),
    "ReduceProd": _reduce_rule("prod"),
    "ReduceSumSquare": _reduce_rule("sum", before="square"),
    "ReduceL1": _reduce_rule("sum", before="abs"),
    "ReduceL2": _reduce_rule("sum", before="square", after="sqrt"),
    "ReduceLogSum": _reduce_rule("sum", after="log"),
    "ReduceLogSumExp": _log_sum_exp,
    "ArgMax": _arg_rule(True),
    "ArgMin": _arg_rule(False),
    "CumSum": _running_sum,
    "Mean": _mean_of,
    "AveragePool": _windowed,
    "MaxPool": _windowed,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_average,
    "LayerNormalization": _norm,
    "RMSNormalization": _norm,
    "SimplifiedLayerNormalization": _norm,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _group_norm,
    "GroupNormalization": _group_norm,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
}
