"""Ops on single numbers, and on numbers that broadcast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from ssmc.frontend.graph.builder import Builder
from ssmc.frontend.graph.flow import Flow, Known, Tracked, Unsupported, align, wrap
from ssmc.frontend.rules.context import Context, Rule, flow_of, known_of, present
from ssmc.frontend.rules.zeros import zeros_of
from ssmc.frontend.source.kernels import UNARY_OPS
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import along, clip_bounds, quantized_range, text
from ssmc.frontend.source.refused import FLOATING

BINARY_OPS = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Pow": "pow", "Max": "max", "Min": "min", "Sum": "add",
    "Greater": "greater", "GreaterOrEqual": "greater_or_equal", "Equal": "equal", "And": "mul", "Or": "max",
}  # fmt: skip
SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875  # ONNX, Selu-22
LARGEST = float(np.finfo(np.float32).max)
SWAPPED_OPS = {"Less": "greater", "LessOrEqual": "greater_or_equal"}


def unary(builder: Builder, function: str, flow: Flow) -> Flow | Known:
    """A function of a tensor, element by element."""
    return wrap(builder.unary(function, flow.value), flow.axes, flow.shape)


def binary(builder: Builder, function: str, a: Flow | Known, b: Flow | Known) -> Flow | Known:
    """A function of two tensors, element by element, their axes aligned as ONNX broadcasts them."""
    (x, y), axes, shape = align(builder, [a, b])
    return wrap(builder.binary(function, x, y), axes, shape)


def scalar(value: float) -> Known:
    """A number as an operand."""
    return Known(np.asarray(float(value)))


def _unary_rule(function: str) -> Rule:
    return lambda context, call, items: [unary(context.builder, function, flow_of(items[0]))]


def _binary_rule(function: str, swap: bool = False) -> Rule:
    def rule(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
        items = list(reversed(items)) if swap else list(items)
        if len(items) == 1:
            return [items[0]]
        if call.kind == "Pow" and isinstance(items[1], Known):
            special = _power(context.builder, items[0], np.asarray(items[1].array))
            if special is not None:
                return [special]
        zeros = zeros_of(call, items)
        return [zeros] if zeros is not None else [reduce(lambda a, b: binary(context.builder, function, a, b), items)]

    return rule


def _power(builder: Builder, base: Flow, exponent: Any) -> Tracked | None:
    """Powers that have a name of their own."""
    names = {1.0: "identity", 2.0: "square", 0.5: "sqrt", -1.0: "reciprocal", -0.5: "rsqrt"}
    if exponent.size == 1 and float(exponent.reshape(-1)[0]) in names:
        return unary(builder, names[float(exponent.reshape(-1)[0])], base)
    if exponent.size == 1 and float(exponent.reshape(-1)[0]) == 3.0:
        square = unary(builder, "square", base)
        assert isinstance(square, Flow)
        return binary(builder, "mul", square, base)
    return None


def _cast(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    from onnx import helper

    flow = flow_of(items[0])
    target = np.dtype(helper.tensor_dtype_to_np_dtype(call.attrs["to"]))
    if target.kind == "b":
        zero = binary(context.builder, "equal", flow, scalar(0))
        return [binary(context.builder, "sub", scalar(1), zero)]
    if target.kind in "iu" and context.dtype(call, 0) == "f":
        down = binary(context.builder, "mul", _sign(context.builder, flow), _magnitude(context.builder, flow))
        return [down]  # towards zero
    return [flow]


def _sign(builder: Builder, flow: Flow) -> Flow | Known:
    return wrap(builder.unary("sign", flow.value), flow.axes, flow.shape)


def _magnitude(builder: Builder, flow: Flow) -> Flow | Known:
    return wrap(builder.unary("floor", builder.unary("abs", flow.value)), flow.axes, flow.shape)


def _where(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    if isinstance(items[0], Known):
        condition = np.asarray(items[0].array)
        if condition.all() or not condition.any():
            chosen = items[1] if condition.all() else items[2]
            shape = np.broadcast_shapes(*(item.shape for item in items))
            if tuple(chosen.shape) == shape:
                return [chosen]
        items = [Known(condition.astype(np.float64)), *items[1:]]
    operands, axes, shape = align(context.builder, items)
    return [wrap(context.builder.emit("select", operands), axes, shape)]


def _clip(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    arrays = [None if item is None else item.array if isinstance(item, Known) else item for item in items]
    low, high = clip_bounds(arrays, call.attrs)
    result: Flow | Known = flow_of(items[0])
    for function, bound in (("max", low), ("min", high)):
        if bound is not None:
            limit = bound if isinstance(bound, Flow) else Known(np.asarray(bound))
            if isinstance(limit, Known) and not np.isfinite(limit.array).all():
                continue
            result = binary(context.builder, function, result, limit)
    return [result]


def _gelu(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    tanh = text(call.attrs.get("approximate", "none")) == "tanh"
    return [unary(context.builder, "gelu_tanh" if tanh else "gelu", flow_of(items[0]))]


def _not(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    return [binary(context.builder, "sub", scalar(1), flow_of(items[0]))]


def _leaky(slope: Callable[[Call, Sequence[Any]], Flow | Known]) -> Rule:
    """max(x, 0) + slope min(x, 0)."""

    def rule(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
        flow, builder = flow_of(items[0]), context.builder
        below = binary(builder, "min", flow, scalar(0))
        return [binary(builder, "add", unary(builder, "relu", flow), binary(builder, "mul", slope(call, items), below))]

    return rule


def _elu(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    alpha = float(call.attrs.get("alpha", 1.0))
    flow, builder = flow_of(items[0]), context.builder
    if alpha == 1.0:
        return [unary(builder, "elu", flow)]
    raised = unary(builder, "exp", _only(binary(builder, "min", flow, scalar(0))))
    below = binary(builder, "mul", scalar(alpha), binary(builder, "sub", raised, scalar(1)))
    return [binary(builder, "add", unary(builder, "relu", flow), below)]


def _celu(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """max(x, 0) + alpha (exp(min(x, 0) / alpha) - 1)."""
    alpha = float(call.attrs.get("alpha", 1.0))
    flow, builder = flow_of(items[0]), context.builder
    if alpha == 1.0:
        return [unary(builder, "elu", flow)]
    below = binary(builder, "div", _only(binary(builder, "min", flow, scalar(0))), scalar(alpha))
    grown = binary(builder, "sub", unary(builder, "exp", _only(below)), scalar(1))
    return [binary(builder, "add", unary(builder, "relu", flow), binary(builder, "mul", scalar(alpha), grown))]


def _thresholded(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """x where x > alpha, else 0."""
    flow, builder = flow_of(items[0]), context.builder
    above = binary(builder, "greater", flow, scalar(call.attrs.get("alpha", 1.0)))
    return [binary(builder, "mul", above, flow)]


def _shrink(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """x - bias where x > lambd, x + bias where x < -lambd, else 0."""
    flow, builder = flow_of(items[0]), context.builder
    lambd, bias = float(call.attrs.get("lambd", 0.5)), float(call.attrs.get("bias", 0.0))
    above = binary(builder, "greater", flow, scalar(lambd))
    below = binary(builder, "greater", scalar(-lambd), flow)
    kept = binary(builder, "mul", binary(builder, "add", above, below), flow)
    return [binary(builder, "sub", kept, binary(builder, "mul", scalar(bias), binary(builder, "sub", above, below)))]


def _mod(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """a - b floor(a / b), or with fmod a - b trunc(a / b)."""
    builder = context.builder
    if _of_integers(context, call, items):
        whole = _whole_quotient(builder, items[0], items[1], towards_zero=bool(call.attrs.get("fmod")))
        return [binary(builder, "sub", items[0], binary(builder, "mul", items[1], whole))]
    ratio = _only(binary(builder, "div", items[0], items[1]))
    if call.attrs.get("fmod"):
        whole = binary(builder, "mul", _sign(builder, ratio), _magnitude(builder, ratio))
    else:
        whole = unary(builder, "floor", ratio)
    return [binary(builder, "sub", items[0], binary(builder, "mul", items[1], whole))]


def _div(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """The quotient, of integers without its fraction."""
    if _of_integers(context, call, items):
        return [_whole_quotient(context.builder, items[0], items[1], towards_zero=True)]
    return [binary(context.builder, "div", items[0], items[1])]


def _of_integers(context: Context, call: Call, items: Sequence[Any]) -> bool:
    """Does a node compute with integers? What it is given is run only where nothing else tells."""
    if call.dtypes[0].startswith(("float", "bfloat", "double")):
        return False
    if any(isinstance(item, Known) and np.asarray(item.stored).dtype.kind == "f" for item in items):
        return False
    return context.dtype(call, 0) in "iu"


def _whole_quotient(builder: Builder, a: Flow | Known, b: Flow | Known, towards_zero: bool) -> Flow | Known:
    """a / b of integers, down or towards zero: half a b-th more leaves no quotient on an edge."""
    signs = None
    if towards_zero:
        signs = unary(builder, "sign", _only(binary(builder, "mul", a, b)))
        a = unary(builder, "abs", a) if isinstance(a, Flow) else Known(np.abs(np.asarray(a.array, np.float64)))
        b = unary(builder, "abs", b) if isinstance(b, Flow) else Known(np.abs(np.asarray(b.array, np.float64)))
    turned = unary(builder, "sign", b) if isinstance(b, Flow) else Known(np.sign(np.asarray(b.array, np.float64)))
    more = binary(builder, "add", a, binary(builder, "mul", turned, scalar(0.5)))
    whole = unary(builder, "floor", _only(binary(builder, "div", more, b)))
    return whole if signs is None else binary(builder, "mul", signs, whole)


def _xor(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    return [binary(context.builder, "sub", scalar(1), binary(context.builder, "equal", items[0], items[1]))]


def _is_nan(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """What does not equal itself."""
    return [binary(context.builder, "sub", scalar(1), binary(context.builder, "equal", items[0], items[0]))]


def _is_infinite(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow, builder = flow_of(items[0]), context.builder
    found: Flow | Known = scalar(0)
    for sign, name in ((1.0, "detect_positive"), (-1.0, "detect_negative")):
        if call.attrs.get(name, 1):
            there = binary(builder, "greater", binary(builder, "mul", flow, scalar(sign)), scalar(LARGEST))
            found = binary(builder, "add", found, there)
    return [found]


def _one_hot(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """Rows of a table: `on` at the place that the index tells, from the end where it is negative, `off` elsewhere."""
    index, builder = flow_of(items[0]), context.builder
    if not all(isinstance(item, Known) for item in items[1:]):
        raise Unsupported("its depth or its values are computed from the input")
    depth, (off, on) = int(np.asarray(items[1].array).reshape(-1)[0]), np.asarray(items[2].array, np.float64)
    rank = len(index.shape) + 1
    axis = int(call.attrs.get("axis", -1))
    if not -rank <= axis < rank:
        raise Unsupported(f"its axis {axis} is none of the {rank} of what it makes")
    axis %= rank
    shape = (*index.shape[:axis], 1, *index.shape[axis:])
    axes = index.axes[:axis] + "f" + index.axes[axis:]
    wide = Flow(index.value, axes, shape)
    features = builder.reshape(index.value, wide.features)
    places = np.arange(float(depth)).reshape(depth, *[1] * (rank - 1 - axis))
    told = wrap(features, axes, shape)
    ends = [binary(builder, "equal", told, Known(from_)) for from_ in (places, places - depth)]
    there = binary(builder, "add", *ends)
    return [binary(builder, "add", binary(builder, "mul", there, scalar(on - off)), scalar(off))]


def _only(item: Flow | Known) -> Flow:
    assert isinstance(item, Flow)
    return item


def _hard_sigmoid(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    builder = context.builder
    alpha, beta = float(call.attrs.get("alpha", 0.2)), float(call.attrs.get("beta", 0.5))
    line = binary(builder, "add", binary(builder, "mul", flow_of(items[0]), scalar(alpha)), scalar(beta))
    return [binary(builder, "min", binary(builder, "max", line, scalar(0)), scalar(1))]


def _swish(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """x sigmoid(alpha x)."""
    alpha = float(call.attrs.get("alpha", 1.0))
    flow, builder = flow_of(items[0]), context.builder
    if alpha == 1.0:
        return [unary(builder, "silu", flow)]
    if alpha == 0.0:
        return [binary(builder, "mul", flow, scalar(0.5))]
    inner = unary(builder, "sigmoid", _only(binary(builder, "mul", flow, scalar(alpha))))
    return [binary(builder, "mul", flow, inner)]


def _swiglu(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """Swish(a) b."""
    if isinstance(items[0], Known):
        a, alpha = np.asarray(items[0].array, np.float64), float(call.attrs.get("alpha", 1.0))
        return [binary(context.builder, "mul", flow_of(items[1]), Known(a / (1 + np.exp(-alpha * a))))]
    (swish,) = _swish(context, call, items[:1])
    assert isinstance(swish, Flow)
    return [binary(context.builder, "mul", swish, items[1])]


def _quantize(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """round(x / scale) + zero, clipped: the integers as numbers."""
    flow, builder = flow_of(items[0]), context.builder
    if not all(isinstance(item, Known) for item in present(items[1:])):
        raise Unsupported("its scale is computed from the input")
    if (ends := quantized_range(call.attrs)) is None:
        raise Unsupported(FLOATING)
    low, high = ends
    scale = Known(along(items[1].array, flow.shape, call.attrs))
    zero = along(items[2].array, flow.shape, call.attrs) if len(items) > 2 and items[2] is not None else np.zeros(())
    rounded = unary(builder, "round", _only(binary(builder, "div", flow, scale)))
    shifted = binary(builder, "add", rounded, Known(np.asarray(zero, np.float64)))
    return [binary(builder, "min", binary(builder, "max", shifted, scalar(low)), scalar(high))]


def _dequantize(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow, builder = flow_of(items[0]), context.builder
    if not all(isinstance(item, Known) for item in present(items[1:])):
        raise Unsupported("its scale is computed from the input")
    zero = along(items[2].array, flow.shape, call.attrs) if len(items) > 2 and items[2] is not None else np.zeros(())
    centred = binary(builder, "sub", flow, Known(np.asarray(zero, np.float64)))
    return [binary(builder, "mul", centred, Known(along(items[1].array, flow.shape, call.attrs)))]


def _selu(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """gamma (max(x, 0) + alpha (exp(min(x, 0)) - 1))."""
    alpha, gamma = float(call.attrs.get("alpha", SELU_ALPHA)), float(call.attrs.get("gamma", SELU_GAMMA))
    flow, builder = flow_of(items[0]), context.builder
    if np.allclose([alpha, gamma], [SELU_ALPHA, SELU_GAMMA], rtol=1e-6):
        return [unary(builder, "selu", flow)]
    grown = unary(builder, "exp", _only(binary(builder, "min", flow, scalar(0))))
    below = binary(builder, "mul", scalar(alpha), binary(builder, "sub", grown, scalar(1)))
    return [binary(builder, "mul", scalar(gamma), binary(builder, "add", unary(builder, "relu", flow), below))]


def _bit_shift(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """Unsigned numbers times or by a power of two; what is shifted out is lost."""
    flow, builder = flow_of(items[0]), context.builder
    if not isinstance(items[1], Known):
        raise Unsupported("how far it shifts is computed from the input")
    factor = Known(2.0 ** np.asarray(items[1].array, np.float64))
    if text(call.attrs["direction"]) == "RIGHT":
        return [unary(builder, "floor", _only(binary(builder, "div", flow, factor)))]
    size = scalar(2.0 ** context.bits(call, 0))
    moved = binary(builder, "mul", flow, factor)
    over = unary(builder, "floor", _only(binary(builder, "div", moved, size)))
    return [binary(builder, "sub", moved, binary(builder, "mul", over, size))]


def identity(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """The first operand itself."""
    return [items[0]]


def _dropout(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """Nothing, and a mask of ones. Raises Unsupported where it is left in training mode."""
    ratio = 0.5 if len(items) < 2 or items[1] is None else float(np.max(known_of(items[1], "ratio")))
    if len(items) > 2 and items[2] is not None and np.any(known_of(items[2], "training mode")) and ratio:
        raise Unsupported("it draws random numbers; export the model in evaluation mode")
    return [items[0], Known(np.ones(items[0].shape, bool))]


RULES: dict[str, Rule] = {
    **{kind: _unary_rule(function) for kind, function in UNARY_OPS.items()},
    **{kind: _binary_rule(function) for kind, function in BINARY_OPS.items()},
    **{kind: _binary_rule(function, swap=True) for kind, function in SWAPPED_OPS.items()},
    "Identity": identity,
    "Dropout": _dropout,
    "BitShift": _bit_shift,
    "Cast": _cast,
    "CastLike": identity,
    "Not": _not,
    "Where": _where,
    "Clip": _clip,
    "Gelu": _gelu,
    "Swish": _swish,
    "SwiGLU": _swiglu,
    "LeakyRelu": _leaky(lambda call, items: scalar(call.attrs.get("alpha", 0.01))),
    "PRelu": _leaky(lambda call, items: items[1]),
    "Elu": _elu,
    "Celu": _celu,
    "ThresholdedRelu": _thresholded,
    "Shrink": _shrink,
    "Div": _div,
    "Mod": _mod,
    "Xor": _xor,
    "IsNaN": _is_nan,
    "IsInf": _is_infinite,
    "OneHot": _one_hot,
    "Selu": _selu,
    "HardSigmoid": _hard_sigmoid,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}
