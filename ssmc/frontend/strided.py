"""Convolutions along time with a stride, or without enough padding to keep the length.

They are delays, a matrix, and every n-th step of what it gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.builder import Builder, Operand
from ssmc.frontend.flow import Flow, Known, TimeMixing, Tracked, Unsupported
from ssmc.frontend.listing import Call
from ssmc.frontend.operands import conv_padding, pad_widths, text
from ssmc.frontend.rules.context import arrays_or_flows, known_of
from ssmc.frontend.rules.elementwise import binary
from ssmc.frontend.rules.matrix import dense_groups
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor
from ssmc.statespace import StateSpace


def strided_conv(translator: Any, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """A convolution along time with a stride, or without enough padding to keep the length."""
    flow, padding, edge = _padded(translator, call, items[0])
    weight = np.asarray(known_of(items[1], "kernel"))
    if flow.axes != "bft":
        raise Unsupported("its axes are not batch, channels, time")
    builder, outputs = translator.builder, len(weight)
    reach = (weight.shape[2] - 1) * int(call.attrs.get("dilations", [1])[0]) + 1
    left, right = conv_padding(call.attrs, flow.shape[2] + sum(padding), weight.shape[2])
    if edge and (left or right):
        raise Unsupported("zeros stand around what is repeated")
    groups = int(call.attrs.get("group", 1))
    wide = np.zeros((*weight.shape[:2], reach))
    wide[..., :: int(call.attrs.get("dilations", [1])[0])] = weight
    taps = [dense_groups(wide[..., k], groups) for k in range(reach)]
    full = np.stack(taps, axis=2) if groups == 1 or groups != outputs or outputs != flow.shape[1] else wide
    stride = int(call.attrs.get("strides", [1])[0])
    found: Flow | Known = filtered(builder, flow, full, (left + padding[0], right + padding[1]), stride, edge)
    if len(items) > 2 and items[2] is not None:
        found = binary(builder, "add", found, Known(np.asarray(known_of(items[2], "bias")).reshape(-1, 1)))
    return [found]


def _padded(translator: Any, call: Call, item: Any) -> tuple[Flow, tuple[int, int], bool]:
    """The stream that a convolution reads, what a Pad before it puts around it, and whether that is its first and last
    step repeated rather than zeros."""
    if isinstance(item, Flow):
        return item, (0, 0), False
    before = translator.listing.producer.get(call.operands[0])
    items = [] if before is None else [None if v is None else translator.lookup(v) for v in before.operands]
    if before is None or before.kind != "Pad" or not items or not isinstance(items[0], Flow):
        raise Unsupported("it mixes time")
    flow = items[0]
    widths, value = pad_widths([np.empty(flow.shape), *arrays_or_flows(items[1:])], before.attrs)
    others = [w for w, a in zip(widths, flow.axes, strict=True) if a != "t"]
    mode = text(before.attrs.get("mode", "constant"))
    if mode not in ("constant", "edge") or (mode == "constant" and value) or any(any(w) for w in others):
        raise Unsupported("it pads with more than zeros, or the first and the last step")
    return flow, widths[flow.axes.index("t")], mode == "edge"


def filtered(
    builder: Builder, flow: Flow, taps: Array, padding: tuple[int, int], stride: int, edge: bool = False
) -> Flow:
    """y_j = sum_i taps[..., i] x_{j stride - left + i} of a stream (batch, channels, time); around it zeros, or its
    first and last step.

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
    if own and not edge:
        y = _each_channel(builder, x, taps[:, 0], lags)
    elif own:
        y = x if not used else np.zeros(1)
        for k in used:
            y = builder.binary("add", y, builder.binary("mul", _late(builder, x, int(lags[k]), edge), taps[:, 0, k]))
    else:
        parts = [_late(builder, x, int(lags[k]), edge) for k in used]
        matrix = np.concatenate([taps[..., k].T for k in used])
        y = builder.linear(builder.concat(parts, -1), matrix)
    assert isinstance(y, Value)
    if stride > 1 or anchor:
        y = builder.add("downsample", [y], stride=stride, kind="take", offset=anchor)
    return Flow(y, "bft", (flow.shape[0], len(taps), size))


def largest(builder: Builder, flow: Flow, reach: int, padding: tuple[int, int], stride: int, size: int) -> Flow:
    """The largest of `reach` steps around every `stride`-th one, (batch, channels, time); there are `size` of them."""
    left, right = padding
    anchor = _anchor(reach, left, right, stride, flow.shape[2])
    if anchor is None or len(range(anchor, flow.shape[2], stride)) != size:
        raise TimeMixing("what it gives is no regular part of the steps")
    before, behind = anchor + left, reach - 1 - anchor - left
    y: Operand = flow.value
    if behind:
        y = builder.reverse(_latest(builder, builder.reverse(flow.value), behind + 1))
    if before:
        past = _latest(builder, flow.value, before + 1)
        y = builder.binary("max", past, y) if behind else past
    assert isinstance(y, Value)
    if stride > 1 or anchor:
        y = builder.add("downsample", [y], stride=stride, kind="take", offset=anchor)
    return Flow(y, flow.axes, (*flow.shape[:2], size))


def _latest(builder: Builder, x: Value, reach: int) -> Operand:
    """The largest of the last `reach` steps, or of as many as there are: windows twice as long each time."""
    y: Operand = x
    width, steps = 1, builder.steps(x)
    while width < reach:
        lag = min(width, reach - width)
        there = builder.binary("greater_or_equal", steps, np.asarray(float(lag)))
        earlier = builder.emit("select", [there, builder.add("delay", [y], steps=lag), y])
        y, width = builder.binary("max", y, earlier), width + lag
    return y


def _anchor(reach: int, left: int, right: int, stride: int, length: int) -> int | None:
    """The step, the latest, at which output 0 stands if output j stands at j strides more, at every length."""
    for anchor in range(max(reach - 1 - left, 0), -1, -1):
        lengths = range(max(reach - left - right, anchor + 1), max(reach, length) + 2 * stride + 1)
        if all(len(range(anchor, n, stride)) == max((n + left + right - reach) // stride + 1, 0) for n in lengths):
            return anchor
    return None


def _late(builder: Builder, x: Operand, lag: int, edge: bool = False) -> Operand:
    """The stream `lag` steps later, or earlier; zeros where there is none, or with `edge` its first or last step."""
    if lag == 0:
        return x
    if lag < 0:
        return builder.reverse(_late(builder, builder.reverse(x), -lag, edge))
    late = builder.add("delay", [x], steps=lag)
    if not edge:
        return late
    steps = builder.steps(late)
    first = builder.binary("mul", builder.binary("equal", steps, np.zeros(())), x)
    ones = np.ones((builder.features(x)[0], 1, 1))
    held = StateSpace(A=ones[..., 0], B=ones, C=ones, D=0 * ones)  # the sum of what is nothing after the first step
    there = builder.binary("greater_or_equal", steps, np.asarray(float(lag)))
    return builder.emit("select", [there, late, builder.add("ssm", [first], system=held)])


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
