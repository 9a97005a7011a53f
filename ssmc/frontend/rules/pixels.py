"""DepthToSpace and SpaceToDepth: channels of an image that become places of it, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssmc.frontend.graph.flow import Tracked, Unsupported, wrap
from ssmc.frontend.rules.context import Context, Rule, flow_of
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import text


def _to_space(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """(n, c s^2, h, w) to (n, c, h s, w s); the parts of a channel stand before it (DCR) or behind (CRD)."""
    s = int(call.attrs["blocksize"])
    channels, rows, columns = _image(items[0])
    if channels % (s * s):
        raise Unsupported(f"its {channels} channels are no multiple of {s} x {s}")
    out = channels // (s * s)
    if text(call.attrs.get("mode", b"DCR")) == "CRD":
        split, order = (out, s, s, rows, columns), (0, 3, 1, 4, 2)
    else:
        split, order = (s, s, out, rows, columns), (2, 3, 0, 4, 1)
    return _moved(context, items[0], split, order, (out, rows * s, columns * s))


def _to_depth(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """(n, c, h s, w s) to (n, s^2 c, h, w)."""
    s = int(call.attrs["blocksize"])
    channels, rows, columns = _image(items[0])
    if rows % s or columns % s:
        raise Unsupported(f"its {rows} x {columns} places are no multiple of {s}")
    split = (channels, rows // s, s, columns // s, s)
    return _moved(context, items[0], split, (2, 4, 0, 1, 3), (channels * s * s, rows // s, columns // s))


def _image(item: Any) -> tuple[int, ...]:
    """Its channels, rows and columns."""
    flow = flow_of(item)
    if len(flow.shape) != 4 or flow.axes[1:] != "fff":
        raise Unsupported("its channels, rows or columns are batch or time")
    return flow.shape[1:]


def _moved(
    context: Context, item: Any, split: tuple[int, ...], order: tuple[int, ...], image: tuple[int, ...]
) -> list[Tracked]:
    """The last three features in five parts, in another order, as three again."""
    flow, builder = flow_of(item), context.builder
    before = builder.features(flow.value)[:-3]
    permutation = (*range(len(before)), *(len(before) + i for i in order))
    value = builder.transpose(builder.reshape(flow.value, (*before, *split)), permutation)
    return [wrap(builder.reshape(value, (*before, *image)), flow.axes, (flow.shape[0], *image))]


RULES: dict[str, Rule] = {"DepthToSpace": _to_space, "SpaceToDepth": _to_depth}
