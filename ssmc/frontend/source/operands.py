"""What an ONNX node says it is to do, read off its operands (newer opsets) or attributes (older ones)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssmc.ir.op import Array

Attrs = dict[str, Any]
ENDS = (2**31 - 1, 2**63 - 1)


def axes_of(x: Sequence[Any], attrs: Attrs, slot: int, default: Sequence[int] | None = None) -> list[int] | None:
    """Axes given as an operand (newer opsets) or as an attribute (older ones)."""
    if len(x) > slot and x[slot] is not None:
        axes: list[int] = np.asarray(x[slot]).reshape(-1).tolist()
        return axes
    if "axes" in attrs:
        return [int(a) for a in attrs["axes"]]
    return None if default is None else list(default)


def reshape_target(shape: Sequence[int], wanted: Sequence[int], allow_zero: bool = False) -> tuple[int, ...]:
    """The result shape of a Reshape, with its zeros and its -1 resolved."""
    target = [shape[i] if d == 0 and not allow_zero else int(d) for i, d in enumerate(wanted)]
    if -1 in target:
        rest = int(np.prod([d for d in target if d != -1], dtype=np.int64))
        target[target.index(-1)] = int(np.prod(shape, dtype=np.int64)) // rest if rest else 0
    return tuple(target)


def slices_of(x: Sequence[Any], attrs: Attrs, rank: int) -> list[tuple[int, slice]]:
    """(axis, slice) of a Slice, in either form.

    Backwards the end of int32 or int64 is what comes before the first entry, as onnxruntime has it, and what lies in
    front of the first entry is that one.
    """
    shape = getattr(x[0], "shape", None)
    limit = np.iinfo(np.int64).max

    def bound(value: int) -> int:
        return int(max(min(int(value), limit), -limit))

    if len(x) > 1:
        starts, ends = np.atleast_1d(x[1]), np.atleast_1d(x[2])
        axes = range(len(starts)) if len(x) < 4 or x[3] is None else [int(a) for a in np.atleast_1d(x[3])]
        steps = [1] * len(starts) if len(x) < 5 or x[4] is None else [int(s) for s in np.atleast_1d(x[4])]
    else:
        starts, ends = attrs["starts"], attrs["ends"]
        axes, steps = attrs.get("axes", range(len(starts))), [1] * len(starts)
    found = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        first, stop = bound(start), bound(end)
        before = step < 0 and (stop <= -(1 << 31) or stop in ENDS)
        if step < 0 and shape is not None:
            first = max(first, -int(shape[int(axis) % rank]))
        found.append((int(axis) % rank, slice(first, None if before else stop, step)))
    return found


def split_sizes(x: Sequence[Any], attrs: Attrs, results: int) -> list[int]:
    """Sizes of the parts of a Split, in any of its forms."""
    axis = attrs.get("axis", 0)
    size = x[0].shape[axis]
    if len(x) > 1 and x[1] is not None:
        return [int(s) for s in x[1]]
    if "split" in attrs:
        return [int(s) for s in attrs["split"]]
    part = -(-size // results)
    return [min(part, size - part * i) for i in range(results)]


def clip_bounds(x: Sequence[Any], attrs: Attrs) -> tuple[Any, Any]:
    """Limits of a Clip, in either form; None where there is none."""
    low = x[1] if len(x) > 1 else attrs.get("min")
    high = x[2] if len(x) > 2 else attrs.get("max")
    return low, high


def text(value: str | bytes) -> str:
    """An attribute's text, as files and as rules write it."""
    return value.decode() if isinstance(value, bytes) else value


