"""Reductions over features and over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.frontend.graph.contraction import einsum
from ssmc.frontend.graph.flow import Flow, Known, TimeMixing, Tracked, Unsupported, known_along, wrap
from ssmc.frontend.graph.magnitude import magnitude
from ssmc.frontend.rules.context import Context, Rule, Surroundings, arrays_or_flows, flow_of, known_of
from ssmc.frontend.rules.elementwise import binary, unary
from ssmc.frontend.rules.masks import in_time
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import axes_of

SMALL = 20.0  # exponentials of what is no larger, and their sums, are well inside float32 (ours)


def _reduce_rule(function: str, before: str = "identity", after: str = "identity", pairs: bool = False) -> Rule:
    """A reduction; of products of every step with every other only where `pairs` says so."""

    def rule(context: Surroundings, call: Call, items: Sequence[Any]) -> list[Tracked]:
        flow = flow_of(items[0])
        axes = axes_of(arrays_or_flows(items), call.attrs, 1)
        if not axes:
            if call.attrs.get("noop_with_empty_axes"):
                return [flow]
            axes = list(range(len(flow.shape)))
        if not pairs and function in ("sum", "mean") and _weighs_pairs(context, call, flow, axes):
            raise TimeMixing(f"it takes the {function} over time with weights for every pair of steps")
        mapped = unary(context.builder, before, in_time(context, call, flow, axes))
        assert isinstance(mapped, Flow)
        result = reduced(context, mapped, function, axes, bool(call.attrs.get("keepdims", 1)))
        return [unary(context.builder, after, result)]

    return rule


def _weighs_pairs(translator: Surroundings, call: Call, flow: Flow, axes: Sequence[int]) -> bool:
    """Are the steps that it sums weighted by a table (steps, steps), as a Toeplitz product written without MatMul?"""
    times = [a % len(flow.shape) for a in axes if flow.axes[a] == "t"]
    made = None if call.operands[0] is None else translator.listing.producer.get(call.operands[0])
    while made is not None and made.kind in ("Cast", "Identity") and made.operands[0] is not None:
        made = translator.listing.producer.get(made.operands[0])
    if len(times) != 1 or made is None or made.kind != "Mul":
        return False
    tables = [np.asarray(i.stored) for v in made.operands if isinstance(i := translator.lookup(v), Known)]
    streams = [i for v in made.operands if isinstance(i := translator.lookup(v), Flow)]
    if len(tables) != 1 or len(streams) != 1 or tables[0].ndim != len(flow.shape):
        return False
    own = (1,) * (len(flow.shape) - len(streams[0].shape)) + streams[0].shape
    new = [i for i, d in enumerate(own) if d == 1 and flow.axes[i] == "f" and flow.shape[i] == flow.shape[times[0]]]
    return bool(new) and all(known_along(tables[0], i) is None for i in (times[0], new[0]))


def plain(item: Flow | Known) -> Flow:
    """The item, which is a flow."""
    assert isinstance(item, Flow)
    return item


def _log_sum_exp(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """log sum exp(x), from the largest of them on, so that nothing overflows."""
    flow, builder = flow_of(items[0]), context.builder
    axes = axes_of(arrays_or_flows(items), call.attrs, 1)
    if not axes:
        axes = [] if call.attrs.get("noop_with_empty_axes") else list(range(len(flow.shape)))
    keep = bool(call.attrs.get("keepdims", 1))
    features = [a for a in axes if flow.axes[a] == "f"]
    result = flow
    if features:
        largest = reduced(context, flow, "max", features, True)
        spread = plain(unary(builder, "exp", plain(binary(builder, "sub", flow, largest))))
        sums = unary(builder, "log", reduced(context, spread, "sum", features, True))
        result = plain(binary(builder, "add", sums, largest))
    rest = [a for a in axes if flow.axes[a] != "f"]
    if rest:
        low, top = _from_the_largest(context, result, rest)
        sums = reduced(context, plain(unary(builder, "exp", low)), "sum", rest, True)
        result = plain(binary(builder, "add", unary(builder, "log", plain(sums)), top))
    return [result if keep else _squeezed(context, result, axes)]


def _squeezed(context: Context, flow: Flow, axes: Sequence[int]) -> Flow:
    kept = [i for i in range(len(flow.shape)) if i not in {a % len(flow.shape) for a in axes}]
    labels, shape = "".join(flow.axes[i] for i in kept), tuple(flow.shape[i] for i in kept)
    features = tuple(d for d, a in zip(shape, labels, strict=True) if a == "f")
    return plain(wrap(context.builder.reshape(flow.value, features), labels, shape))


def _arg_rule(function: str) -> Rule:
    """ArgMax, ArgMin over a feature axis."""

    def rule(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
        flow, last = flow_of(items[0]), bool(call.attrs.get("select_last_index"))
        axis = int(call.attrs.get("axis", 0)) % len(flow.shape)
        return [_first_place(context, flow, axis, function, int(call.attrs.get("keepdims", 1)), last)]

    return rule


def _first_place(context: Context, flow: Flow, axis: int, function: str, keepdims: int, last: bool) -> Flow | Known:
    """The first (or last) place where the extreme of a feature axis stands."""
    if flow.axes[axis] != "f":
        raise TimeMixing("it asks at which step the extreme stands")
    builder, size, behind = context.builder, flow.shape[axis], len(flow.shape) - axis - 1
    there = plain(binary(builder, "equal", flow, reduced(context, flow, function, [axis], True)))
    places = np.arange(float(size)) if last else size - np.arange(float(size))
    marked = plain(binary(builder, "mul", there, Known(places.reshape(size, *[1] * behind))))
    found: Flow | Known = reduced(context, marked, "max", [axis], bool(keepdims))
    return found if last else binary(builder, "sub", Known(np.asarray(float(size))), found)


def reduced(context: Context, flow: Flow, function: str, axes: Sequence[int], keep: bool) -> Flow:
    """A reduction: over features at every step, over time to one value per sequence."""
    rank, builder = len(flow.shape), context.builder
    gone = sorted({a % rank for a in axes})
    if any(flow.axes[a] == "b" for a in gone):
        raise Unsupported("it reduces over the batch")
    time = [a for a in gone if flow.axes[a] == "t"]
    if time and function == "min":  # the largest of the negated
        opposite = reduced(context, plain(unary(builder, "neg", flow)), "max", axes, keep)
        return plain(unary(builder, "neg", opposite))
    if time and function not in ("mean", "sum", "max"):
        raise TimeMixing(f"it takes the {function} over time")
    features = [flow.from_right(a) for a in gone if flow.axes[a] == "f"]
    value: Any = flow.value
    if features:
        value = builder.emit("reduce", [value], fn=function, axes=tuple(features), keepdims=True)
    if time:
        value = builder.add("pool", [value], kind=function)
    kept = [i for i in range(rank) if keep or i not in gone]
    shape = tuple(1 if i in gone else flow.shape[i] for i in kept)
    labels = "".join("f" if i in gone else flow.axes[i] for i in kept)
    value = builder.reshape(value, tuple(d for d, a in zip(shape, labels, strict=True) if a == "f"))
    result = wrap(value, labels, shape)
    assert isinstance(result, Flow)
    return result


def _hard_max(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """1 where the first of the largest features stands, 0 elsewhere."""
    flow = flow_of(items[0])
    axis = int(call.attrs.get("axis", -1)) % len(flow.shape)
    if int(call.op["version"]) < 13 and axis != len(flow.shape) - 1:
        raise Unsupported("a maximum over several axes (opset below 13)")
    place = _first_place(context, flow, axis, "max", 1, False)
    places = np.arange(float(flow.shape[axis])).reshape(-1, *[1] * (len(flow.shape) - axis - 1))
    return [binary(context.builder, "equal", Known(places), place)]


def _lp_norm(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """x divided by the sum of |x|, or by the root of the sum of x^2, along one axis."""
    flow, builder = flow_of(items[0]), context.builder
    before, after = ("abs", "identity") if int(call.attrs.get("p", 2)) == 1 else ("square", "sqrt")
    sums = reduced(context, plain(unary(builder, before, flow)), "sum", [int(call.attrs.get("axis", -1))], True)
    return [binary(builder, "div", flow, unary(builder, after, sums))]


def _global_average(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow, order = flow_of(items[0]), int(call.attrs.get("p", 2))
    if call.kind == "GlobalLpPool" and order in (1, 2):
        before, after = ("abs", "identity") if order == 1 else ("square", "sqrt")
        sums = reduced(context, plain(unary(context.builder, before, flow)), "sum", range(2, len(flow.shape)), True)
        return [unary(context.builder, after, sums)]
    if call.kind == "GlobalLpPool":
        raise Unsupported(f"a norm of order {order}")
    function = "mean" if call.kind == "GlobalAveragePool" else "max"
    return [reduced(context, flow, function, range(2, len(flow.shape)), True)]


def _running_sum(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """A cumulative sum along features: a triangular matrix."""
    flow = flow_of(items[0])
    axis = int(np.asarray(known_of(items[1], "axis")).reshape(-1)[0]) % len(flow.shape)
    if flow.axes[axis] != "f":
        raise TimeMixing("it brings several steps together")
    size = flow.shape[axis]
    matrix = np.triu(np.ones((size, size)), 1 if call.attrs.get("exclusive") else 0)
    matrix = matrix.T if call.attrs.get("reverse") else matrix
    letters = "abcdefghijkl"[: len(flow.shape)]
    result = letters[:axis] + "z" + letters[axis + 1 :]
    return [einsum(context.builder, [letters, letters[axis] + "z"], result, [flow, Known(matrix)])]


def _mean_of(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    total = items[0]
    for other in items[1:]:
        total = binary(context.builder, "add", total, other)
    return [binary(context.builder, "div", total, Known(np.asarray(float(len(items)))))]


def _from_the_largest(context: Context, flow: Flow, axes: Sequence[int]) -> tuple[Flow, Flow | Known]:
    """Numbers to take exponentials of, and what was taken from them: nothing where they are small whatever comes, else
    the largest of the sequence, which takes another run."""
    if magnitude(context.builder.graph, flow.value) <= SMALL:
        return flow, Known(np.zeros(()))
    top = reduced(context, flow, "max", axes, True)
    return plain(binary(context.builder, "sub", flow, top)), top


def _softmax(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    flow, builder = flow_of(items[0]), context.builder
    old = int(call.op["version"]) < 13
    axis = call.attrs.get("axis", 1 if old else -1) % len(flow.shape)
    if flow.axes[axis] == "b":
        raise Unsupported("a softmax over the batch")
    if flow.axes[axis] == "t":  # its sum is known after the last step
        low, _ = _from_the_largest(context, flow, [axis])
        grown = plain(unary(builder, "exp", low))
        total = reduced(context, grown, "sum", [axis], True)
        if call.kind == "LogSoftmax":
            return [binary(builder, "sub", low, unary(builder, "log", total))]
        return [binary(builder, "div", grown, total)]
    if old and axis != len(flow.shape) - 1:
        raise Unsupported("a softmax over several axes (opset below 13)")
    features = flow.feature_axes()
    order = [i for i in range(len(features)) if features[i] != axis] + [features.index(axis)]
    x = builder.transpose(flow.value, order)
    y = builder.emit("softmax", [x], log=call.kind == "LogSoftmax")
    return [wrap(builder.transpose(y, list(np.argsort(order))), flow.axes, flow.shape)]


OF_PAIRS: dict[str, Rule] = {
    "ReduceMean": _reduce_rule("mean", pairs=True),
    "ReduceSum": _reduce_rule("sum", pairs=True),
}
RULES: dict[str, Rule] = {
    "ReduceMean": _reduce_rule("mean"),
    "ReduceSum": _reduce_rule("sum"),
    "ReduceMax": _reduce_rule("max"),
    "ReduceMin": _reduce_rule("min"),
    "ReduceProd": _reduce_rule("prod"),
    "ReduceSumSquare": _reduce_rule("sum", before="square"),
    "ReduceL1": _reduce_rule("sum", before="abs"),
    "ReduceL2": _reduce_rule("sum", before="square", after="sqrt"),
    "ReduceLogSum": _reduce_rule("sum", after="log"),
    "ReduceLogSumExp": _log_sum_exp,
    "ArgMax": _arg_rule("max"),
    "ArgMin": _arg_rule("min"),
    "CumSum": _running_sum,
    "Mean": _mean_of,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_average,
    "GlobalLpPool": _global_average,
    "Softmax": _softmax,
    "Hardmax": _hard_max,
    "LpNormalization": _lp_norm,
    "LogSoftmax": _softmax,
}
