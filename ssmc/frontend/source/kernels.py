"""Meaning of the frequent ONNX ops in numpy, in the precision of their operands: one table, op type -> function.

What is not here is run by `onnx.reference`, which is exact but slow to start; the two are tested against each other.
A function takes the operand arrays (None where absent), the attributes and the number of results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ssmc.frontend.source.contractions import einsum
from ssmc.frontend.source.kernels_shape import SHAPE_KERNELS
from ssmc.frontend.source.kernels_time import TIME_KERNELS, LeftToReference
from ssmc.frontend.source.operands import (
    along,
    axes_of,
    batch_norm_factors,
    clip_bounds,
    conv_padding,
    few_bits,
    narrowed,
    quantized_range,
    text,
)
from ssmc.ir.functions import UNARY, mean
from ssmc.ir.op import Array
from ssmc.ir.tensor import times, widened
from ssmc.threads import cores

SHARED = 1 << 17  # numbers of which a Fourier transform is worth the start of threads (ours)
AT_ONCE = 1 << 22  # numbers of Fourier transforms that a convolution holds at once, some 100 MB of them (ours)
Attrs = dict[str, Any]
Kernel = Callable[[Sequence[Any], Attrs, int], Sequence[Any]]


def _elementwise(function: Callable[..., Any]) -> Kernel:
    return lambda x, attrs, results: (np.asarray(function(*x)),)


def _folded(function: Callable[..., Any]) -> Kernel:
    def run(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
        total = x[0]
        for other in x[1:]:
            total = function(total, other)
        return (np.asarray(total),)

    return run


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        some = np.where(b == 0, 1, b)
        whole = np.abs(a) // np.abs(some)
        return np.asarray(np.where((a < 0) != (some < 0), -whole, whole).astype(a.dtype))
    return np.asarray(a / b)


def _bit_shift(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    shift = np.left_shift if text(attrs["direction"]) == "LEFT" else np.right_shift
    return (np.asarray(shift(x[0], x[1].astype(x[0].dtype))),)


def _global_lp_pool(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    order = int(attrs.get("p", 2))
    sums = np.sum(np.abs(x[0]) ** order, axis=tuple(range(2, x[0].ndim)), keepdims=True)
    return (np.asarray(sums ** (1 / order)),)


def _cast(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    from onnx import helper

    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(attrs["to"]))
    return (np.asarray(x[0]).astype(np.float64 if dtype.kind == "f" else dtype),)


def _gemm(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    a = x[0].T if attrs.get("transA") else x[0]
    b = x[1].T if attrs.get("transB") else x[1]
    y = attrs.get("alpha", 1.0) * (a @ b)
    return (y + attrs.get("beta", 1.0) * x[2] if len(x) > 2 and x[2] is not None else y,)


def _fused_matmul(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    """com.microsoft: alpha op(A) op(B)."""
    a = np.swapaxes(x[0], -1, -2) if attrs.get("transA") else x[0]
    b = np.swapaxes(x[1], -1, -2) if attrs.get("transB") else x[1]
    return (attrs.get("alpha", 1.0) * (a @ b),)


def _reduce(function: Callable[..., Any]) -> Kernel:
    def run(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
        axes = axes_of(x, attrs, 1)
        if not axes:
            if attrs.get("noop_with_empty_axes"):
                return (x[0],)
            axes = list(range(x[0].ndim))
        return (np.asarray(function(x[0], axis=tuple(axes), keepdims=bool(attrs.get("keepdims", 1)))),)

    return run


def _layer_norm(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    axes = tuple(range(attrs.get("axis", -1) % x[0].ndim, x[0].ndim))
    centred = x[0] - mean(x[0], axes, keepdims=True)
    scale = 1 / np.sqrt(mean(centred**2, axes, keepdims=True) + attrs.get("epsilon", 1e-5))
    y = centred * scale
    y *= x[1]
    if len(x) > 2 and x[2] is not None:
        y += x[2]
    return (y, mean(x[0], axes, keepdims=True), scale)[:results]


def _group_norm(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    """Groups of channels, each normalised over all that is in it; a scale a channel (opset 21 on) or a group."""
    groups, channels = int(attrs["num_groups"]), x[0].shape[1]
    u = x[0].reshape(len(x[0]), groups, -1)
    centred = u - mean(u, 2, keepdims=True)
    normal = (centred / np.sqrt(mean(centred**2, 2, keepdims=True) + attrs.get("epsilon", 1e-5))).reshape(x[0].shape)
    scale, shift = (np.repeat(a, channels // len(a)).reshape(-1, *[1] * (x[0].ndim - 2)) for a in x[1:3])
    return (normal * scale + shift,)


def _rms_norm(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    axes = tuple(range(attrs.get("axis", -1) % x[0].ndim, x[0].ndim))
    scale = 1 / np.sqrt(mean(x[0] ** 2, axes, keepdims=True) + attrs.get("epsilon", 1e-5))
    return (x[0] * scale * x[1],)


def _mean_variance(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    axes = tuple(attrs.get("axes", (0, 2, 3)))
    centred = x[0] - mean(x[0], axes, keepdims=True)
    return (centred / (np.sqrt(mean(centred**2, axes, keepdims=True)) + 1e-9),)


def _clip(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    low, high = clip_bounds(x, attrs)
    y = x[0] if low is None else np.maximum(x[0], low)
    return (y if high is None else np.minimum(y, high),)


def _gelu(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    return (UNARY["gelu_tanh" if text(attrs.get("approximate", "none")) == "tanh" else "gelu"](x[0]),)


def _conv(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    """Convolution in one spatial dimension, by windows, or by FFT where the kernel is long."""
    if x[0].ndim != 3:
        raise LeftToReference("only one spatial dimension")
    weight = x[1]
    groups, stride = attrs.get("group", 1), attrs.get("strides", [1])[0]
    left, right = conv_padding(attrs, x[0].shape[2], weight.shape[2])
    dilation = attrs.get("dilations", [1])[0]
    if dilation > 1:
        wide = np.zeros((*weight.shape[:2], (weight.shape[2] - 1) * dilation + 1))
        wide[..., ::dilation] = weight
        weight = wide
    u = np.pad(x[0], ((0, 0), (0, 0), (left, right))) if left or right else x[0]
    batch, channels, length = u.shape
    taps, outputs = weight.shape[2], weight.shape[0]
    u = u.reshape(batch, groups, channels // groups, length)
    kernel = weight.reshape(groups, outputs // groups, channels // groups, taps)
    if taps > 32:
        from scipy.fft import irfft, next_fast_len, rfft

        size = next_fast_len(length + taps - 1, real=True)
        spectrum = rfft(kernel[..., ::-1], size)
        rows = max(1, AT_ONCE // (max(channels, outputs) * size))
        parts = [
            irfft(np.einsum("bgif,goif->bgof", rfft(u[k : k + rows], size), spectrum), size)[..., taps - 1 : length]
            for k in range(0, max(batch, 1), rows)
        ]
        y = np.concatenate(parts)
    else:
        y = kernel[..., 0] @ u[..., : max(length - taps + 1, 0)]
        for tap in range(1, taps):
            y += kernel[..., tap] @ u[..., tap : tap + y.shape[-1]]  # g o i, b g i l
    y = y.reshape(batch, outputs, -1)[..., ::stride]
    return (y + x[2][:, None] if len(x) > 2 and x[2] is not None else y,)


def _where(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    return (np.where(x[0], x[1], x[2]),)


def _matmul_few_bits(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    y = times(x[0], few_bits(x, attrs))
    return (y + x[5] if len(x) > 5 and x[5] is not None else y,)


def _quantize(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    ends = quantized_range(attrs)
    if ends is None:
        return (narrowed(x[0] / along(x[1], x[0].shape, attrs), attrs["output_dtype"]),)
    low, high = ends
    zero = along(x[2], x[0].shape, attrs) if len(x) > 2 and x[2] is not None else 0
    scaled = np.rint(x[0] / along(x[1], x[0].shape, attrs)) + zero
    return (np.clip(scaled, low, high).astype(np.int64),)


def _dequantize(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    """One number is what float32 holds, as no scale has more: an exponent of 2 is 255 steps of a scale near 2/255, and
    with more digits no whole number. Many stay on their grid."""
    zero = along(x[2], x[0].shape, attrs) if len(x) > 2 and x[2] is not None else 0
    real = (x[0] - zero) * along(x[1], x[0].shape, attrs).astype(np.float64)
    return (real.astype(np.float32).astype(np.float64) if real.size == 1 else real,)


def _batch_norm(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    if attrs.get("training_mode") or results > 1:
        raise LeftToReference("it normalises by the batch itself, and gives its mean and variance")
    scale, shift = batch_norm_factors(x, attrs)
    shape = [-1 if i == 1 else 1 for i in range(x[0].ndim)]
    return (x[0] * scale.reshape(shape) + shift.reshape(shape),)


def _dft(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    """Parts in the last axis; a spectrum of real numbers comes from `rfft`, which is half the work of `fft`."""
    if "axis" in attrs:
        axis = int(attrs["axis"])
    elif len(x) > 2 and x[2] is not None:
        axis = int(np.reshape(x[2], -1)[0])
    else:
        raise LeftToReference("its default axis depends on the opset")
    axis, inverse, onesided = axis % x[0].ndim, bool(attrs.get("inverse", 0)), bool(attrs.get("onesided", 0))
    parts = x[0] if x[0].shape[-1] == 1 else np.ascontiguousarray(x[0], np.float64).view(np.complex128)
    signal = parts[..., 0]
    size = signal.shape[axis]
    if len(x) > 1 and x[1] is not None:
        size = int(np.reshape(x[1], -1)[0])
    elif inverse and onesided:
        size = 2 * (size - 1)
    from scipy import fft

    workers = cores() if signal.size >= SHARED else 1
    if inverse and onesided:
        return (fft.irfft(signal, size, axis, workers=workers)[..., None],)
    if onesided and signal.dtype.kind == "f":
        found = fft.rfft(signal, size, axis, workers=workers)
    else:
        found = (fft.ifft if inverse else fft.fft)(signal, size, axis, workers=workers)
        if onesided:
            found = np.take(found, np.arange(size // 2 + 1), axis)
    return (np.ascontiguousarray(found)[..., None].view(np.float64),)


def _cumsum(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    """The axis may be a number or, as some exporters write it, a list of one."""
    axis = int(np.reshape(x[1], -1)[0])
    array = np.flip(x[0], axis) if attrs.get("reverse", 0) else x[0]
    total = np.cumsum(array, axis)
    total = total - array if attrs.get("exclusive", 0) else total
    return (np.flip(total, axis) if attrs.get("reverse", 0) else total,)


UNARY_OPS: dict[str, str] = {
    "Identity": "identity", "Neg": "neg", "Abs": "abs", "Sign": "sign", "Sqrt": "sqrt", "Reciprocal": "reciprocal",
    "Exp": "exp", "Log": "log", "Sin": "sin", "Cos": "cos", "Tanh": "tanh", "Erf": "erf", "Sigmoid": "sigmoid",
    "Relu": "relu", "Softplus": "softplus", "Softsign": "softsign", "HardSwish": "hardswish", "Mish": "mish",
    "Floor": "floor", "Ceil": "ceil", "Round": "round", "Tan": "tan", "Asin": "asin", "Acos": "acos", "Atan": "atan",
    "Sinh": "sinh", "Cosh": "cosh", "Asinh": "asinh", "Acosh": "acosh", "Atanh": "atanh",
}  # fmt: skip

KERNELS: dict[str, Kernel] = {
    **{kind: _elementwise(UNARY[function]) for kind, function in UNARY_OPS.items()},
    "Dropout": lambda x, attrs, results: (x[0], np.ones(np.shape(x[0]), bool))[:results],
    "Optional": lambda x, attrs, results: (x[0],),
    "OptionalGetElement": lambda x, attrs, results: (x[0],),
    "BitShift": _bit_shift,
    "GlobalLpPool": _global_lp_pool,
    "Not": _elementwise(np.logical_not),
    "Add": _elementwise(np.add),
    "Sub": _elementwise(np.subtract),
    "Mul": _elementwise(np.multiply),
    "Div": _elementwise(_divide),
    "Pow": _elementwise(np.power),
    "Max": _folded(np.maximum),
    "Min": _folded(np.minimum),
    "Sum": _folded(np.add),
    "And": _elementwise(np.logical_and),
    "Or": _elementwise(np.logical_or),
    "Greater": _elementwise(np.greater),
    "GreaterOrEqual": _elementwise(np.greater_equal),
    "Less": _elementwise(np.less),
    "LessOrEqual": _elementwise(np.less_equal),
    "Equal": _elementwise(np.equal),
    "Where": _where,
    "Clip": _clip,
    "Gelu": _gelu,
    "Cast": _cast,
    "GroupNormalization": _group_norm,
    "GlobalAveragePool": lambda x, attrs, results: (mean(x[0], tuple(range(2, x[0].ndim)), keepdims=True),),
    "GlobalMaxPool": lambda x, attrs, results: (x[0].max(tuple(range(2, x[0].ndim)), keepdims=True),),
    "MatMul": lambda x, attrs, results: (times(widened(x[0]), x[1]),),
    "Gemm": _gemm,
    "FusedMatMul": _fused_matmul,
    "MatMulNBits": _matmul_few_bits,
    "Einsum": lambda x, attrs, results: (einsum(text(attrs["equation"]), *x),),
    "Conv": _conv,
    "ReduceSum": _reduce(np.sum),
    "ReduceMean": _reduce(mean),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "SimplifiedLayerNormalization": _rms_norm,
    "BatchNormalization": _batch_norm,
    "MeanVarianceNormalization": _mean_variance,
    "LpNormalization": lambda x, attrs, results: (
        x[0] / np.linalg.norm(x[0], attrs.get("p", 2), attrs.get("axis", -1), keepdims=True),
    ),
    "CumSum": _cumsum,
    "DFT": _dft,
    **TIME_KERNELS,
    **SHAPE_KERNELS,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}
