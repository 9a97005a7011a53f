"""Padding of feature axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, TimeMixing, Tracked, Unsupported, wrap
from ssmc.frontend.rules.context import Context, Rule, arrays_or_flows, flow_of
from ssmc.frontend.rules.restored import restored
from ssmc.frontend.rules.shape import cut, gathered, require_feature
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import pad_widths, text

CIRCULAR = (
    "puts the end of the sequence before its beginning (circular padding): the first steps wait for the last, at a "
    "distance that differs with the length; export it at a fixed length, or padded with zeros"
)


def _pad(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """Constant padding of feature axes."""
    flow = flow_of(items[0])
    mode = text(call.attrs.get("mode", "constant"))
    widths, value = pad_widths([np.empty(flow.shape), *arrays_or_flows(items[1:])], call.attrs)
    if mode != "constant":
        return [_padded_by_itself(context, flow, widths, mode)]
    result: Any = flow
    for axis, (before, after) in enumerate(widths):
        if before == after == 0:
            continue
        if result.axes[axis] == "t" and after == 0 < before:
            shape = (*result.shape[:axis], before, *result.shape[axis + 1 :])
            whole = restored(context, [Known(np.full(shape, value))], result, axis)
            if whole is not None:
                result = whole
                continue
        require_feature(result, axis, "it pads")
        size = result.shape[axis]
        if before < 0 or after < 0:
            result = cut(context, result, axis, max(-before, 0), size - max(-after, 0), 1)
        parts: list[Any] = [result.value]
        for width, place in ((max(before, 0), 0), (max(after, 0), len(parts))):
            if width:
                filling = list(result.features)
                filling[result.from_right(axis)] = width
                parts.insert(len(parts) if place else 0, np.full(filling, value))
        shape = (*result.shape[:axis], result.shape[axis] + max(before, 0) + max(after, 0), *result.shape[axis + 1 :])
        result = wrap(context.builder.concat(parts, result.from_right(axis)), result.axes, shape)
    return [result]


def _padded_by_itself(context: Context, flow: Flow, widths: Sequence[tuple[int, int]], mode: str) -> Tracked:
    """Feature axes padded with entries of their own: "edge", "reflect" or "wrap"."""
    found: Tracked = flow
    for axis, (before, after) in enumerate(widths):
        if before == after == 0:
            continue
        assert isinstance(found, Flow)
        if found.axes[axis] == "t" and mode == "wrap":
            raise TimeMixing(f"it {CIRCULAR}")
        require_feature(found, axis, "it pads")
        if min(before, after) < 0:
            raise Unsupported("its padding is negative")
        places = np.pad(np.arange(found.shape[axis]), (before, after), mode=mode)  # type: ignore[call-overload]
        found = gathered(context, found, axis, places)
    return found


RULES: dict[str, Rule] = {"Pad": _pad}
