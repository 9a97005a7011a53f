"""Scan, Loop and If: their bodies are translated as steps, their states lifted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ssmc.frontend.findings import NOT_TIME
from ssmc.frontend.graph.flow import Flow, Known, TimeMixing, Tracked, Unsupported, is_stream, reduced_table
from ssmc.frontend.graph.stacking import sequence_of
from ssmc.frontend.loops.behind import FIRST, Front, behind, behind_one, first_step, with_starts
from ssmc.frontend.loops.collected import concat_from_sequence
from ssmc.frontend.loops.inner import refuse_within, written_out
from ssmc.frontend.loops.loop import translate_loop
from ssmc.frontend.loops.outliers import telling_steps
from ssmc.frontend.loops.stacked import lift_rows, row_by_row
from ssmc.frontend.source.effort import body_around
from ssmc.frontend.source.evaluate import body_of, scan_form
from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.states.lifting import State
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value


def translate_scan(
    translator: Translator, call: Call, items: Sequence[Any], front: Front | None = None
) -> list[Tracked]:
    """A Scan over time: its body is one step. Where it goes over all steps but the first one, `front` may tell what
    stands there."""
    if translator.in_step:
        refuse_within(call, items)
    captured = int(call.op["captured"])
    own, outer = list(items[: len(items) - captured]), list(items[len(items) - captured :])
    form = scan_form(call, len(own), [len(item.shape) for item in own])
    length = next(item.shape[a] for item, a in zip(own[form.states :], form.input_axes, strict=True))
    body = replace(body_of(call), around=body_around(translator.listing.around, length))
    names, outputs = list(body.inputs.values()), list(body.outputs.values())
    points = _scan_points(translator, call, form, body)
    sequences = [v for v, f in zip(names[len(own) :], outer, strict=True) if isinstance(f, Flow) and "t" in f.axes]
    body = written_out(
        body, points[0], sequences, [v for v, f in zip(names[len(own) :], outer, strict=True) if isinstance(f, Known)]
    )
    starts: dict[Value, Tracked] = {}
    if front is not None:
        if any(form.input_reversed):
            raise Unsupported("it goes backwards")
        body, starts = with_starts(translator, body, outputs[: form.states], front, points)
        for k, axis in enumerate(form.input_axes):
            own[form.states + k] = behind_one(translator.builder, own[form.states + k], axis)
        own[: form.states] = [Known(np.zeros(np.shape(points[0][v]))) for v in names[: form.states]]
        length += 1
    states = [State(str(k), names[k], outputs[k], own[k]) for k in range(form.states)]
    body, rows = row_by_row(body, [(s.current, s.following, s.initial) for s in states], points)
    inner = translator.inside(body, points, in_step=True)
    given = next((f.value for f in own[form.states :] if isinstance(f, Flow)), None)
    for k, item in enumerate(own[form.states :]):
        axis, backward = form.input_axes[k], form.input_reversed[k]
        stream = _in_time(translator, item, axis, given)
        inner.env[names[form.states + k]] = _step_of(translator, stream, axis, backward)
    for value, item in zip(names[len(own) :], outer, strict=True):
        inner.env[value] = item
    like = next((f.value for f in inner.env.values() if isinstance(f, Flow) and is_stream(translator.builder, f)), None)
    if like is None:
        raise Unsupported("nothing that it scans depends on the input")
    if front is not None:
        inner.env.update({**starts, FIRST: first_step(translator.builder, like)})
    last = lift_rows(inner, states, rows, call.op.get("disguise") or "Scan", like)
    found: list[Tracked] = [last[str(k)] for k in range(form.states)]
    for k, item in enumerate(inner.demand(outputs[form.states :])):
        axis = form.output_axes[k]
        whole = sequence_of(translator.builder, item, like, axis, form.output_reversed[k], length)
        found.append(behind(translator.builder, whole, axis, 0 if front is None else 1))
    return found


def _in_time(translator: Translator, item: Flow | Known, axis: int, like: Value | None) -> Flow | Known:
    """A constant that is scanned as the stream that it is, where it differs from step to step."""
    if isinstance(item, Flow) or like is None:
        return item
    array = np.asarray(item.array)
    labels = "".join("t" if i == axis else "f" for i in range(array.ndim))
    table, changing = reduced_table(array, labels)
    if not changing:
        return item
    return Flow(translator.builder.positional(table, like, (array, labels)), labels, array.shape)


def _step_of(translator: Translator, item: Flow | Known, axis: int, backward: bool) -> Tracked:
    """A sequence as what one step of the body sees of it."""
    if isinstance(item, Known):
        return Known(np.take(item.array, 0, axis=axis))  # the same at every step
    if item.axes[axis] != "t":
        raise TimeMixing(NOT_TIME)
    value = translator.builder.reverse(item.value) if backward else item.value
    axes, shape = item.axes[:axis] + item.axes[axis + 1 :], (*item.shape[:axis], *item.shape[axis + 1 :])
    return replace(item, value=value, axes=axes, shape=shape)


def _scan_points(translator: Translator, call: Call, form: Any, body: Listing) -> list[dict[Value, Any]]:
    """Sample points for a body: what it sees at the first and at a later step, its states drawn at random."""
    points = []
    rng = np.random.default_rng(0)
    operands = [v for v in call.operands if v is not None]
    constants = translator.listing.constants
    tables = [
        (constants[v], axis)
        for v, axis in zip(operands[form.states :], form.input_axes, strict=False)
        if v in constants
    ]
    for outer in range(len(translator.samples.points)):
        arrays = translator.samples.at(outer, operands)
        given = [arrays[v] for v in operands]
        captured = given[len(given) - int(call.op["captured"]) :]
        own = given[: len(given) - int(call.op["captured"])]
        length = own[form.states].shape[form.input_axes[0]]
        for step in sorted(telling_steps(tables, {0, length // 2})):
            seen = [np.take(s, step, axis=a) for s, a in zip(own[form.states :], form.input_axes, strict=True)]
            states = [_state_at(rng, np.shape(s), [] if outer else seen) for s in own[: form.states]]
            points.append(dict(zip(body.inputs.values(), (*states, *seen, *captured), strict=True)))
    return points


def _state_at(rng: np.random.Generator, shape: tuple[int, ...], alike: Sequence[Any]) -> Any:
    """A state to study a step at: random, or whole numbers of the step itself, with which it may be compared."""
    whole = [a for a in alike if a.dtype.kind in "iub" and a.shape == shape]
    return np.asarray(whole[0], np.float64) if whole else rng.standard_normal(shape)


def _if(translator: Translator, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """An If whose condition does not depend on the data: the branch it takes, in place."""
    captured = int(call.op["captured"])
    condition = items[0]
    if not isinstance(condition, Known):
        raise Unsupported("its condition depends on the data")
    taken = bool(np.asarray(condition.array).reshape(-1)[0])
    body = replace(body_of(call, "then_branch" if taken else "else_branch"), around=translator.listing.around)
    operands = call.operands[len(call.operands) - captured :]
    outer = items[len(items) - captured :]
    points = []
    for point in range(len(translator.samples.points)):
        arrays = translator.samples.at(point, [v for v in operands if v is not None])
        points.append(
            {inner: arrays[v] for inner, v in zip(body.inputs.values(), operands, strict=True) if v is not None}
        )
    inner = translator.inside(body, points, translator.in_step)
    inner.env.update(zip(body.inputs.values(), outer, strict=True))
    return inner.demand(list(body.outputs.values()))


CONTROL_RULES: dict[str, Callable[[Translator, Call, Sequence[Any]], list[Tracked]]] = {
    "Scan": translate_scan,
    "If": _if,
    "Loop": translate_loop,
    "ConcatFromSequence": concat_from_sequence,
}
