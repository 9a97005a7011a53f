"""Ops that make other steps of the steps there are: filters, or refused, for the rate of a stream cannot rise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.flow import TimeMixing, Tracked, Unsupported
from ssmc.frontend.listing import Call
from ssmc.frontend.rules.context import Context, Rule, flow_of, known_of

UP = "up-sampling"
RISING = "the rate of a stream cannot rise; give the model its input at that rate, or compile the part before it"


def raises_rate(call: Call) -> bool:
    """Does a transposed convolution give more steps than it is given?"""
    return call.kind == "ConvTranspose" and any(s != 1 for s in call.attrs.get("strides", [1]))


def _transposed(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow = flow_of(items[0])
    known_of(items[1], "kernel")
    if flow.axes != "bft":
        raise Unsupported("its axes are not batch, channels, time")
    if raises_rate(call):
        times = call.attrs["strides"][0]
        raise Unsupported(f"it gives {times} steps for each one ({UP}): {RISING}")
    raise TimeMixing("a transposed convolution along time")


def _resized(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow = flow_of(items[0])
    told = next((item for item in reversed(items[1:]) if item is not None and np.size(known_of(item, "size"))), None)
    if told is None or np.size(told.array) != len(flow.shape):
        raise Unsupported("to which size is not told axis by axis")
    numbers = np.asarray(told.array, np.float64)
    is_sizes = call.kind == "Resize" and len(items) > 3 and items[3] is not None
    scales = numbers / flow.shape if is_sizes else numbers
    if "t" not in flow.axes or scales[flow.axes.index("t")] == 1:
        raise Unsupported("it interpolates between features")
    times = scales[flow.axes.index("t")]
    if times > 1:
        raise Unsupported(f"it gives {times:g} steps for each one ({UP}): {RISING}")
    raise Unsupported("it interpolates between steps; pool or stride instead")


RULES: dict[str, Rule] = {"ConvTranspose": _transposed, "Resize": _resized, "Upsample": _resized}