def conv_padding(attrs: Attrs, length: int, taps: int) -> tuple[int, int]:
    """Padding before and after, of a convolution in one dimension."""
    mode = text(attrs.get("auto_pad", "NOTSET"))
    if mode in ("NOTSET", "VALID"):
        left, right = attrs.get("pads", [0, 0]) if mode == "NOTSET" else (0, 0)
        return int(left), int(right)
    stride, reach = attrs.get("strides", [1])[0], (taps - 1) * attrs.get("dilations", [1])[0] + 1
    total = max((-(-length // stride) - 1) * stride + reach - length, 0)
    half = total // 2
    return (half, total - half) if mode == "SAME_UPPER" else (total - half, half)


def along_axis(attrs: Mapping[str, Any], axis: int, spatial: int) -> Attrs:
    """The attributes of a convolution along one of its `spatial` axes."""
    own: Attrs = {"auto_pad": attrs["auto_pad"]} if "auto_pad" in attrs else {}
    for name in ("strides", "dilations"):
        own[name] = [int(attrs.get(name, [1] * spatial)[axis])]
    pads = attrs.get("pads", [0] * (2 * spatial))
    return own | {"pads": [int(pads[axis]), int(pads[axis + spatial])]}


def steady_padding(attrs: Attrs, taps: int) -> tuple[int, int] | None:
    """Padding before and after that gives the same windows at every length; None where there is none.

    What SAME_UPPER and SAME_LOWER pad depends on what a stride leaves over of the length: steady is what they pad
    where no more than the end of the last window moves.
    """
    stride, reach = int(attrs.get("strides", [1])[0]), (taps - 1) * int(attrs.get("dilations", [1])[0]) + 1
    found = [conv_padding(attrs, length, taps) for length in range(stride, 2 * stride)]
    if len({left for left, _ in found}) > 1:
        return None
    same = text(attrs.get("auto_pad", "NOTSET")).startswith("SAME")
    return (found[0][0], reach - 1 - found[0][0]) if same else found[0]


def window_count(attrs: Attrs, length: int, taps: int, padding: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    """How many windows a pooling has, and the padding that they reach over: with `ceil_mode` the last may be broken."""
    reach, stride = (taps - 1) * attrs.get("dilations", [1])[0] + 1, int(attrs.get("strides", [1])[0])
    rest = length + sum(padding) - reach
    count = rest // stride + 1
    if attrs.get("ceil_mode", 0) and rest % stride and count * stride < length + padding[0]:
        count += 1
    return count, (padding[0], max(padding[1], (count - 1) * stride + reach - length - padding[0]))


def pad_widths(x: Sequence[Any], attrs: Attrs) -> tuple[list[tuple[int, int]], complex]:
    """(before, after) of every axis, and the value that fills, of a Pad in either form."""
    pads = [int(p) for p in (x[1] if len(x) > 1 else attrs["pads"])]
    value = x[2] if len(x) > 2 and x[2] is not None else attrs.get("value", 0.0)
    rank = x[0].ndim
    axes = [int(a) % rank for a in x[3]] if len(x) > 3 and x[3] is not None else list(range(rank))
    widths = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        widths[axis] = (pads[i], pads[i + len(axes)])
    filling = np.asarray(value).reshape(-1)[0]
    return widths, complex(filling) if np.iscomplexobj(filling) else float(filling)


def quantized_range(attrs: Attrs) -> tuple[int, int] | None:
    """Smallest and largest integer of a QuantizeLinear's output type; None where that is floating point."""
    from onnx import TensorProto

    names = {
        TensorProto.UINT8: (0, 255),
        TensorProto.INT8: (-128, 127),
        TensorProto.UINT16: (0, 65535),
        TensorProto.INT16: (-32768, 32767),
        TensorProto.UINT4: (0, 15),
        TensorProto.INT4: (-8, 7),
        TensorProto.UINT2: (0, 3),
        TensorProto.INT2: (-2, 1),
    }
    return names.get(attrs["output_dtype"])


def narrowed(x: Array, output_dtype: int) -> Array:
    """x, saturated and rounded to floating point of few bits (float8, float4)."""
    from onnx import helper

    dtype = helper.tensor_dtype_to_np_dtype(output_dtype)
    every = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float64)
    largest = float(every[np.isfinite(every)].max())
    return np.clip(x, -largest, largest).astype(np.float32).astype(dtype).astype(np.float64)


def along(parameter: Any, shape: Sequence[int], attrs: Attrs) -> Any:
    """A scale or zero point per channel, or per block of channels, shaped to meet an operand of that shape."""
    array, axis = np.asarray(parameter), attrs.get("axis", 1)
    if attrs.get("block_size", 0) and array.ndim == len(shape):
        wide = np.repeat(array, attrs["block_size"], axis=axis)
        return np.take(wide, np.arange(shape[axis]), axis=axis)
    if array.size == 1:
        return array.reshape(())
    return array.reshape([-1 if i == axis % len(shape) else 1 for i in range(len(shape))])


def few_bits(x: Sequence[Any], attrs: Attrs) -> Array:
    """The weight (K, N) of a MatMulNBits, whose numbers of few bits share bytes, the first in the lowest bits.

    `x` are its operands: the weight is the second, scales and zero points of its blocks follow. Source: onnxruntime,
    docs/ContribOperators.md.
    """
    rows, columns, bits = int(attrs["K"]), int(attrs["N"]), int(attrs.get("bits", 4))
    scales = np.asarray(x[2], np.float64).reshape(columns, -1)
    blocks = scales.shape[1]
    whole = _unpacked(x[1], columns, bits).reshape(columns, blocks, -1).astype(np.float64)
    zero: Any = float(1 << (bits - 1))
    if len(x) > 3 and x[3] is not None:
        packed = np.asarray(x[3]).dtype.kind in "iu"
        zero = _unpacked(x[3], columns, bits)[:, :blocks, None] if packed else np.reshape(x[3], (columns, blocks, 1))
    return np.asarray(((whole - zero) * scales[:, :, None]).reshape(columns, -1)[:, :rows].T)


def _unpacked(array: Any, rows: int, bits: int) -> Array:
    """Whole numbers of so many bits, (rows, numbers), out of bytes."""
    data = np.asarray(array).astype(np.int64).reshape(rows, -1, 1)
    return ((data >> np.arange(0, 8, bits)) & ((1 << bits) - 1)).reshape(rows, -1)


def batch_norm_factors(x: Sequence[Any], attrs: Attrs) -> tuple[Array, Array]:
    """The scale and shift that a BatchNormalization in inference amounts to."""
    scale = x[1] / np.sqrt(x[4] + attrs.get("epsilon", 1e-5))
    return scale, x[2] - x[3] * scale


def in_codes(x: Sequence[Any], attrs: Attrs) -> list[Any]:
    """Operands of a QuantizeLinear of weights in units of its scale, divided in float32 where they are that.

    The largest weight of a symmetric grid is often half a code from both of its neighbours: which it becomes is what
    the runtime's own division says.
    """
    weights, scale = np.asarray(x[0]), np.asarray(x[1])
    if any(a.dtype.kind != "f" or not np.array_equal(a, a.astype(np.float32)) for a in (weights, scale)):
        return list(x)
    quotient = weights.astype(np.float32) / along(scale.astype(np.float32), weights.shape, attrs)
    return [quotient.astype(np.float64), np.ones(scale.shape), *x[2:]]
