"""Loops over time: the body is one step, picked by its number from whole sequences or from what it carries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, Members, Pieces, Refused, Tracked, Unsupported, is_stream, wrap
from ssmc.frontend.graph.stacking import sequence_of
from ssmc.frontend.loops.branches import unbranched
from ssmc.frontend.loops.inner import refuse_within, written_out
from ssmc.frontend.loops.stacked import lift_rows, row_by_row
from ssmc.frontend.loops.ticks import LONGEST as LONGEST_TABLE
from ssmc.frontend.loops.ticks import counted_on, tick_of
from ssmc.frontend.loops.writes import moved_from, with_joined_writes
from ssmc.frontend.rules.elementwise import binary
from ssmc.frontend.rules.sequences import joined
from ssmc.frontend.rules.shape import reshaped
from ssmc.frontend.source.effort import body_around
from ssmc.frontend.source.evaluate import body_of, evaluate
from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.source.operands import text
from ssmc.frontend.source.samples import Samples
from ssmc.frontend.states.lifting import State
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

LAYOUT = frozenset(["Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Cast"])
CHOOSING = frozenset(["Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "Mod", "Where"])
ADDED = 1e-9  # what a sum with random numbers near 1 leaves of a number's digits
NOT_EMPTY = (
    "the tensor that each of its trips makes longer holds something before the first one, as the state that it starts "
    "from, and has more entries than there are steps; let it start empty"
)
LONGEST, COUNTED = 1 << 17, 1 << 15  # trips of a loop, and of one that counts for itself (ours)


@dataclass(frozen=True, eq=False)
class _Carried:
    """One carried value and what it is: 'same', 'counted', 'pieces', 'grown', 'buffer' or 'state'.

    Of a tensor that every trip makes longer by a step, `axis` is that along which it does; there and in 'pieces' the
    steps may come to the `front`.
    """

    kind: str
    current: Value
    following: Value
    initial: Any
    piece: Value | None = None
    adds: bool = False  # what is written is added to what was there
    axis: int = 0
    front: bool = False


@dataclass(frozen=True, eq=False)
class _Count:
    """How often a loop runs, and the carried values that follow from that: `tables[value]` (trips + 1, ...)."""

    trips: int
    tables: dict[Value, Array]


def translate_loop(translator: Translator, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """A Loop whose trips are the steps of the sequences that it picks from. Raises Unsupported for any other."""
    if translator.in_step:
        refuse_within(call, items)
    captured = int(call.op["captured"])
    own, outer = list(items[: len(items) - captured]), list(items[len(items) - captured :])
    if own[0] is not None and not isinstance(own[0], Known):
        raise Unsupported("the number of its trips depends on the data")
    limit = LONGEST if own[0] is None else min(int(np.asarray(own[0].array).reshape(-1)[0]), LONGEST)
    body = replace(body_of(call), around=body_around(translator.listing.around, min(limit, COUNTED)))
    names, outputs = list(body.inputs.values()), list(body.outputs.values())
    states = list(zip(names[2 : len(own)], outputs[1 : len(own) - 1], own[2:], strict=True))
    given = {v: item for v, item in zip(names[len(own) :], outer, strict=True) if isinstance(item, Known)}
    given |= {now: first for now, following, first in states if _is_same(body, now, following, first)}
    count = _count(body, own, limit, states, {v: item.stored for v, item in given.items()})
    body = unbranched(body, {names[0], *count.tables})
    body = replace(body, around=body_around(translator.listing.around, count.trips))
    carried = [_classify(body, *state, count, given) for state in states]
    points = _points(translator, call, body, count, {item.current for item in carried if item.kind == "same"})
    whole = [
        v for v, item in zip(names[2:], (*own[2:], *outer), strict=True) if isinstance(item, Flow) and "t" in item.axes
    ]
    inner_written = written_out(body, points[0], whole, {names[0], *given, *count.tables})
    if inner_written is not body:
        body, outputs = inner_written, list(inner_written.outputs.values())
        carried = [_classify(body, *state, count, given) for state in states]
    body = with_joined_writes(body, Samples(body, points))
    like = _stream_in(translator, own, outer)
    if like is None:
        raise Unsupported("nothing that it reads is a sequence of steps")
    carries = [(c.current, c.following, c.initial) for c in carried if c.kind == "state"]
    body, rows = row_by_row(body, carries, points)
    inner = replace(translator.inside(body, points, in_step=True), stream=like)
    reach = max(count.trips, LONGEST_TABLE) if translator.dynamic else count.trips
    inner.env[names[0]], inner.env[names[1]] = tick_of(np.arange(reach), count.trips), Known(np.asarray(True))
    inner.env.update(zip(names[len(own) :], outer, strict=True))
    for item in carried:
        if item.kind == "same":
            inner.env[item.current] = item.initial
        elif item.kind == "counted":
            inner.env[item.current] = tick_of(counted_on(count.tables[item.current][:-1], reach), count.trips)
        elif item.kind in ("buffer", "grown"):
            inner.env[item.current] = Known(np.zeros(np.shape(points[0][item.current])))
        elif item.kind == "pieces":
            inner.env[item.current] = Known([])
    if any(c.kind == "state" and isinstance(c.initial, Flow) and "t" in c.initial.axes for c in carried):
        raise Unsupported("it carries a whole sequence from trip to trip, as a stack of layers does")
    lifted = [State(str(k), c.current, c.following, c.initial) for k, c in enumerate(carried) if c.kind == "state"]
    last = lift_rows(inner, lifted, rows, "Loop", like)
    found: list[Tracked] = []
    for k, value in enumerate(carried):
        found.append(_final(inner, value, last.get(str(k)), like, count))
    for stacked in inner.demand(outputs[len(own) - 1 :]):
        found.append(sequence_of(translator.builder, stacked, like, 0, False, count.trips))
    return found


def _is_same(body: Listing, current: Value, following: Value, initial: Any) -> bool:
    """Is this a known value that is only carried along?"""
    call = body.producer.get(following)
    handed = call is not None and call.kind == "Identity" and call.operands[0] == current
    return isinstance(initial, Known) and (following == current or handed)


def _count(
    body: Listing,
    own: Sequence[Any],
    limit: int,
    states: Sequence[tuple[Value, Value, Any]],
    given: Mapping[Value, Any],
) -> _Count:
    """Run what decides the end of the loop of at most so many trips: counters, and the condition."""
    names, outputs = list(body.inputs.values()), list(body.outputs.values())
    counted = {
        now: (following, first.stored)
        for now, following, first in states
        if isinstance(first, Known)
        and not isinstance(first.stored, list)
        and np.asarray(first.stored).dtype.kind in "iub"
    }
    while loose := [
        now for now, (following, _) in counted.items() if not _follows(body, following, {*names[:2], *counted, *given})
    ]:
        for now in loose:
            counted.pop(now)
    if not _follows(body, outputs[0], {*names[:2], *counted, *given}):
        raise Unsupported("its end depends on the data")
    going = len(own) < 2 or own[1] is None or (isinstance(own[1], Known) and bool(np.all(own[1].array)))
    wanted = [outputs[0], *(following for following, _ in counted.values())]
    rows = [[np.asarray(first) for _, first in counted.values()]]
    trips = 0
    if going and not counted and _follows(body, outputs[0], {names[1], *given}):  # the same at every trip
        found = evaluate(body, {**given, names[1]: np.asarray(True)}, [outputs[0]])
        trips, going = (limit, False) if np.all(found[outputs[0]]) else (0, True)
    while going and trips < limit:
        if trips == COUNTED:
            raise Unsupported("its end cannot be found")
        feed = {**given, names[0]: np.asarray(trips), names[1]: np.asarray(True)}
        found = evaluate(body, {**feed, **dict(zip(counted, rows[-1], strict=True))}, wanted)
        rows.append([np.asarray(found[v]) for v in wanted[1:]])
        going = bool(np.all(found[outputs[0]]))
        trips += 1
    if not 0 < trips < LONGEST:
        raise Unsupported("its end cannot be found" if trips else "it makes no trip")
    return _Count(trips, {now: np.stack([row[k] for row in rows]) for k, now in enumerate(counted)})


def _follows(body: Listing, value: Value, known: Collection[Value]) -> bool:
    """Does the value depend on these alone?"""
    made = {v for call in body.needed([value], known) for v in call.results}
    read = {v for call in body.needed([value], known) for v in call.operands if v is not None} | {value}
    return all(v in made or v in known or v in body.constants for v in read)


def _classify(
    body: Listing, current: Value, following: Value, initial: Any, count: _Count, given: Mapping[Value, Known]
) -> _Carried:
    if following == current:
        return _Carried("same", current, following, initial)
    if current in count.tables:
        return _Carried("counted", current, following, initial)
    call = _behind_layout(body, following)
    if call is not None and call.kind == "Identity" and call.operands[0] == current:
        return _Carried("same", current, following, initial)
    if call is not None and call.operands and call.operands[0] is not None:
        if call.kind == "SequenceInsert" and call.operands[0] == current:
            at = call.operands[2] if len(call.operands) > 2 else None
            place = None if at is None else given[at].stored if at in given else body.constants.get(at)
            if at is None or (place is not None and not np.any(place)):
                return _Carried("pieces", current, following, initial, call.operands[1], front=place is not None)
        source = call.operands[0]
        while source != current and (before := body.producer.get(source)) is not None and before.kind in LAYOUT:
            assert before.operands[0] is not None
            source = before.operands[0]
        if call.kind in ("ScatterND", "ScatterElements") and source == current:
            how = text(call.attrs.get("reduction", "none"))
            if how in ("none", "add"):
                return _Carried("buffer", current, following, initial, call.operands[2], how == "add")
        ends = list(call.operands)
        if call.kind == "Concat" and len(ends) == 2 and current in ends:
            axis, front = int(call.attrs["axis"]), ends[1] == current
            if 0 in getattr(initial, "shape", ()) and initial.shape[axis] == 0:
                return _Carried("grown", current, following, initial, ends[0 if front else 1], axis=axis, front=front)
            raise Unsupported(NOT_EMPTY)
    return _Carried("state", current, following, initial)


def _behind_layout(body: Listing, value: Value) -> Call | None:
    """The node that makes a value, before it was only laid out in another way."""
    call = body.producer.get(value)
    while call is not None and call.kind in LAYOUT and call.operands[0] in body.producer:
        call = body.producer[call.operands[0]]
    return call


def _stream_in(translator: Translator, own: Sequence[Any], outer: Sequence[Any]) -> Value | None:
    for item in (*outer, *own):
        if isinstance(item, Flow) and is_stream(translator.builder, item):
            return item.value
    return None


def _final(inner: Translator, item: _Carried, last: Tracked | None, like: Value, count: _Count) -> Tracked:
    """What a carried value is after the loop."""
    if item.kind == "state":
        return last or Refused()
    if item.kind == "same":
        return item.initial  # type: ignore[no-any-return]
    if item.kind == "counted":
        return Known(count.tables[item.current][-1])
    if item.kind == "buffer":
        written = _buffer(inner, item, like, count.trips)
        if item.adds and not isinstance(written, Refused):
            return binary(inner.builder, "add", item.initial, written)  # type: ignore[arg-type]
        return written
    assert item.piece is not None
    piece = inner.demand([item.piece])[0]
    if item.kind == "grown":
        return _stacked(inner, piece, item.axis, like, count.trips, item.front)
    return Pieces(piece, like, count.trips, item.front) if isinstance(piece, Flow | Known) else piece


def _buffer(inner: Translator, item: _Carried, like: Value, length: int) -> Tracked:
    """A tensor into which every trip writes its step."""
    axis, backward = _written_axis(inner, item, length)
    written = []
    for point, values in enumerate(inner.samples.points):
        step = int(values[next(iter(inner.listing.inputs.values()))])
        before, after = (np.asarray(inner.samples.at(point, [v])[v]) for v in (item.current, item.following))
        after = after - before if item.adds else after
        written.append(np.take(after, length - 1 - step if backward else step, axis=axis))
    piece, order = _piece(inner, item, written)
    found = inner.demand([piece])[0]
    if not isinstance(found, Flow):
        return found
    shape = written[0].shape
    kept = [i for i, size in enumerate(found.shape) if size != 1]
    wide = iter(kept[i] for i in order)
    axes = "".join(found.axes[next(wide)] if size != 1 else "f" for size in shape)
    if "b" in found.axes and "b" not in axes:  # a batch of one
        axes = axes.replace("f", "b", 1)
    features = [i for i in kept if found.axes[i] == "f"]
    value = inner.builder.reshape(found.value, tuple(found.shape[i] for i in features))
    value = inner.builder.transpose(value, [features.index(kept[i]) for i in order if kept[i] in features])
    value = inner.builder.reshape(value, tuple(d for d, a in zip(shape, axes, strict=True) if a == "f"))
    return sequence_of(inner.builder, wrap(value, axes, shape), like, axis, backward, length)


def _piece(inner: Translator, item: _Carried, written: Sequence[Array]) -> tuple[Value, tuple[int, ...]]:
    """The value that is written, before it was laid out for that, and the order in which its axes are."""
    assert item.piece is not None
    room = ADDED if item.adds else 0.0
    for value in moved_from(inner.listing, item.piece):
        arrays = [np.squeeze(inner.samples.at(k, [value])[value]) for k in range(len(written))]
        for order in permutations(range(arrays[0].ndim)):
            if all(_agree(a.transpose(order), np.squeeze(w), room) for a, w in zip(arrays, written, strict=True)):
                return value, order
    raise Unsupported("what it writes at every step is not understood")


def _agree(a: Array, b: Array, room: float) -> bool:
    return a.shape == b.shape and bool(np.abs(a - b).max(initial=0.0) <= room)


def _written_axis(inner: Translator, item: _Carried, length: int) -> tuple[int, bool]:
    """The axis along which the buffer changes at the number of the step and nowhere else; is it counted backward?"""
    candidates: set[tuple[int, bool]] | None = None
    for point, values in enumerate(inner.samples.points):
        before, after = (np.asarray(inner.samples.at(point, [v])[v]) for v in (item.current, item.following))
        step = int(values[next(iter(inner.listing.inputs.values()))])
        changed = before != after
        here = {
            (axis, backward)
            for axis, size in enumerate(before.shape)
            for backward, place in ((False, step), (True, length - 1 - step))
            if size == length and not np.delete(changed, place, axis=axis).any() and changed.any()
        }
        candidates = here if candidates is None else candidates & here
    if not candidates:
        raise Unsupported("it writes its steps to other places than their own")
    return min(candidates)


def _points(
    translator: Translator, call: Call, body: Listing, count: _Count, same: Collection[Value]
) -> list[dict[Value, Any]]:
    """Sample points: the first, a later trip, the last where trips may differ; what changes on the way at random."""
    rng = np.random.default_rng(0)
    captured = int(call.op["captured"])
    names = list(body.inputs.values())
    counted = body.influenced({names[0], *count.tables})
    differ = any(call.kind in CHOOSING and not counted.isdisjoint(call.operands) for call in body.calls)
    steps = {0, min(count.trips // 2 | 1, count.trips - 1), *([count.trips - 1] if differ else [])}
    points = []
    for outer in range(len(translator.samples.points)):
        values = [v for v in call.operands if v is not None]
        arrays = translator.samples.at(outer, values)
        given = [None if v is None else arrays[v] for v in call.operands]
        for step in sorted(steps):
            carried = [
                _drawn(rng, a) if now not in same else a
                for now, a in zip(names[2:], given[2 : len(given) - captured], strict=False)
            ]
            own = [np.asarray(step, np.int64), np.asarray(True), *carried, *given[len(given) - captured :]]
            points.append(dict(zip(names, own, strict=True)))
            points[-1].update({now: table[step] for now, table in count.tables.items()})
    return points


def _drawn(rng: np.random.Generator, array: Any) -> Any:
    """Random numbers in place of those of a tensor; anything else as it is."""
    is_real = isinstance(array, np.ndarray) and array.dtype.kind == "f"
    return rng.standard_normal(array.shape) if is_real else array


def concat_from_sequence(translator: Translator, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """The pieces of all steps as one tensor."""
    pieces = items[0]
    if isinstance(pieces, Members):
        return joined(translator, call, pieces)
    if not isinstance(pieces, Pieces):
        raise Unsupported("it joins something other than the steps of a loop")
    axis = int(call.attrs["axis"])
    item = pieces.item
    if not call.attrs.get("new_axis", 0):
        return [_stacked(translator, item, axis, pieces.like, pieces.length, pieces.front)]
    axis %= len(item.shape) + 1
    return [sequence_of(translator.builder, item, pieces.like, axis, pieces.front, pieces.length)]


def _stacked(
    translator: Translator, item: Tracked, axis: int, like: Value, length: int, front: bool = False
) -> Tracked:
    """The pieces of all steps, of one entry along an axis each, along that axis; or each in `front` of those before."""
    if not isinstance(item, Flow | Known):
        return item
    axis %= len(item.shape)
    if item.shape[axis] != 1:
        raise Unsupported("its steps give pieces of more than one entry")
    shape = (*item.shape[:axis], *item.shape[axis + 1 :])
    found = reshaped(translator, item, shape) if isinstance(item, Flow) else Known(np.reshape(item.array, shape))
    return sequence_of(translator.builder, found, like, axis, front, length)
