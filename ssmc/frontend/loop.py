"""Loops over time: the body is one step, picked by its number from whole sequences or from what it carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmc.frontend.evaluate import body_of
from ssmc.frontend.flow import Flow, Known, Pieces, Refused, Tick, Tracked, Unsupported, is_stream
from ssmc.frontend.listing import Call, Listing
from ssmc.frontend.recurrence import State, lift_states
from ssmc.frontend.rules.shape import reshaped
from ssmc.frontend.stacking import sequence_of
from ssmc.frontend.translator import Samples, Translator
from ssmc.ir.graph import Value
from ssmc.ir.ops.onnx_op import region


@dataclass(frozen=True, eq=False)
class _Carried:
    """One carried value and what it is: 'same', 'tick', 'pieces', 'buffer' or 'state'."""

    kind: str
    current: Value
    following: Value
    initial: Any
    piece: Value | None = None


def translate_loop(translator: Translator, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """A Loop whose trips are the steps of the sequences that it picks from. Raises Unsupported for any other."""
    captured = int(call.op["captured"])
    own, outer = list(items[: len(items) - captured]), list(items[len(items) - captured :])
    if not isinstance(own[0], Known):
        raise Unsupported(
            "the number of its trips depends on the data" if own[0] is not None else "its end depends on the data"
        )
    length = int(np.asarray(own[0].array).reshape(-1)[0])
    body = body_of(region(call.op, "body"))
    names, outputs = list(body.inputs.values()), list(body.outputs.values())
    carried = [
        _classify(body, current, following, initial)
        for current, following, initial in zip(names[2 : len(own)], outputs[1 : len(own) - 1], own[2:], strict=True)
    ]
    points = _points(translator, call, body, length)
    inner = Translator(body, translator.builder, Samples(body, points), translator.findings, in_step=True)
    inner.env[names[0]], inner.env[names[1]] = Tick(1, 0, ()), Known(np.asarray(True))
    inner.env.update(zip(names[len(own) :], outer, strict=True))
    for item in carried:
        if item.kind == "same":
            inner.env[item.current] = item.initial
        elif item.kind == "tick":
            inner.env[item.current] = _counter(body, item)
        elif item.kind in ("pieces", "buffer"):
            inner.env[item.current] = Known(np.zeros(())) if item.kind == "buffer" else Known([])
    if not isinstance(inner.demand([outputs[0]])[0], Known):
        raise Unsupported("its end depends on the data")
    like = _stream_in(translator, own, outer)
    if like is None:
        raise Unsupported("nothing that it reads is a sequence of steps")
    states = [State(str(k), c.current, c.following, c.initial) for k, c in enumerate(carried) if c.kind == "state"]
    last = lift_states(inner, states, "Loop", like)
    found: list[Tracked] = []
    for k, value in enumerate(carried):
        found.append(_final(inner, value, last.get(str(k)), like, length))
    for stacked in inner.demand(outputs[len(own) - 1 :]):
        found.append(sequence_of(translator.builder, stacked, like, 0, False, length))
    return found


def _classify(body: Listing, current: Value, following: Value, initial: Any) -> _Carried:
    if following == current:
        return _Carried("same", current, following, initial)
    call = body.producer.get(following)
    if call is not None and call.operands and call.operands[0] == current:
        if call.kind == "SequenceInsert" and len(call.operands) == 2:
            return _Carried("pieces", current, following, initial, call.operands[1])
        if call.kind in ("ScatterND", "ScatterElements"):
            return _Carried("buffer", current, following, initial, call.operands[2])
    if call is not None and call.kind == "Identity" and call.operands[0] == current:
        return _Carried("same", current, following, initial)
    if isinstance(initial, Known) and np.asarray(initial.array).dtype.kind in "iu" and np.size(initial.array) == 1:
        return _Carried("tick", current, following, initial)
    return _Carried("state", current, following, initial)


def _counter(body: Listing, item: _Carried) -> Tracked:
    """An integer that grows by a constant each trip."""
    call = body.producer.get(item.following)
    constants = [body.constants[v] for v in call.operands if v in body.constants] if call is not None else []
    if call is None or call.kind != "Add" or item.current not in call.operands or len(constants) != 1:
        raise Unsupported("it carries an integer that is no counter")
    start = np.asarray(item.initial.array)
    return Tick(int(constants[0].reshape(-1)[0]), int(start.reshape(-1)[0]), start.shape)


def _stream_in(translator: Translator, own: Sequence[Any], outer: Sequence[Any]) -> Value | None:
    for item in (*outer, *own):
        if isinstance(item, Flow) and is_stream(translator.builder, item):
            return item.value
    return None


def _final(inner: Translator, item: _Carried, last: Tracked | None, like: Value, length: int) -> Tracked:
    """What a carried value is after the loop."""
    if item.kind == "state":
        return last or Refused()
    if item.kind == "same":
        return item.initial  # type: ignore[no-any-return]
    if item.kind == "tick":
        tick = _counter(inner.listing, item)
        assert isinstance(tick, Tick)
        return Known(np.full(tick.shape, tick.scale * length + tick.offset))
    assert item.piece is not None
    piece = inner.demand([item.piece])[0]
    if item.kind == "pieces":
        return Pieces(piece, like, length) if isinstance(piece, Flow | Known) else piece
    return _buffer(inner, item, piece, like, length)


def _buffer(inner: Translator, item: _Carried, piece: Tracked, like: Value, length: int) -> Tracked:
    """A tensor into which every trip writes its step."""
    if not isinstance(piece, Flow):
        return piece
    axis = _written_axis(inner, item, length)
    shape = tuple(np.shape(inner.samples.at(0, [item.current])[item.current]))
    step = reshaped(inner, piece, (*shape[:axis], *shape[axis + 1 :]))
    return sequence_of(inner.builder, step, like, axis, False, length)


def _written_axis(inner: Translator, item: _Carried, length: int) -> int:
    """The axis along which the buffer changes at the number of the step, and nowhere else."""
    candidates: set[int] | None = None
    for point, values in enumerate(inner.samples.points):
        before, after = (np.asarray(inner.samples.at(point, [v])[v]) for v in (item.current, item.following))
        step = int(values[next(iter(inner.listing.inputs.values()))])
        changed = before != after
        here = {
            axis
            for axis, size in enumerate(before.shape)
            if size == length and not np.delete(changed, step, axis=axis).any() and changed.any()
        }
        candidates = here if candidates is None else candidates & here
    if not candidates:
        raise Unsupported("it writes its steps to other places than their own")
    return min(candidates)


def _points(translator: Translator, call: Call, body: Listing, length: int) -> list[dict[Value, Any]]:
    """Sample points: the first and a later trip, what is carried drawn at random."""
    rng = np.random.default_rng(0)
    captured = int(call.op["captured"])
    points = []
    for outer in range(len(translator.samples.points)):
        values = [v for v in call.operands if v is not None]
        arrays = translator.samples.at(outer, values)
        given = [None if v is None else arrays[v] for v in call.operands]
        for step in {0, length // 2}:
            carried = [
                rng.standard_normal(np.shape(a)) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a
                for a in given[2 : len(given) - captured]
            ]
            own = [np.asarray(step, np.int64), np.asarray(True), *carried, *given[len(given) - captured :]]
            points.append(dict(zip(body.inputs.values(), own, strict=True)))
    return points


def concat_from_sequence(translator: Translator, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """The pieces of all steps as one tensor."""
    pieces = items[0]
    if not isinstance(pieces, Pieces):
        raise Unsupported("it joins something other than the steps of a loop")
    axis = int(call.attrs["axis"])
    item = pieces.item
    if not call.attrs.get("new_axis", 0):
        axis %= len(item.shape)
        if item.shape[axis] != 1:
            raise Unsupported("its steps give pieces of more than one entry")
        shape = (*item.shape[:axis], *item.shape[axis + 1 :])
        if isinstance(item, Flow):
            found = reshaped(translator, item, shape)
            return [sequence_of(translator.builder, found, pieces.like, axis, False, pieces.length)]
        item = Known(np.reshape(item.array, shape))
    else:
        axis %= len(item.shape) + 1
    return [sequence_of(translator.builder, item, pieces.like, axis, False, pieces.length)]
