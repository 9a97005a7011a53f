"""Products that sum over features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ssmc.frontend.findings import NOT_FEATURES
from ssmc.frontend.graph.contraction import einsum
from ssmc.frontend.graph.flow import Flow, Known, TimeMixing, Tracked, Unsupported, letter, wrap
from ssmc.frontend.rules.context import Context, Rule, flow_of, own_padding, present
from ssmc.frontend.rules.elementwise import binary, scalar
from ssmc.frontend.source.evaluate import run_call
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import along_axis, conv_padding, few_bits, text

LARGEST_IMAGE = 1 << 12  # values; beyond, the matrix is too large
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _matmul(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    return [product(context, items[0], items[1])]


def product(context: Context, a: Flow | Known, b: Flow | Known) -> Flow | Known:
    """numpy.matmul of two tracked tensors."""
    terms, result = product_terms([len(a.shape), len(b.shape)])
    return einsum(context.builder, terms, result, [a, b])


def product_terms(ranks: Sequence[int]) -> tuple[list[str], str]:
    """numpy.matmul of tensors of these ranks as an einsum: its two terms and its result."""
    outer = LETTERS[: max(max(ranks) - 2, 0)]
    first = "z" if ranks[0] == 1 else outer[len(outer) - ranks[0] + 2 :] + "yz"
    second = "z" if ranks[1] == 1 else outer[len(outer) - ranks[1] + 2 :] + "zx"
    result = outer + ("" if ranks[0] == 1 else "y") + ("" if ranks[1] == 1 else "x")
    return [first, second], result


def gemm_terms(attrs: Mapping[str, Any]) -> tuple[list[str], str]:
    """The matrices of a Gemm as an einsum."""
    return ["zy" if attrs.get("transA") else "yz", "xz" if attrs.get("transB") else "zx"], "yx"


def _gemm(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    attrs = call.attrs
    terms, result = gemm_terms(attrs)
    y: Flow | Known = einsum(context.builder, terms, result, items[:2])
    if attrs.get("alpha", 1.0) != 1.0:
        y = binary(context.builder, "mul", y, scalar(attrs["alpha"]))
    if len(items) > 2 and items[2] is not None:
        bias = items[2]
        if attrs.get("beta", 1.0) != 1.0:
            bias = _scaled(context, bias, attrs["beta"])
        y = binary(context.builder, "add", y, bias)
    return [y]


def _scaled(context: Context, item: Flow | Known, factor: float) -> Flow | Known:
    if isinstance(item, Known):
        return Known(np.asarray(item.array) * factor)
    return binary(context.builder, "mul", item, scalar(factor))


def _fused_matmul(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """com.microsoft FusedMatMul: alpha op(A) op(B)."""
    if call.attrs.get("transBatchA") or call.attrs.get("transBatchB"):
        raise Unsupported("it transposes batch axes")
    y = product(
        context,
        _swapped(context, items[0]) if call.attrs.get("transA") else items[0],
        _swapped(context, items[1]) if call.attrs.get("transB") else items[1],
    )
    return [binary(context.builder, "mul", y, scalar(call.attrs.get("alpha", 1.0)))]


def _matmul_few_bits(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """com.microsoft MatMulNBits: a product with a weight of few bits, scaled by blocks."""
    if not all(isinstance(item, Known) for item in present(items[1:])):
        raise Unsupported("its weight is computed from the input")
    if len(items) > 4 and items[4] is not None:
        raise Unsupported("its blocks are in an order of their own (g_idx)")
    y = product(
        context, items[0], Known(few_bits([None, *(None if x is None else x.array for x in items[1:4])], call.attrs))
    )
    return [binary(context.builder, "add", y, items[5]) if len(items) > 5 and items[5] is not None else y]


def _swapped(context: Context, item: Flow | Known) -> Flow | Known:
    rank = len(item.shape)
    term = LETTERS[:rank]
    return (
        einsum(context.builder, [term], term[:-2] + term[-1] + term[-2], [item])
        if isinstance(item, Flow)
        else Known(np.swapaxes(item.array, -1, -2))
    )


def einsum_terms(call: Call, items: Sequence[Any]) -> tuple[list[str], str]:
    """The terms and the result of an Einsum, a letter for each axis."""
    equation = text(call.attrs["equation"]).replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if "." in equation:
        ranks = [len(item.shape) - len(term.replace(".", "")) for term, item in zip(terms, items, strict=True)]
        most = "ABCDEFGH"[: max((r for r, t in zip(ranks, terms, strict=True) if "." in t), default=0)]
        terms = [t.replace("...", most[len(most) - r :]) for t, r in zip(terms, ranks, strict=True)]
        result = result.replace("...", most)
    if not arrow:
        joined = "".join(terms)
        result = "".join(sorted(c for c in set(joined) if joined.count(c) == 1))
    return terms, result


def _einsum(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    terms, result = einsum_terms(call, items)
    while len(items) > 2:  # pairwise from the left, keeping what is needed later
        later = "".join(terms[2:]) + result
        kept = "".join(dict.fromkeys(c for c in terms[0] + terms[1] if c in later))
        items = [einsum(context.builder, terms[:2], kept, list(items[:2])), *items[2:]]
        terms = [kept, *terms[2:]]
    if all(isinstance(item, Known) for item in items):
        return [Known(np.einsum(f"{','.join(terms)}->{result}", *(item.array for item in items)))]
    return [einsum(context.builder, terms, result, list(items))]


def _conv(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """A convolution with one tap is a matrix; with more it mixes what lies along the convolved axis."""
    if not isinstance(items[1], Known):
        raise Unsupported("its kernel is computed from the input")
    x, weight = flow_of(items[0]), np.asarray(items[1].array)
    spatial = len(x.shape) - 2
    taps = weight.shape[2:]
    strides = list(call.attrs.get("strides", [1] * spatial))
    if letter(1, x) != "f":
        raise TimeMixing(NOT_FEATURES)
    if all(t == 1 for t in taps) and all(s == 1 for s in strides) and not any(call.attrs.get("pads", [0])):
        y = _pointwise(context, x, weight, int(call.attrs.get("group", 1)))
    elif all(letter(2 + i, x) == "f" for i in range(spatial)):
        y = _within_features(context, call, x, weight)
    else:
        if "t" in x.axes[2:]:
            at = x.axes.index("t") - 2
            own_padding(context, along_axis(call.attrs, at, spatial), x.shape[2 + at], taps[at])
        raise TimeMixing(f"a convolution of {max(taps)} taps along time")
    if len(items) > 2 and items[2] is not None:
        y = binary(context.builder, "add", y, Known(np.asarray(items[2].array).reshape(-1, *([1] * spatial))))
    return [y]


def _pointwise(context: Context, x: Flow, weight: Any, groups: int) -> Flow | Known:
    term = "bc" + LETTERS[10 : 10 + len(x.shape) - 2]
    matrix = weight.reshape(weight.shape[:2])
    if groups == x.shape[1] == weight.shape[0]:  # depthwise: a factor for each channel
        return binary(context.builder, "mul", x, Known(matrix.reshape(-1, *([1] * (len(x.shape) - 2)))))
    if groups > 1:
        matrix = dense_groups(matrix, groups)
    return einsum(context.builder, [term, "oc"], term.replace("c", "o"), [x, Known(matrix)])


def dense_groups(matrix: Any, groups: int) -> Any:
    """The weight (outputs, inputs) of groups as one matrix (outputs, groups inputs), zero between groups."""
    outputs, inputs = matrix.shape
    whole = np.zeros((groups, outputs // groups, groups, inputs))
    for g in range(groups):
        whole[g, :, g] = matrix.reshape(groups, outputs // groups, inputs)[g]
    return whole.reshape(outputs, groups * inputs)


def _within_features(context: Context, call: Call, x: Flow, weight: Any) -> Flow | Known:
    """Convolution along feature axes, written as the matrix that it is."""
    if len(x.shape) != 3:
        return _image_convolution(context, call, x, weight)
    groups, length = int(call.attrs.get("group", 1)), x.shape[2]
    channels, outputs, taps = x.shape[1], weight.shape[0], weight.shape[2]
    stride, dilation = call.attrs.get("strides", [1])[0], call.attrs.get("dilations", [1])[0]
    left, right = conv_padding(call.attrs, length, taps)
    reach = (taps - 1) * dilation + 1
    steps = (length + left + right - reach) // stride + 1
    depthwise = groups == channels == outputs  # no channel meets another
    full = weight if depthwise else np.stack([dense_groups(weight[..., k], groups) for k in range(taps)], axis=2)
    matrix = np.zeros((outputs, steps, full.shape[1], length))
    for step in range(steps):
        for k in range(taps):
            position = step * stride + k * dilation - left
            if 0 <= position < length:
                matrix[:, step, :, position] += full[..., k]
    if depthwise:
        return einsum(context.builder, ["bcl", "csl"], "bcs", [x, Known(matrix[:, :, 0])])
    return einsum(context.builder, ["bcl", "oscl"], "bos", [x, Known(matrix)])


def _image_convolution(context: Context, call: Call, x: Flow, weight: Any) -> Flow | Known:
    """A convolution over an image: its answers to single pixels are the rows of the matrix."""
    size = int(np.prod(x.shape[1:], dtype=np.int64))
    if size > LARGEST_IMAGE:
        raise Unsupported(f"a convolution over an image of {size} values (at most {LARGEST_IMAGE})")
    pixels = np.eye(size).reshape(size, *x.shape[1:])
    answers = np.asarray(run_call(replace(call, operands=call.operands[:2]), [pixels, weight])[0])
    flat = context.builder.reshape(x.value, (size,))
    y = context.builder.linear(flat, answers.reshape(size, -1))
    shape = (x.shape[0], *answers.shape[1:])
    return wrap(context.builder.reshape(y, shape[1:]), x.axes, shape)


RULES: dict[str, Rule] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "FusedMatMul": _fused_matmul,
    "MatMulNBits": _matmul_few_bits,
    "Einsum": _einsum,
    "Conv": _conv,
}
