"""Ops that make other steps of the steps there are: filters, or refused, for the rate of a stream cannot rise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, TimeMixing, Tracked, Unsupported
from ssmc.frontend.reasons import Kind, Reason
from ssmc.frontend.rules.context import Rule, Surroundings, flow_of, known_of
from ssmc.frontend.rules.elementwise import binary
from ssmc.frontend.rules.finer import interleaved, repeated
from ssmc.frontend.rules.strided import shifted
from ssmc.frontend.source.evaluate import run_call
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import text


def raises_rate(call: Call) -> bool:
    """Does a transposed convolution give more steps than it is given?"""
    return call.kind == "ConvTranspose" and any(s != 1 for s in call.attrs.get("strides", [1]))


def _transposed(context: Surroundings, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow = flow_of(items[0])
    known_of(items[1], "kernel")
    if flow.axes != "bft":
        raise Unsupported("its axes are not batch, channels, time")
    if raises_rate(call):
        found = _more_steps(context, call, flow, np.asarray(known_of(items[1], "kernel")))
        if len(items) > 2 and items[2] is not None:
            found = binary(context.builder, "add", found, Known(np.asarray(known_of(items[2], "bias")).reshape(-1, 1)))
        return [found]
    raise TimeMixing("a transposed convolution along time")


def _more_steps(context: Surroundings, call: Call, flow: Flow, weight: Any) -> Flow | Known:
    """A transposed convolution with a stride: at each slow step a filter for every step that it becomes.

    y[p m + r] = sum_q W[r + left + p q] x[m - q] of a kernel W (inputs, outputs, taps) and a stride p.
    """
    times, groups, taps = int(call.attrs["strides"][0]), int(call.attrs.get("group", 1)), weight.shape[2]
    left, right = call.attrs.get("pads", [0, 0])
    size = (flow.shape[2] - 1) * times - left - right + taps + call.attrs.get("output_padding", [0])[0]
    plain = int(call.attrs.get("dilations", [1])[0]) == 1 and text(call.attrs.get("auto_pad", "NOTSET")) == "NOTSET"
    if size != flow.shape[2] * times or not plain:
        why = f"it gives {size} steps for {flow.shape[2]} (up-sampling), which are no {times} for each"
        raise Unsupported(Reason(why, Kind.RISING))
    inner, outputs = weight.shape[0] // groups, weight.shape[1]
    full = np.zeros((groups, inner, groups, outputs, taps))
    for g in range(groups):
        full[g, :, g] = weight[g * inner : (g + 1) * inner]
    full = full.reshape(weight.shape[0], groups * outputs, taps)
    parts, rows = [], []
    for q in range(-((left + times - 1) // times), (taps - 1 - left) // times + 1):
        row = np.zeros((full.shape[0], full.shape[1], times))
        for r in range(times):
            if 0 <= r + left + times * q < taps:
                row[..., r] = full[..., r + left + times * q]
        if np.any(row):
            parts.append(shifted(context.builder, flow.value, q))
            rows.append(row.reshape(len(row), -1))
    if not parts:  # weights of 0
        parts, rows = [flow.value], [np.zeros((full.shape[0], full.shape[1] * times))]
    value = context.builder.linear(context.builder.concat(parts, -1), np.concatenate(rows))
    features = (full.shape[1], times)
    value = context.builder.reshape(value, features)
    wide = Flow(value, "bftf", (flow.shape[0], features[0], flow.shape[2], times))  # type: ignore[arg-type]
    return interleaved(context, wide)


def _resized(context: Surroundings, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow = flow_of(items[0])
    told = next((item for item in reversed(items[1:]) if item is not None and np.size(known_of(item, "size"))), None)
    if told is None or np.size(told.array) != len(flow.shape):
        raise Unsupported("to which size is not told axis by axis")
    numbers = np.asarray(told.array, np.float64)
    is_sizes = call.kind == "Resize" and len(items) > 3 and items[3] is not None
    scales = numbers / flow.shape if is_sizes else numbers
    if "t" not in flow.axes or scales[flow.axes.index("t")] == 1:
        raise Unsupported("it interpolates between features")
    axis, times = flow.axes.index("t"), scales[flow.axes.index("t")]
    others = [s for k, s in enumerate(scales) if k != axis]
    if times == int(times) and times > 1 and all(s == 1 for s in others):
        steps = np.arange(flow.shape[axis], dtype=np.float64)
        ramp = np.broadcast_to(steps.reshape(-1, *[1] * (len(flow.shape) - axis - 1)), flow.shape)
        given = [ramp, *(None if item is None else item.stored for item in items[1:])]
        if np.array_equal(run_call(call, given)[0], np.repeat(ramp, int(times), axis)):
            return [repeated(context, flow, int(times))]
    if times > 1:
        why = f"it gives {times:g} steps for each one (up-sampling), and not by repeating it"
        raise Unsupported(Reason(f"{why}; repeat, or compile the part before it", Kind.RISING))
    raise Unsupported("it interpolates between steps; pool or stride instead")


RULES: dict[str, Rule] = {"ConvTranspose": _transposed, "Resize": _resized, "Upsample": _resized}
