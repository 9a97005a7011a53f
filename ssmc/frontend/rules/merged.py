"""Batch and time as one axis, and time as windows: what a reshape makes of them, and which ops may meet them.

Layers for (samples, features) are applied to sequences as (batch * time, features): the letter `m` (batch outside)
or `n` (time outside) stands for such an axis, which every op that treats samples alike treats as its batch. A time
axis split into (steps, window) keeps `t` for the steps and has `w` for the window; it ends in an event pooling.
The new graph's value is the same stream all the while.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, Members, TimeMixing, Tracked
from ssmc.frontend.rules.context import Context, Rule, arrays_or_flows, known_of
from ssmc.frontend.rules.together import apply_together
from ssmc.frontend.source.kernels import UNARY_OPS
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import axes_of

POINTWISE = frozenset([*UNARY_OPS, "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Clip", "Gelu", "Elu"])
ROUNDINGS = frozenset(["QuantizeLinear", "DequantizeLinear", "Round"])
POOLINGS = {"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "max"}


def is_plain(item: Any) -> bool:
    """Are batch and time axes of their own?"""
    return not isinstance(item, Flow) or not set(item.axes) - set("btf")


def apply_merged(context: Context, call: Call, items: Sequence[Any], rule: Rule) -> list[Tracked]:
    """One op with an operand that is not plain. Raises TimeMixing, Unsupported."""
    if call.kind in ("Reshape", "Flatten", "Shape", "Size", "Identity", "Cast"):
        return rule(context, call, items)
    flows = [item for item in items if isinstance(item, Flow)]
    if any(flow.merged for flow in flows):
        return apply_together(context, call, items, rule)
    letters = set("".join(flow.axes for flow in flows)) - {"f"}
    if "w" in letters:
        alike = call.kind in POINTWISE or call.kind in ROUNDINGS
        unfolded = [_at_all_steps(item) for item in items] if alike else []
        if not alike or any(new is None and item is not None for new, item in zip(unfolded, items, strict=True)):
            return [_windows(context, call, items)]
        return [_in_windows(item, flows[0]) for item in rule(context, call, unfolded)]
    if "x" in letters:
        raise TimeMixing("groups of features and time are one axis")
    if len(letters) != 1:
        raise TimeMixing("batch and time are one axis for one operand and two for another")
    (letter,) = letters
    as_batch = [_renamed(item, letter, "b") for item in items]
    return [_renamed(item, "b", letter) for item in rule(context, call, as_batch)]


def _renamed(item: Any, old: str, new: str) -> Any:
    if isinstance(item, Members):
        return Members(tuple(_renamed(member, old, new) for member in item.items))
    return replace(item, axes=item.axes.replace(old, new)) if isinstance(item, Flow) else item


def as_steps(flow: Flow) -> Flow | None:
    """A stream in windows as the stream that it is; None where it is none."""
    at = flow.axes.find("tw")
    if at < 0:
        return None
    shape = (*flow.shape[:at], flow.shape[at] * flow.shape[at + 1], *flow.shape[at + 2 :])
    return replace(flow, axes=flow.axes.replace("tw", "t"), shape=shape)


def _at_all_steps(item: Any) -> Any:
    """An operand without windows; None where there is no such thing."""
    if isinstance(item, Flow):
        return as_steps(item)
    return item if isinstance(item, Known) and np.size(item.stored) == 1 else None


def _in_windows(item: Tracked, like: Flow) -> Tracked:
    """A stream as windows of the size that another has."""
    if isinstance(item, Members):
        return Members(tuple(_in_windows(member, like) for member in item.items))
    if not isinstance(item, Flow):
        return item
    window = like.shape[like.axes.index("w")]
    at = item.axes.index("t")
    shape = (*item.shape[:at], item.shape[at] // window, window, *item.shape[at + 1 :])
    return replace(item, axes=item.axes.replace("t", "tw"), shape=shape)


def _windows(context: Context, call: Call, items: Sequence[Any]) -> Tracked:
    """A window of steps becomes one step: their mean, sum or maximum, or one of them."""
    flow = items[0]
    if not isinstance(flow, Flow) or any(isinstance(item, Flow) for item in items[1:]):
        raise TimeMixing("it meets a time axis")
    at, rank = flow.axes.index("w"), len(flow.axes)
    keep = False
    if call.kind in POOLINGS:
        axes = axes_of(arrays_or_flows(items), call.attrs, 1) or []
        keep = bool(call.attrs.get("keepdims", 1))
        attrs: dict[str, Any] = {"kind": POOLINGS[call.kind]}
        if [a % rank for a in axes] != [at]:
            raise TimeMixing("it takes more than the windows together")
    elif call.kind == "Gather":
        index = np.asarray(known_of(items[1], "index"))
        if int(call.attrs.get("axis", 0)) % rank != at or index.ndim:
            raise TimeMixing("it takes parts of windows of steps")
        attrs = {"kind": "take", "offset": int(index) % flow.shape[at]}
    else:
        raise TimeMixing("it splits the time axis")
    value = context.builder.add("downsample", [flow.value], stride=flow.shape[at], **attrs)
    if not keep:
        return Flow(value, flow.axes[:at] + flow.axes[at + 1 :], (*flow.shape[:at], *flow.shape[at + 1 :]))
    shape = (*flow.shape[:at], 1, *flow.shape[at + 1 :])
    axes_now = flow.axes[:at] + "f" + flow.axes[at + 1 :]
    features = tuple(d for d, a in zip(shape, axes_now, strict=True) if a == "f")
    reshaped = context.builder.reshape(value, features)
    assert not isinstance(reshaped, np.ndarray)
    return Flow(reshaped, axes_now, shape)


def no_output(item: Tracked) -> str:
    """Why a value can be no output of a lifted model; empty where it can."""
    if isinstance(item, Known):
        return "it does not depend on the input"
    if isinstance(item, Flow) and not is_plain(item):
        return "batch and time are one axis of it; give it as (batch, time, ...)"
    return ""
