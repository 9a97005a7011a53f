"""Shapes of values of long sequences, without their numbers, which would take as long as running the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ssmc.frontend.source.announced import MAX_RESULT
from ssmc.frontend.source.effort import Effort
from ssmc.frontend.source.evaluate import MOVES, Plan, run_quietly
from ssmc.frontend.source.kernels import KERNELS, UNARY_OPS
from ssmc.frontend.source.listing import Listing
from ssmc.frontend.source.operands import Attrs, conv_padding, pad_widths
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

LARGE = 1 << 17  # numbers that a value has for its shape to be worth more than itself (ours)


def outlined(plan: Plan, listing: Listing, given: Mapping[Value, Any]) -> dict[Value, Any] | None:
    """What a plan makes, large arrays of floating-point numbers, and what is made of these, as views of one number of
    the same shape and format. None where it starts from none such, or where only running an op tells its shape."""
    used = {v for call, _ in plan for v in call.operands if v is not None}
    bare = {v for v in used if v in given and _is_large(given[v])}
    if not bare:
        return None
    values = {v: _outline(given[v].shape, given[v].dtype) if v in bare else given[v] for v in used if v in given}
    effort = Effort(listing.around)
    with np.errstate(all="ignore"):
        for call, _ in plan:
            arrays = [None if v is None else values[v] if v in values else listing.constants[v] for v in call.operands]
            if not bare.isdisjoint(v for v in call.operands if v is not None):
                try:
                    found = _told(call.kind, arrays, call.attrs, len(call.results))
                except (ValueError, IndexError, TypeError):  # running it says better what is wrong
                    return None
                if found is None or max(a.size for a in found) > MAX_RESULT:
                    return None
                bare.update(() if call.kind in ("Shape", "Size") else call.results)
            else:
                found = run_quietly(call, arrays, effort)
                large = [_is_large(a) for a in found]
                bare.update(v for v, wide in zip(call.results, large, strict=False) if wide)
                found = [_outline(a.shape, a.dtype) if wide else a for a, wide in zip(found, large, strict=True)]
            values.update(zip(call.results, found, strict=False))
    return {v: values[v] for call, _ in plan for v in call.results if v in values}


def _is_large(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.size >= LARGE and array.dtype.kind == "f"


def _outline(shape: Sequence[int], dtype: Any = np.float64) -> Array:
    return np.broadcast_to(np.zeros((), dtype), tuple(shape))


def _told(kind: str, arrays: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Array] | None:
    if kind in MOVES and kind != "Gather":  # they make views
        return KERNELS[kind](arrays, attrs, results)
    rule = SHAPES.get(kind)
    operands = [a if a is None or a.dtype != np.float32 else _outline(a.shape) for a in arrays]
    if rule is None or results > 1 or any(a is not None and a.dtype.kind not in "fiu" for a in operands):
        return None
    shape = rule(operands, attrs)
    return None if shape is None else [_outline(shape)]


def _same(x: Sequence[Any], attrs: Attrs) -> Sequence[int]:
    return tuple(x[0].shape)


def _broadcast(x: Sequence[Any], attrs: Attrs) -> Sequence[int]:
    return np.broadcast_shapes(*(a.shape for a in x))


def _pad(x: Sequence[Any], attrs: Attrs) -> Sequence[int] | None:
    if attrs.get("mode", "constant") not in ("constant", b"constant"):
        return None
    return [size + sum(width) for size, width in zip(x[0].shape, pad_widths(x, attrs)[0], strict=True)]


def _concat(x: Sequence[Any], attrs: Attrs) -> Sequence[int]:
    shape, axis = list(x[0].shape), attrs["axis"]
    shape[axis] = sum(a.shape[axis] for a in x)
    return shape


def _matmul(x: Sequence[Any], attrs: Attrs) -> Sequence[int] | None:
    a, b = x[0].shape, x[1].shape
    if min(len(a), len(b)) < 2 or a[-1] != b[-2]:
        return None
    return (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])


def _conv(x: Sequence[Any], attrs: Attrs) -> Sequence[int] | None:
    if x[0].ndim != 3:
        return None
    reach = (x[1].shape[2] - 1) * attrs.get("dilations", [1])[0] + 1
    steps = x[0].shape[2] + sum(conv_padding(attrs, x[0].shape[2], x[1].shape[2])) - reach + 1
    return x[0].shape[0], x[1].shape[0], -(-max(steps, 0) // attrs.get("strides", [1])[0])


def _dft(x: Sequence[Any], attrs: Attrs) -> Sequence[int] | None:
    axis = attrs.get("axis", x[2] if len(x) > 2 else None)
    if axis is None:
        return None
    shape, inverse, onesided = list(x[0].shape), bool(attrs.get("inverse", 0)), bool(attrs.get("onesided", 0))
    axis = int(np.reshape(axis, -1)[0]) % len(shape)
    size = int(np.reshape(x[1], -1)[0]) if len(x) > 1 and x[1] is not None else shape[axis]
    if inverse and onesided:
        size = size if len(x) > 1 and x[1] is not None else 2 * (size - 1)
        return (*shape[:axis], size, *shape[axis + 1 : -1], 1)
    return (*shape[:axis], size // 2 + 1 if onesided else size, *shape[axis + 1 : -1], 2)


SHAPES: dict[str, Callable[[Sequence[Any], Attrs], Sequence[int] | None]] = {
    **dict.fromkeys(UNARY_OPS, _same),
    **dict.fromkeys(("Gelu", "Clip", "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"), _same),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow"), _broadcast),
    "Pad": _pad,
    "Concat": _concat,
    "MatMul": _matmul,
    "Conv": _conv,
    "DFT": _dft,
}
