"""Batch and features as one axis, as of channels that stand beside the samples (channel-independent models, heads).

An op on a tensor with such an axis (`joint`) is translated as one on the tensor with the axes apart, its own axes
counted anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ssmc.frontend.graph.flow import Flow, Known, Merged, TimeMixing, Tracked
from ssmc.frontend.graph.joint import REASON, TOGETHER, apart, joined
from ssmc.frontend.rules.context import Context, Rule, arrays_or_flows, known_of
from ssmc.frontend.rules.elementwise import RULES as ELEMENTWISE
from ssmc.frontend.rules.elementwise import binary
from ssmc.frontend.rules.matrix import einsum_terms, product
from ssmc.frontend.rules.norms import norm_behind
from ssmc.frontend.rules.shape import cut, reshaped
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import axes_of, slices_of, split_sizes

ALONG = frozenset(["Concat", "Split", "Softmax", "LogSoftmax", "LayerNormalization", "LpNormalization"])
FROM_RIGHT = frozenset([*ELEMENTWISE, "MatMul"]) - {"OneHot", "PRelu", "QuantizeLinear", "DequantizeLinear"}


def apply_together(context: Context, call: Call, items: Sequence[Any], rule: Rule) -> list[Tracked]:
    """One op on flows that have such an axis. Raises TimeMixing where it meets that axis, or another."""
    flows = [item for item in items if isinstance(item, Flow) and TOGETHER in item.axes]
    merged = flows[0].merged[0]
    if any(flow.merged != (merged,) for flow in flows):
        raise TimeMixing(REASON)
    if call.kind == "Gemm":
        return [_gemm(context, call, items, merged)]
    if call.kind in ("InstanceNormalization", "GroupNormalization"):
        return [norm_behind(context, call, items)]
    if call.kind in FROM_RIGHT:
        return _from_right(context, call, items, merged, rule)
    at, change = flows[0].axes.index(TOGETHER), CHANGES.get(call.kind)
    parts = _parts(call, items, at, merged)
    if parts:
        return [_of_samples(context, flows[0], at, merged, part) for part in parts]
    if change is None and call.kind not in ALONG:
        raise TimeMixing(REASON)
    if call.kind in ALONG:
        axis = _moved(int(call.attrs.get("axis", 0 if call.kind == "Split" else -1)), at, merged, len(flows[0].shape))
        new, place = _with(call, axis=axis), at
        split = [_spread(context, item, at - len(flows[0].shape), merged) for item in items]
    else:
        assert change is not None
        new, split, place = change(context, call, items, at, merged)
    return [_again(found, place, merged) for found in rule(context, new, split)]


def _parts(call: Call, items: Sequence[Any], at: int, merged: Merged) -> list[range]:
    """The parts that an op takes of the axis, where each is of whole batches; none where it takes others."""
    if merged[0] != "fb" or call.kind not in ("Slice", "Split"):
        return []
    shape = items[0].shape
    if call.kind == "Split":
        if int(call.attrs.get("axis", 0)) % len(shape) != at:
            return []
        ends = np.cumsum([0, *split_sizes([items[0], *arrays_or_flows(items[1:])], call.attrs, len(call.results))])
        found = [range(int(a), int(b)) for a, b in pairwise(ends)]
    else:
        slices = slices_of(arrays_or_flows(items), call.attrs, len(shape))
        if len(slices) != 1 or slices[0][0] != at:
            return []
        found = [range(shape[at])[slices[0][1]]]
    batch = merged[1][1]
    whole = all(part.step == 1 and part.start % batch == 0 and len(part) == batch for part in found)
    return found if whole else []


def _of_samples(context: Context, flow: Flow, at: int, merged: Merged, part: range) -> Tracked:
    """A batch out of several that are joined."""
    wide = apart(flow)
    one = cut(context, wide, at, part.start // merged[1][1], part.start // merged[1][1] + 1, 1)
    assert isinstance(one, Flow)
    return reshaped(context, one, (*flow.shape[:at], merged[1][1], *flow.shape[at + 1 :]))


def _again(found: Tracked, at: int, merged: Merged) -> Tracked:
    """A result with the axes from `at` on as one again."""
    if isinstance(found, Flow):
        return joined(found, at, merged)
    if not isinstance(found, Known) or at < 0:
        return found
    end = at + len(merged[1])
    parts = found.shape[at:end]
    shape = (*found.shape[:at], *(merged[1] if max(parts) > 1 else parts), *found.shape[end:])
    whole = np.broadcast_to(found.array, shape)
    return Known(whole.reshape(*shape[:at], prod(shape[at:end]), *shape[end:]))


def _from_right(context: Context, call: Call, items: Sequence[Any], merged: Merged, rule: Rule) -> list[Tracked]:
    """Ops whose operands broadcast: the axis stands at the same place of all, counted from the right."""
    flows = [item for item in items if isinstance(item, Flow) and TOGETHER in item.axes]
    places = {flow.axes.index(TOGETHER) - len(flow.axes) for flow in flows}
    if len(places) > 1:
        raise TimeMixing(REASON)
    (back,) = places
    if call.kind == "MatMul" and (back == -1 or (back == -2 and not _is_matrix(items[1]))):
        raise TimeMixing(REASON)
    rows = call.kind == "MatMul" and back == -2  # times a matrix, which has no such axis
    split = [item if rows and _is_matrix(item) else _spread(context, item, back, merged) for item in items]
    found = rule(context, call, split)
    behind = -back - 1 + len(merged[0])
    return [_again(f, len(f.shape) - behind, merged) if isinstance(f, Flow | Known) else f for f in found]


def _is_matrix(item: Any) -> bool:
    return isinstance(item, Known) and len(item.shape) == 2


def _spread(context: Context, item: Any, back: int, merged: Merged) -> Any:
    """An operand with the axis at `back`, counted from the right, as the axes that it is made of."""
    sizes = merged[1]
    if isinstance(item, Flow) and TOGETHER in item.axes:
        return apart(item)
    if not isinstance(item, Flow | Known) or len(item.shape) < -back:
        return item
    at = len(item.shape) + back
    if item.shape[at] not in (1, prod(sizes)) or (isinstance(item, Flow) and item.axes[at] != "f"):
        raise TimeMixing(REASON)
    new = sizes if item.shape[at] != 1 else (1,) * len(sizes)
    shape = (*item.shape[:at], *new, *item.shape[at + 1 :])
    if isinstance(item, Known):
        return Known(np.reshape(item.array, shape))
    if item.shape[at] != 1:
        raise TimeMixing(REASON)
    return reshaped(context, item, shape)


def _gemm(context: Context, call: Call, items: Sequence[Any], merged: Merged) -> Tracked:
    attrs = call.attrs
    plain = attrs.get("alpha", 1.0) == attrs.get("beta", 1.0) == 1.0 and not attrs.get("transA")
    if not plain or not _is_matrix(items[1]) or items[0].axes.index(TOGETHER):
        raise TimeMixing(REASON)
    weight = Known(items[1].array.T) if attrs.get("transB") else items[1]
    y = product(context, apart(items[0]), weight)
    if len(items) > 2 and items[2] is not None:
        y = binary(context.builder, "add", y, items[2])
    return _again(y, 0, merged)


# -- ops that name axes -------------------------------------------------------------------------------------


def _with(call: Call, **attributes: Any) -> Call:
    """The call with other attributes."""
    node = onnx.NodeProto()
    node.CopyFrom(call.op["node"])
    kept = [a for a in node.attribute if a.name not in attributes]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in attributes.items() if v is not None)])
    return replace(call, op=call.op.with_attrs(node=node))


def _moved(axis: int, at: int, merged: Merged, rank: int) -> int:
    """An axis of the tensor, counted with the merged axis apart."""
    axis %= rank
    if axis == at:
        raise TimeMixing(REASON)
    return axis if axis < at else axis + len(merged[0]) - 1


Change = Callable[[Context, Call, Sequence[Any], int, Merged], tuple[Call, list[Any], int]]


def _transpose(
    context: Context, call: Call, items: Sequence[Any], at: int, merged: Merged
) -> tuple[Call, list[Any], int]:
    rank, more = len(items[0].shape), len(merged[0]) - 1
    order = list(call.attrs.get("perm", reversed(range(rank))))
    wide = [k for a in order for k in (range(at, at + more + 1) if a == at else [a if a < at else a + more])]
    return _with(call, perm=wide), [apart(items[0])], order.index(at)


def _reduce(context: Context, call: Call, items: Sequence[Any], at: int, merged: Merged) -> tuple[Call, list[Any], int]:
    axes = axes_of(arrays_or_flows(items), call.attrs, 1)
    if not axes:
        raise TimeMixing(REASON)
    rank = len(items[0].shape)
    moved = [_moved(a, at, merged, rank) for a in axes]
    gone = 0 if int(call.attrs.get("keepdims", 1)) and call.kind != "Squeeze" else sum(a % rank < at for a in axes)
    return *_axes_given(call, items, moved), at - gone


def _axes_given(call: Call, items: Sequence[Any], axes: Sequence[int]) -> tuple[Call, list[Any]]:
    if "axes" in call.attrs:
        return _with(call, axes=list(axes)), [apart(items[0])]
    return call, [apart(items[0]), Known(np.asarray(axes, np.int64))]


def _unsqueeze(
    context: Context, call: Call, items: Sequence[Any], at: int, merged: Merged
) -> tuple[Call, list[Any], int]:
    axes = axes_of(arrays_or_flows(items), call.attrs, 1) or []
    rank = len(items[0].shape) + len(axes)
    new = {a % rank for a in axes}
    place = [k for k in range(rank) if k not in new][at]
    moved = [a if a < place else a + len(merged[0]) - 1 for a in new]
    return *_axes_given(call, items, sorted(moved)), place


def _slice(context: Context, call: Call, items: Sequence[Any], at: int, merged: Merged) -> tuple[Call, list[Any], int]:
    for item in items[1:]:
        known_of(item, "bounds") if item is not None else None
    rank = len(items[0].shape)
    parts = slices_of(arrays_or_flows(items), call.attrs, rank)
    axes = [_moved(axis, at, merged, rank) for axis, _ in parts]
    if len(items) < 2:
        return _with(call, axes=axes), [apart(items[0])], at
    return call, [apart(items[0]), items[1], items[2], Known(np.asarray(axes, np.int64)), *items[4:]], at


def _gather(context: Context, call: Call, items: Sequence[Any], at: int, merged: Merged) -> tuple[Call, list[Any], int]:
    index = np.asarray(known_of(items[1], "index"))
    axis = int(call.attrs.get("axis", 0)) % len(items[0].shape)
    place = at + (index.ndim - 1 if axis < at else 0)
    return _with(call, axis=_moved(axis, at, merged, len(items[0].shape))), [apart(items[0]), items[1]], place


def _einsum(context: Context, call: Call, items: Sequence[Any], at: int, merged: Merged) -> tuple[Call, list[Any], int]:
    terms, result = einsum_terms(call, items)
    letters = {t[f.axes.index(TOGETHER)] for t, f in zip(terms, items, strict=True) if TOGETHER in _axes(f)}
    (letter,) = letters if len(letters) == 1 else ("",)
    if not letter or letter not in result:
        raise TimeMixing(REASON)
    free = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in "".join(terms)]
    wide = letter + "".join(free[: len(merged[0]) - 1])
    split = [
        _spread(context, f, t.index(letter) - len(t), merged) if letter in t else f
        for t, f in zip(terms, items, strict=True)
    ]
    equation = ",".join(t.replace(letter, wide) for t in terms) + "->" + result.replace(letter, wide)
    return _with(call, equation=equation), split, result.index(letter)


def _axes(item: Any) -> str:
    return item.axes if isinstance(item, Flow) else ""


def _expand(context: Context, call: Call, items: Sequence[Any], at: int, merged: Merged) -> tuple[Call, list[Any], int]:
    target = np.broadcast_shapes(items[0].shape, tuple(int(d) for d in known_of(items[1], "shape")))
    place = len(target) - len(items[0].shape) + at
    if target[place] != items[0].shape[at]:
        raise TimeMixing(REASON)
    wide = (*target[:place], *merged[1], *target[place + 1 :])
    return call, [apart(items[0]), Known(np.asarray(wide, np.int64))], place


CHANGES: dict[str, Change] = {
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _reduce,
    "Slice": _slice,
    "Gather": _gather,
    "Einsum": _einsum,
    "Expand": _expand,
    **{f"Reduce{k}": _reduce for k in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp")},
}
