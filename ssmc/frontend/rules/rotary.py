"""RotaryEmbedding (opset 23, and of com.microsoft): pairs of features turned by angles that follow the position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, Tracked, Unsupported
from ssmc.frontend.rules.context import Context, Rule, flow_of, known_of
from ssmc.frontend.rules.elementwise import binary
from ssmc.frontend.rules.shape import embedded, reshaped
from ssmc.frontend.source.listing import Call


def _rotary(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """(cos x_1 - sin x_2, sin x_1 + cos x_2) for each pair; arXiv 2104.09864, equation 34."""
    flow, attrs = flow_of(items[0]), call.attrs
    items = [*items, None]
    caches, places = (items[2:4], items[1]) if context.dtype(call, 1) in "iu" else (items[1:3], items[3])
    x = flow
    if len(flow.shape) == 3:  # (batch, time, heads * size)
        heads = int(attrs.get("num_heads", 0)) or 1
        x = _flow(reshaped(context, flow, (*flow.shape[:2], heads, flow.shape[2] // heads)))
    turned = int(attrs.get("rotary_embedding_dim", 0)) or x.shape[3]
    cos, sin = (_angles(context, known_of(cache, "table of angles"), places, x) for cache in caches)
    wide = (*x.shape[:3], turned)
    halves = (2, turned // 2) if not attrs.get("interleaved") else (turned // 2, 2)
    paired = _flow(reshaped(context, _part(context, x, 0, turned), (*wide[:3], *halves)))
    at = 3 if not attrs.get("interleaved") else 4
    a, b = (_half(context, paired, at, k) for k in range(2))
    re = binary(context.builder, "sub", binary(context.builder, "mul", cos, a), binary(context.builder, "mul", sin, b))
    im = binary(context.builder, "add", binary(context.builder, "mul", sin, a), binary(context.builder, "mul", cos, b))
    value = context.builder.concat([_unsqueezed(context, _flow(y), at) for y in (re, im)], at - 5)
    found = _flow(reshaped(context, Flow(_value(value), paired.axes, paired.shape), wide))
    if turned < x.shape[3]:
        rest = _part(context, x, turned, x.shape[3])
        found = Flow(_value(context.builder.concat([found.value, rest.value], -1)), x.axes, x.shape)
    return [reshaped(context, found, flow.shape)]


def _angles(context: Context, cache: Any, places: Flow | Known | None, x: Flow) -> Flow | Known:
    """Sines or cosines of every step, shaped to meet x: (batch, time, heads, size) or (batch, heads, time, size)."""
    at = x.axes.index("t") if "t" in x.axes else 1
    if isinstance(places, Flow):
        found = _flow(embedded(context, Known(np.asarray(cache)), places))
        shape = (*found.shape[:1], 1, *found.shape[1:]) if at == 2 else (*found.shape[:2], 1, *found.shape[2:])
        return _flow(reshaped(context, found, shape))
    table = np.asarray(cache)
    if places is not None:
        index = np.asarray(places.array).astype(np.int64)
        table = table[index if index.size > 1 else index.reshape(()) + np.arange(x.shape[at])[None]]
    if table.ndim != 3:
        raise Unsupported("its table of angles is not (batch, time, pairs), and no positions are given")
    return Known(np.expand_dims(table, 1 if at == 2 else 2))


def _part(context: Context, x: Flow, start: int, stop: int) -> Flow:
    value = context.builder.slice(x.value, -1, start, stop)
    return Flow(_value(value), x.axes, (*x.shape[:3], stop - start))


def _half(context: Context, paired: Flow, at: int, which: int) -> Flow:
    shape = tuple(1 if i == at else d for i, d in enumerate(paired.shape))
    value = context.builder.slice(paired.value, at - 5, which, which + 1)
    narrow = Flow(_value(value), paired.axes, shape)
    return _flow(reshaped(context, narrow, (*shape[:at], *shape[at + 1 :])))


def _unsqueezed(context: Context, flow: Flow, at: int) -> Any:
    return _flow(reshaped(context, flow, (*flow.shape[:at], 1, *flow.shape[at:]))).value


def _value(operand: Any) -> Any:
    assert not isinstance(operand, np.ndarray)
    return operand


def _flow(item: Tracked) -> Flow:
    assert isinstance(item, Flow)
    return item


RULES: dict[str, Rule] = {"RotaryEmbedding": _rotary}
