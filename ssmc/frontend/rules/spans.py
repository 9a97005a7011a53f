"""What takes spans of the time axis that no linear system explains: strided filters, patches, the last steps, weights
over all steps.

These ops may also be parts of a recurrence in disguise, so they stay raw until nothing else explains what they make;
then they are said one by one: delays and a matrix, every n-th step of it, a sum over the sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ssmc.frontend.graph.builder import Builder, Operand
from ssmc.frontend.graph.flow import Flow, Known, Raw, Refused, TimeMixing, Tracked, Unsupported, wrap
from ssmc.frontend.rules.context import Surroundings, arrays_or_flows, known_of, sampled
from ssmc.frontend.rules.elementwise import binary
from ssmc.frontend.rules.finer import repeated, steps_of_features
from ssmc.frontend.rules.frames import frames, joined_frames
from ssmc.frontend.rules.masks import as_stream, picked_by_ones, picked_of_samples, picked_step
from ssmc.frontend.rules.matrix import einsum_terms, gemm_terms, product_terms
from ssmc.frontend.rules.pairs import contracted_pairs
from ssmc.frontend.rules.reduction import OF_PAIRS
from ssmc.frontend.rules.shape import reshaped
from ssmc.frontend.rules.strided import averaged, strided_conv
from ssmc.frontend.rules.time_sums import summed_over_time
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import reshape_target, slices_of
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

LONGEST = 256  # steps that one value may span (ours)
CHOSEN = 4  # nodes that take steps by their numbers (ours)
SHORT = 32  # steps that are features rather than a short sequence, where the file does not tell (ours)


def spelled_out(translator: Surroundings, call: Call) -> list[Tracked]:
    """The results of a call whose operands are known. Raises Unsupported, with the reason, where there is no rule."""
    of_pairs = contracted_pairs(translator, call)
    if of_pairs is not None:
        return of_pairs
    if call.kind not in RULES:
        raise Unsupported("it mixes time")
    items = [translator.lookup(v) for v in call.operands]
    if any(isinstance(item, Refused) for item in items):
        raise Unsupported("what it is given could not be translated")
    return RULES[call.kind](translator, call, items)


# -- parts of the time axis --------------------------------------------------------------------------------


def _slice(translator: Surroundings, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """A part of the steps: as a stream where it is as long as the rest, else as features of the sequence."""
    flow = items[0]
    if not isinstance(flow, Flow):
        raise Unsupported("it mixes time")
    builder, parts = translator.builder, slices_of(arrays_or_flows(items), call.attrs, len(flow.shape))
    if len(parts) != 1 or flow.axes[parts[0][0]] != "t":
        raise Unsupported("it takes parts of several axes")
    ((axis, part),) = parts
    length = flow.shape[axis]
    chosen = range(length)[part]
    if chosen.step < 1 or not chosen:
        raise TimeMixing(f"it takes steps {chosen.start} to {chosen.stop} of {length}")
    if part.start is not None and part.start < 0 and chosen.step == 1 and chosen.stop == length:
        return [_last_steps(builder, flow, axis, range(-len(chosen), 0))]
    to_end = len(chosen) == len(range(chosen.start, length, chosen.step))
    computed = len(items) > 2 and call.operands[2] not in translator.listing.constants
    from_end = part.stop is not None and (part.stop < 0 or computed)
    few = len(chosen) <= SHORT and length >= 4 * len(chosen)
    if not to_end and not from_end and (translator.dynamic or few):
        return [chosen_steps(translator, flow, axis, np.asarray(chosen))]
    if not to_end and chosen.step > 1:
        raise TimeMixing(f"it takes steps {chosen.start} to {chosen.stop} of {length}")
    left = 0 if to_end else length - chosen.stop  # out at the end: as a delay that is out at the beginning
    value = builder.add("delay", [flow.value], steps=left) if left else flow.value
    value = builder.add("downsample", [value], stride=chosen.step, kind="take", offset=chosen.start + left)
    return [Flow(value, flow.axes, (*flow.shape[:axis], len(chosen), *flow.shape[axis + 1 :]))]


def chosen_steps(translator: Surroundings, flow: Flow, axis: int, index: Array) -> Flow:
    """Steps told by their numbers, as features of the sequence: sums over all steps, of which one each counts."""
    builder = translator.builder
    _count_chosen(translator)
    if index.size > LONGEST:
        raise TimeMixing(f"it takes {index.size} steps by their numbers (at most {LONGEST})")
    axes = flow.axes[:axis] + "f" + flow.axes[axis + 1 :]
    place = Flow(flow.value, axes, (*flow.shape[:axis], 1, *flow.shape[axis + 1 :]))
    numbers = index.reshape(-1, *[1] * (-1 - place.from_right(axis))).astype(np.float64)
    there = builder.binary("equal", builder.steps(flow.value), numbers)
    each = builder.binary("mul", there, builder.reshape(flow.value, place.features))
    value = builder.add("pool", [each], kind="sum")
    return Flow(value, axes, (*flow.shape[:axis], index.size, *flow.shape[axis + 1 :]))


def _count_chosen(translator: Surroundings) -> None:
    translator.findings.chosen += 1
    if translator.findings.chosen > CHOSEN:  # a loop that was unrolled and is no system
        raise TimeMixing("it takes single steps, as others do")


def _gathered(translator: Surroundings, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """Single steps by their numbers, or a tensor that is looked up in the order in which it lies there."""
    flow, index = items[0], items[1]
    if isinstance(flow, Flow) and not isinstance(index, Known):
        return picked_of_samples(translator, call, items)
    if not isinstance(flow, Flow) or not isinstance(index, Known):
        return _viewed(translator, call, items)
    axis, position = int(call.attrs.get("axis", 0)) % len(flow.axes), np.asarray(index.array).astype(np.int64)
    times = position.size // max(flow.shape[axis], 1) if flow.axes[axis] == "t" and position.ndim == 1 else 0
    if times > 1 and np.array_equal(position, np.repeat(np.arange(flow.shape[axis]), times)):
        return [repeated(translator, flow, times)]
    if flow.axes[axis] == "t" and position.ndim == 2:
        return [frames(translator, flow, position, (axis, axis + 1))]
    from_end = np.all(position < 0)
    if flow.axes[axis] != "t" or position.ndim > 1 or (np.any(position < 0) and not from_end):
        raise TimeMixing("it takes single steps")
    if from_end:
        _count_chosen(translator)
        found = _last_steps(translator.builder, flow, axis, position.reshape(-1).tolist())
    else:
        found = chosen_steps(translator, flow, axis, position.reshape(-1))
    if position.ndim:
        return [found]
    shape, axes = (*found.shape[:axis], *found.shape[axis + 1 :]), found.axes[:axis] + found.axes[axis + 1 :]
    return [wrap(translator.builder.reshape(found.value, Flow(found.value, axes, shape).features), axes, shape)]


def _last_steps(builder: Builder, flow: Flow, axis: int, places: Sequence[int]) -> Flow:
    """Steps counted from the last one, which is -1, as features of the sequence."""
    if -min(places) > LONGEST or len(places) > LONGEST:
        raise TimeMixing(f"it takes the last {-min(places)} steps (at most {LONGEST})")
    axes = flow.axes[:axis] + "f" + flow.axes[axis + 1 :]
    one = (*flow.shape[:axis], 1, *flow.shape[axis + 1 :])
    place = Flow(flow.value, axes, one)
    delayed: list[Value] = [flow.value]  # by so many steps
    while len(delayed) < -min(places):
        delayed.append(builder.add("delay", [delayed[-1]], steps=1))
    parts = [builder.reshape(delayed[-1 - k], place.features) for k in places]
    stacked = builder.concat(parts, place.from_right(axis))
    value = builder.add("pool", [stacked], kind="last")
    return Flow(value, axes, (*flow.shape[:axis], len(places), *flow.shape[axis + 1 :]))


def _reshape(translator: Surroundings, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """Patches: `n` steps and their features become the features of one step."""
    flow = items[0]
    if not isinstance(flow, Flow):
        raise Unsupported("it mixes time")
    wanted = known_of(items[1], "shape") if len(items) > 1 else call.attrs["shape"]
    target = reshape_target(flow.shape, [int(d) for d in wanted], bool(call.attrs.get("allowzero", 0)))
    finer = steps_of_features(translator, flow, target)
    if finer is not None:
        return [finer]
    if "w" not in flow.axes:
        at = flow.axes.index("t") if "t" in flow.axes else -1
        steps = target[at] if 0 <= at < len(target) else 0
        if at < 0 or target[:at] != flow.shape[:at] or not steps or flow.shape[at] % steps:
            raise TimeMixing("it merges or splits the time axis")
        window = flow.shape[at] // steps
        shape = (*flow.shape[:at], steps, window, *flow.shape[at + 1 :])
        flow = Flow(flow.value, flow.axes[:at] + "tw" + flow.axes[at + 1 :], shape)
    return [reshaped(translator, unfolded(translator.builder, flow), target)]


def unfolded(builder: Builder, flow: Flow) -> Flow:
    """A stream in windows, with the steps of a window as features of one step."""
    at = flow.axes.index("w")
    window = flow.shape[at]
    if window > LONGEST:
        raise TimeMixing(f"a window of {window} steps (at most {LONGEST})")
    axes = flow.axes.replace("w", "f")
    place = Flow(flow.value, axes, (*flow.shape[:at], 1, *flow.shape[at + 1 :]))
    parts: list[Operand] = [flow.value]
    for _ in range(window - 1):
        parts.insert(0, builder.add("delay", [parts[0]], steps=1))
    stacked = builder.concat([builder.reshape(p, place.features) for p in parts], place.from_right(at))
    value = builder.add("downsample", [stacked], stride=window, kind="take", offset=window - 1)
    return Flow(value, axes, flow.shape)


def _windowed(translator: Surroundings, call: Call, items: Sequence[Any]) -> list[Tracked]:
    windowed = any(isinstance(item, Flow) and "w" in item.axes for item in items)
    if not windowed or any(isinstance(item, Raw) for item in items):
        raise Unsupported("it mixes time")
    plain = [unfolded(translator.builder, i) if isinstance(i, Flow) and "w" in i.axes else i for i in items]
    found: list[Tracked] = translator.apply(call, plain)
    return found


def _concatenated(translator: Surroundings, call: Call, items: Sequence[Any]) -> list[Tracked]:
    windowed = any(isinstance(item, Flow) and "w" in item.axes for item in items)
    return (_windowed if windowed else joined_frames)(translator, call, items)


# -- sums over all steps -----------------------------------------------------------------------------------


def _contracted(translator: Surroundings, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """A product that sums over time: what it sums, at every step, and a sum over the sequence of it."""
    if call.kind == "Gemm":
        terms, result = gemm_terms(call.attrs)
    elif call.kind == "Einsum":
        shaped = [np.broadcast_to(0.0, _shape_of(translator, v)) for v in call.operands if v is not None]
        terms, result = einsum_terms(call, shaped)
    else:
        terms, result = product_terms([len(_shape_of(translator, v)) for v in call.operands if v is not None])
    if len(terms) != 2:
        raise Unsupported("it mixes time")
    if call.kind == "Einsum" and (step := picked_by_ones(translator, call, items, terms, result)) is not None:
        return [step]
    operands, terms = _unflattened(translator, call, list(items[:2]), list(terms))
    found = summed_over_time(translator.builder, terms, result, operands)
    if call.kind == "Gemm":
        found = binary(translator.builder, "mul", found, Known(np.asarray(call.attrs.get("alpha", 1.0))))
        if len(items) > 2 and items[2] is not None:
            beta = Known(np.asarray(known_of(items[2], "bias")) * call.attrs.get("beta", 1.0))
            found = binary(translator.builder, "add", found, beta)
    return [found]


def _shape_of(translator: Surroundings, value: Value) -> tuple[int, ...]:
    item = translator.lookup(value)
    if isinstance(item, Flow | Known):
        return item.shape
    return tuple(sampled(translator, value).shape)


def _unflattened(
    translator: Surroundings, call: Call, items: list[Any], terms: list[str]
) -> tuple[list[Flow | Known], list[str]]:
    """The operands of a product; where one is steps and features flattened into one axis, as they were before."""
    if isinstance(items[0], Raw) and isinstance(items[1], Known) and len(terms[0]) == 2:
        value = call.operands[0]
        assert value is not None
        before = translator.listing.producer.get(value)
        while before is not None and before.kind in ("Identity", "Dropout"):
            before = translator.listing.maker(before.operands[0])
        flow = None if before is None or before.kind not in ("Reshape", "Flatten") else before.operands[0]
        source = None if flow is None else translator.lookup(flow)
        if isinstance(source, Flow) and source.axes[:1] == "b" and set(source.axes) <= set("btf"):
            flat = prod(source.shape[1:])
            if _shape_of(translator, value) == (source.shape[0], flat):
                letters = "ABCDEFGH"[: len(source.shape) - 1]
                gone = terms[0][1]
                at = terms[1].index(gone)
                weight = np.asarray(items[1].stored)
                shape = (*weight.shape[:at], *source.shape[1:], *weight.shape[at + 1 :])
                return [source, Known(weight.reshape(shape))], [terms[0][0] + letters, terms[1].replace(gone, letters)]
    if any(isinstance(item, Raw) for item in items):
        raise Unsupported("it mixes time")
    return items, terms


# -- values of a sequence that are meant step by step ------------------------------------------------------


def _stepwise(translator: Surroundings, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """An elementwise op between a stream and a mask: what the mask is made of has its time axis seen from here."""
    if any(isinstance(item, Flow) and "w" in item.axes for item in items):
        return _windowed(translator, call, items)
    stream = next((i for i in items if isinstance(i, Flow) and "t" in i.axes), None)
    if stream is None or any(not isinstance(item, Flow | Known) for item in items):
        raise Unsupported("it mixes time")
    behind = len(stream.axes) - stream.axes.index("t")  # the time axis, counted from the right
    timed = [as_stream(translator, v, behind, stream) for v in call.operands if v is not None]
    found: list[Tracked] = translator.apply(call, timed)
    return found


def _viewed(translator: Surroundings, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """A tensor flattened whole and looked up in the order in which it lies there (as_strided)."""
    value = call.operands[0]
    assert value is not None
    before = translator.listing.producer.get(value)
    source = None if before is None or before.kind != "Reshape" else translator.lookup(before.operands[0])
    if not isinstance(items[0], Raw) or not isinstance(source, Flow) or not isinstance(items[1], Known):
        raise Unsupported("it mixes time")
    index, size = np.asarray(items[1].array), prod(source.shape)
    if _shape_of(translator, value) != (size,) or not np.array_equal(index.reshape(-1), np.arange(size)):
        raise Unsupported("it mixes time")
    return [reshaped(translator, source, index.shape)]


Rule = Callable[[Any, Call, Sequence[Any]], list[Tracked]]
RULES: dict[str, Rule] = {
    "Conv": strided_conv,
    "AveragePool": averaged,
    "Slice": _slice,
    "Reshape": _reshape,
    "Flatten": _windowed,
    "Transpose": _windowed,
    "Add": _stepwise,
    "Sub": _stepwise,
    "Mul": _stepwise,
    "Div": _stepwise,
    "Where": _stepwise,
    "Gather": _gathered,
    "GatherElements": picked_step,
    "GatherND": picked_of_samples,
    "Concat": _concatenated,
    "MatMul": _contracted,
    "Gemm": _contracted,
    "Einsum": _contracted,
    **OF_PAIRS,
}
