"""Loops over time: the body is one step, picked by its number from whole sequences or from what it carries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, Pieces, Refused, Tracked, Unsupported, is_stream, wrap
from ssmc.frontend.graph.stacking import sequence_of
from ssmc.frontend.loops.behind import FIRST, Carried, Front, behind, first_step, is_empty, with_front
from ssmc.frontend.loops.branches import unbranched
from ssmc.frontend.loops.collected import stacked
from ssmc.frontend.loops.inner import refuse_within, written_out
from ssmc.frontend.loops.stacked import lift_rows, row_by_row
from ssmc.frontend.loops.ticks import LONGEST as LONGEST_TABLE
from ssmc.frontend.loops.ticks import counted_on, tick_of
from ssmc.frontend.loops.writes import moved_from, with_joined_writes
from ssmc.frontend.rules.elementwise import binary
from ssmc.frontend.rules.restored import whole_stream
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
    """How often a loop runs, and the carried values that follow from that: `tables[value]` (trips + 1, ...).

    The number of the first trip is `-lead`: where a loop is said from the step in front of it on, that is 1.
    """

    trips: int
    tables: dict[Value, Array]
    lead: int = 0


def translate_loop(
    translator: Translator, call: Call, items: Sequence[Any], front: Front | None = None
) -> list[Tracked]:
    """A Loop whose trips are the steps of the sequences that it picks from, or all but the first one, of which `front`
    tells what stands there. Raises Unsupported for any other."""
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
    if front is not None and count.trips != translator.steps - 1:
        raise Unsupported("it does not go over all steps but the first")
    body = unbranched(body, {names[0], *count.tables})
    body = replace(body, around=body_around(translator.listing.around, count.trips))
    carried = [_classify(body, *state, count, given, front is not None) for state in states]
    points = _points(translator, call, body, count, {item.current for item in carried if item.kind == "same"})
    whole = [
        v for v, item in zip(names[2:], (*own[2:], *outer), strict=True) if isinstance(item, Flow) and "t" in item.axes
    ]
    inner_written = written_out(body, points[0], whole, {names[0], *given, *count.tables})
    if inner_written is not body:
        body, outputs = inner_written, list(inner_written.outputs.values())
        carried = [_classify(body, *state, count, given, front is not None) for state in states]
    if front is not None:
        shown = [Carried(c.kind, c.current, c.following, c.piece) for c in carried]
        body, starts = with_front(translator, call, body, shown, front, points, count.tables)
        zeros = {k: Known(np.zeros(np.shape(points[0][c.current]))) for k, c in enumerate(carried) if c.kind == "state"}
        carried = [replace(c, initial=zeros.get(k, c.initial)) for k, c in enumerate(carried)]
        count = _from_the_first(count)
    body = with_joined_writes(body, Samples(body, points))
    like = _stream_in(translator, own, outer, count.trips if front is not None else None)
    if like is None:
        raise Unsupported("nothing that it reads is a sequence of steps")
    carries = [(c.current, c.following, c.initial) for c in carried if c.kind == "state"]
    body, rows = row_by_row(body, carries, points)
    inner = replace(translator.inside(body, points, in_step=True), stream=like, lead=count.lead)
    reach = max(count.trips, LONGEST_TABLE) if translator.dynamic else count.trips
    numbers = tick_of(np.arange(reach) - count.lead, count.trips)
    inner.env[names[0]], inner.env[names[1]] = numbers, Known(np.asarray(True))
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
    if front is not None:
        inner.env.update(starts)
        inner.env[FIRST] = first_step(translator.builder, like)
    if any(c.kind == "state" and isinstance(c.initial, Flow) and "t" in c.initial.axes for c in carried):
        raise Unsupported("it carries a whole sequence from trip to trip, as a stack of layers does")
    lifted = [State(str(k), c.current, c.following, c.initial) for k, c in enumerate(carried) if c.kind == "state"]
    last = lift_rows(inner, lifted, rows, "Loop", like)
    found: list[Tracked] = []
    for k, value in enumerate(carried):
        found.append(_final(inner, value, last.get(str(k)), like, count))
    for scanned in inner.demand(outputs[len(own) - 1 :]):
        whole_steps = sequence_of(translator.builder, scanned, like, 0, False, count.trips)
        found.append(behind(translator.builder, whole_steps, 0, count.lead))
    return found


def _from_the_first(count: _Count) -> _Count:
    """One trip more, in front of the others; counters count on to it."""
    tables = {}
    for value, table in count.tables.items():
        steps = np.diff(table, axis=0)
        if table.dtype.kind not in "iu" or np.any(steps != steps[0]):
            raise Unsupported("what it counts is not known in front of its first trip")
        tables[value] = np.concatenate([table[:1] - steps[:1], table])
    return _Count(count.trips + 1, tables, 1)


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
    body: Listing,
    current: Value,
    following: Value,
    initial: Any,
    count: _Count,
    given: Mapping[Value, Known],
    late: bool,
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
            if late or (0 in getattr(initial, "shape", ()) and initial.shape[axis] == 0):
                return _Carried("grown", current, following, initial, ends[0 if front else 1], axis=axis, front=front)
            raise Unsupported(NOT_EMPTY)
    return _Carried("state", current, following, initial)


def _behind_layout(body: Listing, value: Value) -> Call | None:
    """The node that makes a value, before it was only laid out in another way."""
    call = body.producer.get(value)
    while call is not None and call.kind in LAYOUT and call.operands[0] in body.producer:
        call = body.producer[call.operands[0]]
    return call


def _stream_in(translator: Translator, own: Sequence[Any], outer: Sequence[Any], steps: int | None) -> Value | None:
    """A stream that a loop reads, of so many steps."""
    for item in (*outer, *own):
        if not isinstance(item, Flow) or not is_stream(translator.builder, item):
            continue
        length = item.shape[item.axes.find("t")]
        if steps in (None, length):
            return item.value
        if steps == length + 1 and (whole := whole_stream(translator.builder, item.value, 1)) is not None:
            return whole
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
        written = _buffer(inner, item, like, count)
        if item.adds and not isinstance(written, Refused):
            return binary(inner.builder, "add", item.initial, written)  # type: ignore[arg-type]
        return written
    assert item.piece is not None
    piece = inner.demand([item.piece])[0]
    missing = count.lead if is_empty(item.initial) else 0
    if missing and item.front:
        raise Unsupported("its steps are put in front of each other, without the first one")
    if item.kind == "grown":
        return stacked(inner, piece, item.axis, like, count.trips, item.front, missing)
    return Pieces(piece, like, count.trips, item.front, missing) if isinstance(piece, Flow | Known) else piece


def _buffer(inner: Translator, item: _Carried, like: Value, count: _Count) -> Tracked:
    """A tensor into which every trip writes its step."""
    length = count.trips
    axis, backward = _written_axis(inner, item, count)
    written = []
    for point, values in enumerate(inner.samples.points):
        step = int(values[next(iter(inner.listing.inputs.values()))]) + count.lead
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


def _written_axis(inner: Translator, item: _Carried, count: _Count) -> tuple[int, bool]:
    """The axis along which the buffer changes at the number of the step and nowhere else; is it counted backward?"""
    length = count.trips
    candidates: set[tuple[int, bool]] | None = None
    for point, values in enumerate(inner.samples.points):
        before, after = (np.asarray(inner.samples.at(point, [v])[v]) for v in (item.current, item.following))
        step = int(values[next(iter(inner.listing.inputs.values()))]) + count.lead
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
