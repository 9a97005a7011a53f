"""Norms: of every step over its features, or over the steps too, which are then scaled in another run through them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, TimeMixing, Tracked, Unsupported, wrap
from ssmc.frontend.graph.joint import REASON, TOGETHER, apart, joined
from ssmc.frontend.rules.context import Context, Rule, Surroundings, flow_of, known_of, sampled
from ssmc.frontend.rules.elementwise import binary, unary
from ssmc.frontend.rules.reduction import plain, reduced
from ssmc.frontend.rules.shape import reshaped
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import batch_norm_factors
from ssmc.ir.graph import Value
from ssmc.ir.tensor import Tensor


def _norm(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """LayerNormalization and RMSNormalization over the last axes."""
    flow, axis, epsilon = flow_of(items[0]), call.attrs.get("axis", -1), call.attrs.get("epsilon", 1e-5)
    kind = "layer" if call.kind == "LayerNormalization" else "rms"
    axes = range(axis % len(flow.shape), len(flow.shape))
    if all(flow.axes[i] == "f" for i in axes):
        return [normalized(context, flow, kind, axis, epsilon, items[1:])]
    found: Flow | Known = standardized(context, flow, axes, epsilon, kind == "layer")
    for function, item in zip(("mul", "add"), items[1:], strict=False):
        if item is not None:
            known_of(item, "parameters")
            found = binary(context.builder, function, found, item)
    return [found]


def normalized(
    context: Context, flow: Flow, kind: str, axis: int, epsilon: float, parameters: Sequence[Any]
) -> Tracked:
    """A norm of every step over the features from `axis` on."""
    rank, builder = len(flow.shape), context.builder
    first = axis % rank
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


def standardized(context: Context, flow: Flow, axes: Sequence[int], epsilon: float, centred: bool = True) -> Flow:
    """(x - mean) / sqrt(variance + epsilon) over `axes`, time among them; or x / sqrt(mean square + epsilon)."""
    builder = context.builder
    if any(flow.axes[a] == "b" for a in axes):
        raise Unsupported("it normalises over the batch")
    if centred:
        flow = plain(binary(builder, "sub", flow, reduced(context, flow, "mean", axes, True)))
    power = reduced(context, plain(unary(builder, "square", flow)), "mean", axes, True)
    shifted = plain(binary(builder, "add", power, Known(np.asarray(float(epsilon)))))
    return plain(binary(builder, "mul", flow, unary(builder, "rsqrt", shifted)))


def _batch_norm(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow = flow_of(items[0])
    if call.attrs.get("training_mode"):
        raise Unsupported("it normalises by the mean of the whole batch; export the model in evaluation mode")
    if flow.axes[1] != "f":
        raise TimeMixing("its channel axis is not a feature axis")
    arrays = [None, *(known_of(item, "parameters") for item in items[1:])]
    scale, shift = batch_norm_factors(arrays, call.attrs)
    shape = (-1, *([1] * (len(flow.shape) - 2)))
    scaled = binary(context.builder, "mul", flow, Known(scale.reshape(shape)))
    return [binary(context.builder, "add", scaled, Known(shift.reshape(shape)))]


def _group_norm(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """InstanceNormalization and GroupNormalization: channels in groups, with all that is behind them."""
    flow = flow_of(items[0])
    if flow.axes[1] == "t":
        raise TimeMixing("its channel axis is not a feature axis")
    groups = int(call.attrs.get("num_groups", flow.shape[1]))
    return [_in_groups(context, flow, groups, call.attrs.get("epsilon", 1e-5), items[1:3])]


def _in_groups(
    context: Context, flow: Flow, groups: int, epsilon: float, parameters: Sequence[Any], at: int = 1
) -> Flow | Known:
    """A norm over groups of the channels, which are axis `at`, with all that is behind them."""
    builder, channels, outer = context.builder, flow.shape[at], flow.shape[:at]
    if channels % groups:
        raise Unsupported(f"its {channels} channels are not {groups} equal groups")
    if "t" in flow.axes[at:]:
        wide = _flow(reshaped(context, flow, (*outer, groups, channels // groups, *flow.shape[at + 1 :])))
        normal = standardized(context, wide, range(at + 1, len(wide.shape)), epsilon)
    else:
        rest = int(np.prod(flow.shape[at:], dtype=np.int64)) // groups
        folded = _flow(reshaped(context, flow, (*outer, groups, rest)))
        normal = _flow(normalized(context, folded, "layer", -1, epsilon, []))
    found: Flow | Known = _flow(reshaped(context, normal, flow.shape))
    for function, item in zip(("mul", "add"), parameters, strict=True):
        array = np.asarray(known_of(item, "parameters"))
        if array.size != channels:  # opset 18 to 20: a scale a group
            array = np.repeat(array, channels // groups)
        found = binary(builder, function, found, Known(array.reshape(-1, *([1] * (len(flow.shape) - at - 1)))))
    return found


def norm_behind(context: Context, call: Call, items: Sequence[Any]) -> Tracked:
    """InstanceNormalization and GroupNormalization of a tensor whose first axis is batch and features, perhaps with
    time: each of its entries is normalised by itself, as where heads stand beside the samples."""
    flow = items[0]
    if flow.axes.index(TOGETHER):
        raise TimeMixing(REASON)
    (merged,) = flow.merged
    groups = int(call.attrs.get("num_groups", flow.shape[1]))
    found = _in_groups(context, apart(flow), groups, call.attrs.get("epsilon", 1e-5), items[1:3], at=len(merged[0]))
    return joined(_flow(found), 0, merged)


def _mean_variance(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """(x - mean) / (deviation + 1e-9), as the standard has it."""
    flow, builder, axes = flow_of(items[0]), context.builder, list(call.attrs.get("axes", [0, 2, 3]))
    if any(flow.axes[a] == "b" for a in axes):
        raise Unsupported("it normalises over the batch")
    centred = plain(binary(builder, "sub", flow, reduced(context, flow, "mean", axes, True)))
    power = reduced(context, plain(unary(builder, "square", centred)), "mean", axes, True)
    deviation = binary(builder, "add", unary(builder, "sqrt", power), Known(np.asarray(1e-9)))
    return [binary(builder, "div", centred, deviation)]


def _flow(item: Tracked) -> Flow:
    assert isinstance(item, Flow)
    return item


def over_grouped_steps(translator: Surroundings, call: Call, items: Sequence[Any]) -> list[Tracked] | None:
    """InstanceNormalization of (batch, groups, the rest), which a reshape made of (batch, channels, ..., time): a norm
    in groups as the exporters write it. The letter `x` stands for the last axis until a reshape takes it apart."""
    before = translator.listing.maker(call.operands[0])
    given = None if before is None or before.kind != "Reshape" else before.operands[0]
    source = None if given is None else translator.settled(given)
    shape = sampled(translator, call.operands[0]).shape
    if not isinstance(source, Flow) or source.axes != "b" + "f" * (len(source.axes) - 2) + "t" or len(shape) != 3:
        return None
    if len(source.axes) < 3 or shape[0] != source.shape[0] or source.shape[1] % shape[1]:
        return None
    found = _in_groups(translator, source, shape[1], call.attrs.get("epsilon", 1e-5), items[1:3])
    inner = (source.shape[1] // shape[1], *source.shape[2:-1])
    value = translator.builder.reshape(_flow(found).value, (shape[1], *inner))
    assert isinstance(value, Value)
    return [Flow(value, "bfx", shape)]


RULES: dict[str, Rule] = {
    "LayerNormalization": _norm,
    "RMSNormalization": _norm,
    "SimplifiedLayerNormalization": _norm,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _group_norm,
    "GroupNormalization": _group_norm,
    "MeanVarianceNormalization": _mean_variance,
}
