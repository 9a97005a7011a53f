"""Exact reasons for a region that nothing explains: where its steps go, followed by their numbers.

Every place of a tensor is given the number of the step that it holds. Ops that only move numbers are run on these, ops
that treat each step by itself keep them; where the steps then stand in another order, among values that are none of
theirs, or are weighed by a matrix, is what no system can say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.findings import Refusal
from ssmc.frontend.graph.flow import Flow, Known
from ssmc.frontend.source.blame import BROKEN
from ssmc.frontend.source.evaluate import run_call
from ssmc.frontend.source.listing import Call
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

MOVES = frozenset(
    [
        "Reshape",
        "Flatten",
        "Transpose",
        "Slice",
        "Gather",
        "Squeeze",
        "Unsqueeze",
        "Split",
        "Identity",
        "Concat",
        "Expand",
    ]
)
POINTWISE = frozenset(["Add", "Sub", "Mul", "Div", "Neg", "Cast"])
KEEPING = frozenset(
    ["Sigmoid", "Tanh", "Softplus", "Relu", "Gelu", "Erf", "Exp", "Swish", "Mul", "Add", "LayerNormalization"]
)
OTHER, FILLED = -1.0, -2.0  # the numbers of what is no step: values of their own, zeros that fill up
FEWEST = 3  # steps that can be told to be in another order
NAMED = 6  # steps of an order that are told

ORDER = (
    "it takes the {steps} steps in another order ({order}), as scans along columns, windows or curves of an image do; "
    "the targets go through a sequence forwards or backwards. Give the model its input in that order, or compile "
    "the layers of each order by themselves"
)
INSERTED = (
    "it makes {total} steps of {steps}: among those of the input stand {count} of the layer's own (a class token, a "
    "register), and no stream can have more steps than the input. Compile the part behind that node, and give it what "
    "that node gives"
)
OVER_TIME = (
    "it is a matrix over the whole time axis, {steps} steps to {to} (Linear over time), so that each of those behind "
    "it needs steps that are still to come. Compile the parts before and behind that node by themselves"
)


def told(translator: Translator, cone: Sequence[Call]) -> Refusal | None:
    """The first call of a cone that no system can say, and why; None where none is sure to be one.

    Where the steps are first laid out in rows and columns, what is behind the cone may tell.
    """
    sure = _first(translator, cone)
    if sure is not None or not any(call.kind == "Conv" for call in cone):
        return sure
    calls = [call for call in translator.listing.calls if call.position >= cone[0].position]
    return _first(translator, calls, behind=True)


def _first(translator: Translator, calls: Sequence[Call], behind: bool = False) -> Refusal | None:
    places: dict[Value, Array] = {}
    steps = 0
    for call in calls:
        for value in call.operands:
            flow = None if value is None else translator.lookup(value)
            if value is not None and isinstance(flow, Flow) and flow.axes.count("t") == 1 and "y" not in flow.axes:
                places[value] = _numbered(flow)
                steps = max(steps, int(places[value].max(initial=-1.0)) + 1)
        if steps < FEWEST or not any(v in places for v in call.operands):
            continue
        items = [None if v is None else places.get(v, translator.lookup(v)) for v in call.operands]
        if behind:  # shapes that nothing has asked for so far
            asked = {i: v for i, v in enumerate(call.operands) if v and items[i] is None and not _is_data(call, i)}
            sizes = translator.samples.at(0, asked.values())
            items = [Known(sizes[asked[i]]) if i in asked else item for i, item in enumerate(items)]
        reason = _over_time(call, items, steps)
        if reason is None:
            try:
                results = _followed(call, items)
                if behind and not results and isinstance(items[0], np.ndarray):
                    results = _kept(translator, call, items[0])
            except (UserError, *BROKEN):
                continue
            places.update(zip(call.results, results, strict=False))
            reason = next(filter(None, (_elsewhere(call, array, steps) for array in results)), None)
        if reason is not None:
            return Refusal(call.name, call.kind, reason)
    return None


def _numbered(flow: Flow) -> Array:
    """The number of the step that each place of a stream holds."""
    numbers = np.zeros([1] * len(flow.shape))
    for letter in "tw":  # the steps, or rows of them and the places in a row
        for axis, size in enumerate(flow.shape):
            if flow.axes[axis] == letter:
                counted = np.arange(size).reshape([-1 if i == axis else 1 for i in range(len(flow.shape))])
                numbers = numbers * size + counted
    return np.broadcast_to(numbers, flow.shape)


def _followed(call: Call, items: Sequence[Any]) -> list[Array]:
    """Where the steps are behind a call that moves them, or that treats each by itself; nothing for any other."""
    arrays = [_others(item) if isinstance(item, Known) and _is_data(call, i) else item for i, item in enumerate(items)]
    moved = [item for item in arrays if isinstance(item, np.ndarray)]
    if call.kind in MOVES:
        if any(not isinstance(item, np.ndarray) for i, item in enumerate(arrays) if _is_data(call, i)):
            return []
        return list(run_call(call, [item.stored if isinstance(item, Known) else item for item in arrays]))
    if call.kind in POINTWISE and all(isinstance(item, np.ndarray) for item in arrays):
        streams = [item for item in items if isinstance(item, np.ndarray)]
        shape = np.broadcast_shapes(*(item.shape for item in moved))
        whole = [np.broadcast_to(item, shape) for item in streams]
        return [whole[0]] if all(np.array_equal(whole[0], other) for other in whole[1:]) else []
    if call.kind == "MatMul" and isinstance(items[0], np.ndarray) and isinstance(items[1], Known):
        numbers, weight = items[0], items[1].shape
        if len(weight) == 2 and np.ptp(numbers, axis=-1).max() == 0:
            return [np.broadcast_to(numbers[..., :1], (*numbers.shape[:-1], weight[1]))]
    if call.kind == "Conv" and isinstance(items[0], np.ndarray) and isinstance(items[1], Known):
        numbers, weight = items[0], items[1].shape
        if set(weight[2:]) == {1} and set(call.attrs.get("strides", [1])) == {1}:
            return [np.broadcast_to(numbers[:, :1], (numbers.shape[0], weight[0], *numbers.shape[2:]))]
    return []


def _kept(translator: Translator, call: Call, numbers: Array) -> list[Array]:
    """Where the steps are behind a call that gives one of each, made of those around it, too."""
    result = call.results[0]
    shape = translator.samples.shape(result)
    if call.kind == "Conv" and shape[2:] == numbers.shape[2:] and numbers.shape[1]:
        return [np.broadcast_to(numbers[:, :1], shape)]
    return [numbers] if call.kind in KEEPING and shape == numbers.shape else []


def _is_data(call: Call, slot: int) -> bool:
    return slot == 0 or call.kind == "Concat" or call.kind in POINTWISE


def _others(known: Known) -> Array:
    """What is no step of the stream: zeros that fill it up, or other numbers."""
    return np.where(np.any(known.array), OTHER, FILLED) * np.ones(known.shape)


def _over_time(call: Call, items: Sequence[Any], steps: int) -> str | None:
    """A matrix whose rows or columns are steps, and that is not causal."""
    if call.kind != "MatMul" or len(items) != 2:
        return None
    for k, axis in ((0, -1), (1, -2)):
        numbers, weight = items[k], items[1 - k]
        if not isinstance(numbers, np.ndarray) or not isinstance(weight, Known) or len(weight.shape) < 2:
            continue
        if numbers.ndim < 2 or numbers.shape[axis] != steps or not _in_order(np.moveaxis(numbers, axis, -1)):
            continue
        matrix = np.asarray(weight.array) if k == 0 else np.swapaxes(np.asarray(weight.array), -1, -2)
        to = matrix.shape[-1]
        if to > 1 and np.any(np.tril(matrix, -1)):
            return OVER_TIME.format(steps=steps, to=to)
    return None


def _elsewhere(call: Call, numbers: Array, steps: int) -> str | None:
    """Are steps in another order behind a call, or among values that are none?"""
    if not numbers.size:
        return None
    for axis, size in enumerate(numbers.shape):
        fibres = np.moveaxis(numbers, axis, -1).reshape(-1, size)
        if size == steps and np.array_equal(np.sort(fibres), np.broadcast_to(np.arange(steps), fibres.shape)):
            changed = [f for f in fibres if (np.diff(f) != 1).any() and (np.diff(f) != -1).any()]
            if changed:
                order = ", ".join(str(int(n)) for n in changed[0][:NAMED]) + ", ..." * (steps > NAMED)
                return ORDER.format(steps=steps, order=order)
        if call.kind == "Concat" and size > steps and np.array_equal(fibres, np.broadcast_to(fibres[0], fibres.shape)):
            count = int((fibres[0] == OTHER).sum())
            if count == size - steps and _in_order(fibres[0][fibres[0] != OTHER]):
                return INSERTED.format(count=count, steps=steps, total=size)
    return None


def _in_order(numbers: Array) -> bool:
    return bool((numbers == np.arange(numbers.shape[-1])).all())
