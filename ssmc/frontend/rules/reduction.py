"""Reductions over features and over time, and the norms made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.flow import Flow, Known, TimeMixing, Tracked, Unsupported, wrap
from ssmc.frontend.kernels import axes_of, batch_norm_factors, text
from ssmc.frontend.listing import Call
from ssmc.frontend.rules.context import Context, Rule, arrays_or_flows, flow_of, known_of
from ssmc.frontend.rules.elementwise import binary, unary_any
from ssmc.frontend.rules.shape import reshaped
from ssmc.ir.tensor import Tensor


def _reduce_rule(function: str, before: str = "identity", after: str = "identity") -> Rule:
    def rule(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
        flow = flow_of(items[0])
        axes = axes_of(arrays_or_flows(items), call.attrs, 1)
        if not axes:
            if call.attrs.get("noop_with_empty_axes"):
                return [flow]
            axes = list(range(len(flow.shape)))
        mapped = unary_any(context.builder, before, flow)
        assert isinstance(mapped, Flow)
        result = reduced(context, mapped, function, axes, bool(call.attrs.get("keepdims", 1)))
        return [unary_any(context.builder, after, result)]

    return rule


def reduced(context: Context, flow: Flow, function: str, axes: Sequence[int], keep: bool) -> Flow:
    """A reduction: over features at every step, over time to one value per sequence."""
    rank, builder = len(flow.shape), context.builder
    gone = sorted({a % rank for a in axes})
    if any(flow.axes[a] == "b" for a in gone):
        raise Unsupported("it reduces over the batch")
    time = [a for a in gone if flow.axes[a] == "t"]
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
    if flow.axes[axis] != "f":
        raise TimeMixing("a softmax over time (attention)")
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
