"""Convolutions along time with a stride, or without enough padding to keep the length.

They are delays, a matrix, and every n-th step of what it gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.graph.builder import Builder, Operand
from ssmc.frontend.graph.flow import Flow, Known, TimeMixing, Tracked, Unsupported, wrap
from ssmc.frontend.rules.context import Surroundings, flow_of, known_of, own_padding, sampled
from ssmc.frontend.rules.elementwise import binary
from ssmc.frontend.rules.matrix import dense_groups
from ssmc.frontend.rules.planes import along_time
from ssmc.frontend.source.listing import Call
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor
from ssmc.statespace import StateSpace

ZEROS, EDGE, REFLECTION = "zeros", "edge", "reflection"  # what stands around a sequence
NUMPY_MODES = {ZEROS: "constant", EDGE: "edge", REFLECTION: "reflect"}


def strided_conv(translator: Surroundings, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """A convolution along time with a stride, or without enough padding to keep the length."""
    weight = np.asarray(known_of(items[1], "kernel"))
    if isinstance(items[0], Flow) and len(items[0].axes) > 3:
        return [_over_plane(translator, call, items[0], weight, items[2] if len(items) > 2 else None)]
    flow, padding, ends = _padded(translator, call, items[0])
    if flow.axes != "bft":
        raise Unsupported("its axes are not batch, channels, time")
    builder, outputs = translator.builder, len(weight)
    reach = (weight.shape[2] - 1) * int(call.attrs.get("dilations", [1])[0]) + 1
    left, right = own_padding(translator, call.attrs, flow.shape[2] + sum(padding), weight.shape[2])
    if ends != ZEROS and (left or right):
        raise Unsupported("zeros stand around what is repeated")
    groups = int(call.attrs.get("group", 1))
    wide = np.zeros((*weight.shape[:2], reach))
    wide[..., :: int(call.attrs.get("dilations", [1])[0])] = weight
    taps = [dense_groups(wide[..., k], groups) for k in range(reach)]
    full = np.stack(taps, axis=2) if groups == 1 or groups != outputs or outputs != flow.shape[1] else wide
    stride = int(call.attrs.get("strides", [1])[0])
    found: Flow | Known = filtered(builder, flow, full, (left + padding[0], right + padding[1]), stride, ends)
    if len(items) > 2 and items[2] is not None:
        found = binary(builder, "add", found, Known(np.asarray(known_of(items[2], "bias")).reshape(-1, 1)))
    return [found]


def _over_plane(translator: Surroundings, call: Call, flow: Flow, weight: Array, bias: Any) -> Flow | Known:
    """A convolution along time and features at once."""
    axis = flow.axes.find("t")
    if axis < 2 or set(flow.axes) != set("bft") or not flow.axes.startswith("b") or flow.axes.count("t") > 1:
        raise Unsupported("its axes are not batch, channels, and time beside features")
    taps, attrs, places = along_time(flow, weight, call.attrs)
    builder, spacing = translator.builder, attrs["dilations"][0]
    padding = own_padding(translator, attrs, flow.shape[axis], taps.shape[2])
    wide = np.zeros((*taps.shape[:2], (taps.shape[2] - 1) * spacing + 1))
    wide[..., ::spacing] = taps
    row = wrap(builder.reshape(flow.value, taps.shape[1:2]), "bft", (flow.shape[0], taps.shape[1], flow.shape[axis]))
    y = filtered(builder, flow_of(row), wide, padding, attrs["strides"][0])
    shape = (flow.shape[0], *places[: axis - 1], y.shape[2], *places[axis - 1 :])
    found = wrap(builder.reshape(y.value, places), flow.axes, shape)
    if bias is None:
        return found
    added = np.asarray(known_of(bias, "bias")).reshape(-1, *[1] * (weight.ndim - 2))
    return binary(builder, "add", found, Known(added))


def averaged(translator: Surroundings, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """Moving averages over steps that the ends of the sequence were put around."""
    flow, padding, ends = _padded(translator, call, items[0])
    attrs, (window,) = call.attrs, call.attrs["kernel_shape"]
    if flow.axes != "bft":
        raise Unsupported("its axes are not batch, channels, time")
    if any(own_padding(translator, attrs, flow.shape[2] + sum(padding), window)) or attrs.get("ceil_mode", 0):
        raise Unsupported("what it pads by itself stands around what was padded before")
    spacing = int(attrs.get("dilations", [1])[0])
    taps = np.zeros((flow.shape[1], 1, (window - 1) * spacing + 1))
    taps[..., ::spacing] = 1.0 / window
    return [filtered(translator.builder, flow, taps, padding, int(attrs.get("strides", [1])[0]), ends)]


def _padded(translator: Surroundings, call: Call, item: Any) -> tuple[Flow, tuple[int, int], str]:
    """The stream that a node reads, how many steps were put before and after it, and which: ZEROS, its first and last
    step (EDGE) or its first and last ones backwards (REFLECTION). What the file computes tells it.

    Raises Unsupported for anything else.
    """
    if isinstance(item, Flow):
        return item, (0, 0), ZEROS
    value = call.operands[0]
    before = translator.listing.maker(value)
    while before is not None and before.kind in ("Transpose", "Identity", "Cast"):
        before = translator.listing.maker(before.operands[0])
    if before is None or before.kind not in ("Pad", "Concat"):
        raise Unsupported("it mixes time")
    sources = [(v, f) for v in before.operands if v is not None and isinstance(f := translator.lookup(v), Flow)]
    wide = sampled(translator, value)
    for source, flow in sources:
        if sorted(flow.axes) != ["b", "f", "t"] or wide.ndim != 3:
            continue
        order = [flow.axes.index(letter) for letter in "bft"]
        narrow = np.asarray(translator.samples.at(0, [source])[source]).transpose(order)
        found = _ends(narrow, wide)
        if found is not None:
            return Flow(flow.value, "bft", narrow.shape), *found
    raise Unsupported("it pads with more than zeros, or steps from the ends of the sequence")


def _ends(narrow: Array, wide: Array) -> tuple[tuple[int, int], str] | None:
    """How `wide` is `narrow` with steps before and after it, both (batch, channels, time)."""
    length, more = narrow.shape[2], wide.shape[2] - narrow.shape[2]
    for left in range(more + 1) if wide.shape[:2] == narrow.shape[:2] else ():
        if not np.array_equal(wide[:, :, left : left + length], narrow):
            continue
        for name, mode in NUMPY_MODES.items():
            if name == REFLECTION and max(left, more - left) >= length:
                continue
            if np.array_equal(np.pad(narrow, ((0, 0), (0, 0), (left, more - left)), mode=mode), wide):  # type: ignore[call-overload]
                return (left, more - left), name
    return None


def filtered(
    builder: Builder, flow: Flow, taps: Array, padding: tuple[int, int], stride: int, ends: str = ZEROS
) -> Flow:
    """y_j = sum_i taps[..., i] x_{j stride - left + i} of a stream (batch, channels, time); around it `ends`.

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
    if own and ends == ZEROS:
        y = _each_channel(builder, x, taps[:, 0], lags)
    elif own:
        y = x if not used else np.zeros(1)
        for k in used:
            y = builder.binary("add", y, builder.binary("mul", shifted(builder, x, int(lags[k]), ends), taps[:, 0, k]))
    else:
        parts = [shifted(builder, x, int(lags[k]), ends) for k in used]
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


def shifted(builder: Builder, x: Operand, lag: int, ends: str = ZEROS) -> Operand:
    """The stream `lag` steps later, or earlier, and before its first step (after its last one) its `ends`."""
    if lag == 0:
        return x
    if lag < 0:
        return builder.reverse(shifted(builder, builder.reverse(x), -lag, ends))
    late = builder.add("delay", [x], steps=lag)
    if ends == ZEROS:
        return late
    steps = builder.steps(late)
    if ends == REFLECTION:  # step k is step lag - k
        found: Operand = late
        for k in range(lag):
            there = builder.binary("equal", steps, np.asarray(float(k)))
            found = builder.emit("select", [there, shifted(builder, x, 2 * k - lag), found])
        return found
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
