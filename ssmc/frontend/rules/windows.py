"""Pooling over windows of features: those of images, or of what stands beside time."""

from __future__ import annotations

import numpy as np

from ssmc.frontend.contraction import einsum
from ssmc.frontend.flow import Flow, Known, TimeMixing, Unsupported
from ssmc.frontend.listing import Call
from ssmc.frontend.operands import text
from ssmc.frontend.rules.context import Context
from ssmc.frontend.rules.elementwise import unary_any
from ssmc.frontend.rules.reduction import plain, reduced
from ssmc.frontend.rules.shape import gathered
from ssmc.ir.op import Array


def pooled_features(context: Context, call: Call, flow: Flow) -> Flow:
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
        flow = plain(unary_any(context.builder, "abs" if power == 1 else "square", flow))
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
    return plain(unary_any(context.builder, "sqrt", flow)) if power == 2 else flow


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
