"""Pooling over windows: of time, of images, of features that stand beside time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.graph.contraction import einsum
from ssmc.frontend.graph.flow import Flow, Known, TimeMixing, Tracked, Unsupported
from ssmc.frontend.rules.context import Context, Rule, flow_of, own_padding
from ssmc.frontend.rules.elementwise import binary, unary
from ssmc.frontend.rules.reduction import plain, reduced
from ssmc.frontend.rules.shape import gathered
from ssmc.frontend.rules.strided import filtered, largest
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import text, window_count
from ssmc.ir.op import Array


def _pooled(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """AveragePool and MaxPool over time, windows side by side: event pooling; LpPool by the means of what it sums."""
    flow, attrs = flow_of(items[0]), call.attrs
    window = list(attrs["kernel_shape"])
    if call.kind == "LpPool" and any(w > 1 and a == "t" for w, a in zip(window, flow.axes[2:], strict=True)):
        return [_norms_over_steps(context, call, flow, window[0])]
    padded = any(attrs.get("pads", [0])) or text(attrs.get("auto_pad", "NOTSET")) not in ("NOTSET", "VALID")
    if not padded and flow.axes == "bft" and window == [flow.shape[2]]:  # one window is the whole sequence
        return [reduced(context, flow, "mean" if call.kind == "AveragePool" else "max", [2], True)]
    if call.kind == "AveragePool" and flow.axes == "bft" and (padded or list(attrs.get("strides", [1])) != window):
        return [_moving_average(context, call, flow, window[0])]
    apart = list(attrs.get("strides", [1])) == window and not attrs.get("ceil_mode", 0)
    if call.kind == "MaxPool" and flow.axes == "bft" and (padded or not apart):
        return [_moving_maximum(context, call, flow, window[0])]
    plain = not padded and not attrs.get("ceil_mode", 0) and all(d == 1 for d in attrs.get("dilations", [1]))
    time = [i for i, axis in enumerate(flow.axes[2:]) if axis == "t"]
    if not any(window[i] > 1 for i in time):
        return [_pooled_features(context, call, flow)]
    if flow.axes[1] != "f":
        raise Unsupported("it pools over features")
    others = [w for i, w in enumerate(window) if i not in time]
    if not plain or list(attrs.get("strides", [1] * len(window))) != window or any(w != 1 for w in others):
        raise TimeMixing("its windows overlap or are padded")
    axis, stride = time[0] + 2, window[time[0]]
    value = context.builder.add(
        "downsample", [flow.value], stride=stride, kind="mean" if call.kind == "AveragePool" else "max"
    )
    return [Flow(value, flow.axes, (*flow.shape[:axis], flow.shape[axis] // stride, *flow.shape[axis + 1 :]))]


def _norms_over_steps(context: Context, call: Call, flow: Flow, window: int) -> Flow:
    """(sum over a window of |x|^p)^(1/p) for p of 1 or 2."""
    builder, attrs, power = context.builder, call.attrs, int(call.attrs.get("p", 2))
    if flow.axes != "bft":
        raise TimeMixing("its windows span several steps")
    if power not in (1, 2):
        raise Unsupported(f"a norm of order {power}")
    if attrs.get("ceil_mode", 0):
        raise TimeMixing("its last window may be broken")
    terms = plain(unary(builder, "abs" if power == 1 else "square", flow))
    sums = plain(filtered(builder, terms, *_taps(context, call, flow, window)))
    return plain(unary(builder, "sqrt", sums)) if power == 2 else sums


def _taps(context: Context, call: Call, flow: Flow, window: int) -> tuple[Array, tuple[int, int], int]:
    """(taps, padding, stride) of the filter that sums windows."""
    attrs, spacing = call.attrs, int(call.attrs.get("dilations", [1])[0])
    taps = np.zeros((flow.shape[1], 1, (window - 1) * spacing + 1))
    taps[..., ::spacing] = 1.0
    return taps, own_padding(context, attrs, flow.shape[2], window), int(attrs.get("strides", [1])[0])


def _moving_maximum(context: Context, call: Call, flow: Flow, window: int) -> Flow:
    """The largest of windows that overlap or reach over the ends."""
    attrs, length = call.attrs, flow.shape[2]
    if len(call.results) > 1:
        raise Unsupported("it asks at which step the largest stands")
    if int(attrs.get("dilations", [1])[0]) != 1:
        raise Unsupported("its windows leave steps out")
    if context.dynamic and attrs.get("ceil_mode", 0):
        raise TimeMixing("its last window may be broken")
    count, padding = window_count(attrs, length, window, own_padding(context, attrs, length, window))
    return largest(context.builder, flow, window, padding, int(attrs.get("strides", [1])[0]), count)


def _moving_average(context: Context, call: Call, flow: Flow, window: int) -> Flow | Known:
    """Means of windows that overlap or reach over the ends: a filter, and every n-th step of what it gives."""
    builder, attrs = context.builder, call.attrs
    if attrs.get("ceil_mode", 0):
        raise TimeMixing("its last window may be broken")
    taps, padding, stride = _taps(context, call, flow, window)
    sums = filtered(builder, flow, taps, padding, stride)
    if attrs.get("count_include_pad", 0) or not any(padding):
        return binary(builder, "div", sums, Known(np.asarray(float(window))))
    ones = builder.stream(np.ones(flow.shape[1]), flow.value)
    return binary(builder, "div", sums, filtered(builder, Flow(ones, flow.axes, flow.shape), taps, padding, stride))


def _pooled_features(context: Context, call: Call, flow: Flow) -> Flow:
    """AveragePool, MaxPool and LpPool of feature axes, one after the other.

    Raises TimeMixing where windows span steps, Unsupported where places are asked for.
    """
    attrs, rank = call.attrs, len(flow.shape)
    window = [int(w) for w in attrs["kernel_shape"]]
    if len(call.results) > 1:
        raise Unsupported("it asks at which place the largest stands")
    if text(attrs.get("auto_pad", "NOTSET")) not in ("NOTSET", "VALID"):
        raise Unsupported("its padding is told by a word; export it with numbers")
    count = len(window)
    strides, spacings = (list(attrs.get(name, [1] * count)) for name in ("strides", "dilations"))
    pads, up = list(attrs.get("pads", [0] * 2 * count)), bool(attrs.get("ceil_mode", 0))
    power = int(attrs.get("p", 2)) if call.kind == "LpPool" else 0
    if up and call.kind != "MaxPool":
        raise Unsupported("runtimes do not agree on what its last window (ceil_mode) is divided by")
    if power not in (0, 1, 2):
        raise Unsupported(f"a norm of order {power}")
    if power:
        flow = plain(unary(context.builder, "abs" if power == 1 else "square", flow))
    for k in range(count):
        axis, size = rank - count + k, flow.shape[rank - count + k]
        if window[k] == 1 and strides[k] == 1 and not pads[k] and not pads[k + count]:
            continue
        if flow.axes[axis] != "f":
            raise TimeMixing("its windows span several steps")
        places = _places(size, window[k], strides[k], spacings[k], (pads[k], pads[k + count]), up)
        if call.kind == "MaxPool":
            flow = _largest(context, flow, axis, places, size)
        else:
            inside = (places >= 0) & (places < size)
            matrix = np.zeros((size, len(places)))
            np.add.at(matrix, (places[inside], np.nonzero(inside)[0]), 1.0)
            if call.kind == "AveragePool":
                matrix /= window[k] if attrs.get("count_include_pad", 0) else inside.sum(axis=1)
            flow = _weighted(context, flow, axis, matrix)
    return plain(unary(context.builder, "sqrt", flow)) if power == 2 else flow


def _places(size: int, window: int, stride: int, spacing: int, pads: tuple[int, int], up: bool) -> Array:
    """(outputs, window): which entry each window reads; those below zero and from `size` on are padding."""
    reach = (window - 1) * spacing + 1
    room = size + sum(pads) - reach
    count = (-(-room // stride) if up else room // stride) + 1
    if up and (count - 1) * stride >= size + pads[0]:  # windows that start in the padding behind are left out
        count -= 1
    return np.arange(count)[:, None] * stride - pads[0] + np.arange(window) * spacing


def _largest(context: Context, flow: Flow, axis: int, places: Array, size: int) -> Flow:
    inside = (places >= 0) & (places < size)
    some = places[np.arange(len(places)), np.argmax(inside, axis=1)]
    wide = gathered(context, flow, axis, np.where(inside, places, some[:, None]))
    return reduced(context, plain(wide), "max", [axis + 1], False)  # type: ignore[arg-type]


def _weighted(context: Context, flow: Flow, axis: int, matrix: Array) -> Flow:
    letters = "abcdefghijkl"[: len(flow.shape)]
    result = letters[:axis] + "z" + letters[axis + 1 :]
    return plain(einsum(context.builder, [letters, letters[axis] + "z"], result, [flow, Known(matrix)]))


RULES: dict[str, Rule] = {"AveragePool": _pooled, "MaxPool": _pooled, "LpPool": _pooled}
