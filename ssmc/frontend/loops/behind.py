"""Loops behind their first step, `h = f(x_0)`, then `for t in range(1, T)`, as loops over all steps.

What stands in front of such a loop is a step of its own, made from the first step of the sequences that the trips pick
from. Said at every step it is `f(x_t)`; the states are that at step 0, and what the body makes of them behind it. In
front of step 0 the states are 0, so that their decay there does not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.graph.builder import Builder
from ssmc.frontend.graph.flow import Flow, Known, Members, Tracked, Unsupported, is_stream
from ssmc.frontend.rules.restored import whole_stream
from ssmc.frontend.source.evaluate import evaluate, evaluator
from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.source.maker import Maker
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

FIRST = Value("behind.first")  # of the body: is this the step in front of the loop?
SAME = 1e-9  # of the largest number: what float64 leaves of two ways to compute it (ours)
PICKS = frozenset(["Gather", "Slice"])


@dataclass(frozen=True, eq=False)
class Front:
    """What stands in front of a loop: by the place of a carried value, the value of the listing that is its state or
    its first piece, and that as a stream or a constant."""

    starts: Mapping[int, Value]
    tracked: Mapping[int, Flow | Known]
    picks: bool  # is any of it made from a first step?


def front_of(translator: Translator, call: Call) -> Front:
    """What stands in front of a loop, said at every step. Raises Unsupported where it is not made from first steps."""
    own = call.operands[: len(call.operands) - int(call.op["captured"])]
    scanned = int(call.attrs["num_scan_inputs"]) if call.kind == "Scan" else 0
    carried = own[: len(own) - scanned] if call.kind == "Scan" else own[2:]
    starts = {k: _piece(translator.listing, v) for k, v in enumerate(carried) if v is not None}
    tracked = {k: said for k, v in starts.items() if (said := _at_every_step(translator, v)) is not None}
    return Front(
        starts, tracked, any(isinstance(x, Flow) and is_stream(translator.builder, x) for x in tracked.values())
    )


def _piece(listing: Listing, value: Value) -> Value:
    """What a carried value holds of the first step: the tensor itself, the only member of a list, or what was written
    into a tensor."""
    call = _maker(listing, value)
    if call is None or not call.operands or call.operands[0] is None:
        return value
    if call.kind == "SequenceConstruct" and len(call.operands) == 1:
        return call.operands[0]
    if call.kind == "SequenceInsert" and call.operands[1] is not None:
        empty = _maker(listing, call.operands[0])
        known = listing.constants.get(call.operands[0])
        if (empty is not None and empty.kind == "SequenceEmpty") or (isinstance(known, list) and not known):
            return call.operands[1]
    if call.kind in ("ScatterND", "ScatterElements") and call.operands[2] is not None:
        return call.operands[2]
    return value


def _maker(listing: Listing, value: Value) -> Call | None:
    call = listing.maker(value)
    while call is not None and call.kind == "Identity":
        call = listing.maker(call.operands[0])
    return call


def _at_every_step(translator: Translator, value: Value) -> Flow | Known | None:
    """What a value is where each step is the first one; None where it is a whole sequence, or a list."""
    listing = translator.listing
    known = translator.lookup(value)
    if isinstance(known, Known):
        return known if not isinstance(known.stored, list) else None
    picks: dict[Value, Tracked] = {}
    env: dict[Value, Tracked] = {}
    waiting, seen = [value], set[Value]()
    while waiting:
        here = waiting.pop()
        item = translator.lookup(here)
        if here in seen:
            continue
        seen.add(here)
        call = listing.producer.get(here)
        if isinstance(item, Known) or call is None or here in listing.constants:
            if item is not None:
                env[here] = item
        elif (step := _step_of(translator, call)) is not None:
            picks[here] = step
        elif isinstance(item, Flow) and "t" in item.axes:
            raise Unsupported("what it starts from takes more than the first step")
        else:
            waiting += [v for v in call.operands if v is not None]
    sub = Translator(
        listing,
        translator.builder,
        translator.samples,
        translator.findings,
        translator.meanings,
        env={**env, **picks},
        dynamic=translator.dynamic,
        probing=translator.probing,
    )
    (found,) = sub.demand([value])
    return found if isinstance(found, Flow | Known) else None


def _step_of(translator: Translator, call: Call) -> Flow | None:
    """The present step of a stream in place of its first one, where a call picks that."""
    item = translator.lookup(call.operands[0]) if call.operands and call.kind in PICKS else None
    if not isinstance(item, Flow) or item.axes.count("t") != 1 or item.merged:
        return None
    axis, wanted = item.axes.index("t"), call.results[0]
    source = call.operands[0]
    assert source is not None
    kept = -1
    for point in range(len(translator.samples.points)):
        arrays = translator.samples.at(point, [source, wanted])
        first, picked = np.take(arrays[source], 0, axis=axis), np.asarray(arrays[wanted])
        kept = picked.ndim - first.ndim
        if kept not in (0, 1) or not np.array_equal(np.expand_dims(first, axis) if kept else first, picked):
            return None
    shape = (*item.shape[:axis], *(1,) * kept, *item.shape[axis + 1 :])
    axes = item.axes[:axis] + "f" * kept + item.axes[axis + 1 :]
    features = tuple(d for d, a in zip(shape, axes, strict=True) if a == "f")
    value = translator.builder.reshape(item.value, features)
    assert isinstance(value, Value)
    return Flow(value, axes, shape)


def with_starts(
    translator: Translator, body: Listing, followings: Sequence[Value], front: Front, points: Sequence[dict[Value, Any]]
) -> tuple[Listing, dict[Value, Tracked]]:
    """The body of a Scan with its states as what stands in front of it in the first step, as `with_front`."""
    if any(k not in front.tracked for k in range(len(followings))):
        raise Unsupported("what it starts from is not known at its first step")
    found, made = _with_first(body, dict(enumerate(followings)), points, _rows(translator, front, len(points)))
    return found, {value: front.tracked[k] for k, value in made.items()}


def _rows(translator: Translator, front: Front, count: int) -> list[dict[int, Any]]:
    """The arrays of what stands in front of a loop at each of so many points in it."""
    arrays = [translator.samples.at(k, front.starts.values()) for k in range(len(translator.samples.points))]
    each = count // len(arrays)
    return [{k: arrays[n // each][v] for k, v in front.starts.items()} for n in range(count)]


def behind_one(builder: Builder, item: Any, axis: int) -> Flow:
    """The whole sequence of which a tensor is all but the first step. Raises Unsupported where it is none."""
    whole = whole_stream(builder, item.value, 1) if isinstance(item, Flow) and item.axes[axis] == "t" else None
    if whole is None or not isinstance(item, Flow):
        raise Unsupported("what it scans is not known at the step in front of it")
    return replace(item, value=whole, shape=tuple(d + (i == axis) for i, d in enumerate(item.shape)))


@dataclass(frozen=True)
class Carried:
    """What a loop carries at one place: kind, present and next value, and piece (see `loop`)."""

    kind: str
    current: Value
    following: Value
    piece: Value | None


def with_front(
    translator: Translator,
    call: Call,
    body: Listing,
    carried: Sequence[Carried],
    front: Front,
    points: Sequence[dict[Value, Any]],
    tables: Mapping[Value, Array],
) -> tuple[Listing, dict[Value, Tracked]]:
    """The body of a loop with its states, and what else it gives that does not follow from them, as what stands in
    front of it in the first step; what is known of the new values of it, which `points` learn of, too."""
    rows, outer = _rows(translator, front, len(points)), len(translator.samples.points)
    each = len(points) // outer
    feeds = [_in_front(translator, call, body, carried, points[n * each], n, tables) for n in range(outer)]
    states = {k: c.following for k, c in enumerate(carried) if c.kind == "state"}
    for k, following in list(states.items()):  # the others may tell it
        rest = {j: v for j, v in states.items() if j != k}
        found, _ = _with_first(body, rest, points, rows)
        if all(
            _is_there(found, {**points[n * each], **feeds[n]}, following, rows[n * each][k]) for n in range(len(feeds))
        ):
            states = rest
    if any(k not in front.tracked for k in states):
        raise Unsupported("what it starts from is not known at its first step")
    found, made = _with_first(body, states, points, rows)
    apart: dict[int, Value] = {}
    for k, c in enumerate(carried):
        if c.piece is None or c.kind == "state":
            continue
        others = [v for j, o in enumerate(carried) if j != k for v in (o.following, o.piece) if v is not None]
        if _reads(body, c.current, [c.piece, *others]):
            raise Unsupported("it reads back what it writes")
        initial = call.operands[2 + k]
        if initial is None or is_empty(translator.lookup(initial)):
            continue  # it begins behind the first step
        told = c.following if c.kind == "buffer" else c.piece
        wanted = [f[c.current] if c.kind == "buffer" else rows[n * each][k] for n, f in enumerate(feeds)]
        if all(_is_there(found, {**points[n * each], **feeds[n]}, told, w) for n, w in enumerate(wanted)):
            continue
        if k not in front.tracked or np.shape(rows[0][k]) != np.shape(_run(found, {**points[0], **feeds[0]}, c.piece)):
            raise Unsupported("what stands in front of its steps is laid out in another way than they are")
        apart[k] = c.piece
    found, more = _with_first(found, apart, points, rows)
    return found, {value: front.tracked[k] for k, value in {**made, **more}.items()}


def _in_front(
    translator: Translator,
    call: Call,
    body: Listing,
    carried: Sequence[Carried],
    point: Mapping[Value, Any],
    outer: int,
    tables: Mapping[Value, Array],
) -> dict[Value, Any]:
    """What the body is given in the step in front of the loop, where that is another than at a point in its trips."""
    whole = translator.samples.at(outer, [v for v in call.operands if v is not None])
    feed: dict[Value, Any] = {FIRST: np.asarray(True), next(iter(body.inputs.values())): np.asarray(-1, np.int64)}
    feed.update({v: table[0] - (table[1] - table[0]) for v, table in tables.items()})
    for k, c in enumerate(carried):
        initial = call.operands[2 + k]
        if c.kind == "state":
            feed[c.current] = np.zeros_like(point[c.current])
        elif c.kind == "buffer" and initial is not None:
            feed[c.current] = whole[initial]
    return feed


def _reads(body: Listing, source: Value, wanted: Sequence[Value]) -> bool:
    """Do any of the values depend on more of another one than its shape?"""
    found = {source}
    for call in body.calls:
        if call.kind not in ("Shape", "Size") and not found.isdisjoint(call.operands):
            found.update(call.results)
    return not found.isdisjoint(wanted)


def _is_there(body: Listing, feed: Mapping[Value, Any], value: Value, wanted: Any) -> bool:
    """Is a value of the body in the step in front of the loop what the file has there?"""
    found = _run(body, feed, value)
    if np.shape(found) != np.shape(wanted):
        return False
    scale = float(np.abs(np.asarray(wanted, np.float64)).max(initial=0.0))
    return bool(np.abs(np.asarray(found, np.float64) - wanted).max(initial=0.0) <= SAME * scale)


def _run(body: Listing, feed: Mapping[Value, Any], value: Value) -> Any:
    try:
        return evaluate(body, feed, [value])[value]
    except UserError as error:
        raise Unsupported("it cannot be run at the step in front of it") from error


def _with_first(
    body: Listing,
    pieces: Mapping[int, Value],
    points: Sequence[dict[Value, Any]],
    rows: Sequence[Mapping[int, Any]],
) -> tuple[Listing, dict[int, Value]]:
    """The body with `pieces`, by their places, as new values in the first step; which these are."""
    made = {k: Value(f"behind.start{k}") for k in pieces}
    for point, arrays in zip(points, rows, strict=True):
        point[FIRST] = np.asarray(False)
        point.update({made[k]: np.asarray(arrays[k]) for k in pieces})
    renamed = {_unnamed(body, v): k for k, v in pieces.items()}
    found = replace(body, calls=[], producer={}, constants=dict(body.constants))
    maker = Maker(found)
    for call in body.calls:
        before = {v: Value(f"{v.node}.behind", v.index) for v in call.results if v in renamed}
        maker.add(replace(call, results=tuple(before.get(v, v) for v in call.results)))
        for v, old in before.items():
            maker.node(call, "Where", [FIRST, made[renamed[v]], old], v)
    return found, made


def first_step(builder: Builder, like: Value) -> Flow:
    """Is this the first step of the stream?"""
    value = builder.binary("equal", builder.steps(like), np.zeros(()))
    assert isinstance(value, Value)
    return Flow(value, "", ())


def is_empty(item: Any) -> bool:
    """Is it a list of nothing, or a tensor without an entry?"""
    if isinstance(item, Known) and isinstance(item.stored, list):
        return not item.stored
    return 0 in getattr(item, "shape", ()) or (isinstance(item, Members) and not item.items)


def behind(builder: Builder, item: Tracked, axis: int, missing: int) -> Tracked:
    """A sequence without its first steps."""
    if not missing or not isinstance(item, Flow | Known):
        return item
    if isinstance(item, Known):
        return Known(np.delete(item.array, range(missing), axis=axis))
    if item.axes[axis] != "t":
        raise Unsupported("it is written backwards, behind what stands in front of it")
    value = builder.add("downsample", [item.value], stride=1, kind="take", offset=missing)
    return replace(item, value=value, shape=tuple(d - missing * (i == axis) for i, d in enumerate(item.shape)))


def _unnamed(body: Listing, value: Value) -> Value:
    """A value before it was only given another name."""
    while (
        (call := body.producer.get(value)) is not None and call.kind == "Identity" and call.operands[0] in body.producer
    ):
        assert call.operands[0] is not None
        value = call.operands[0]
    return value


def is_linear(translator: Translator, call: Call) -> bool:
    """Is all that a loop gives linear, but for what it gives for zeros, in the streams that it is made from?"""
    listing, wanted = translator.listing, list(call.results)
    entries, known = _entries(translator, call)
    arrays = translator.samples.at(0, entries)
    rng = np.random.default_rng(31)
    noise = {v: rng.standard_normal(np.shape(a)) for v, a in arrays.items()}
    run = evaluator(listing, {*known, *entries}, wanted)
    try:
        zero, once, twice = (
            _numbers(run({**known, **{v: s * a for v, a in noise.items()}}), wanted) for s in (0, 1, 2)
        )
    except UserError:
        return False
    scale = float(np.abs(twice).max(initial=0.0))
    return bool(np.abs(twice - 2 * once + zero).max(initial=0.0) <= SAME * scale)


def _entries(translator: Translator, call: Call) -> tuple[list[Value], dict[Value, Any]]:
    """The streams that a loop and what stands in front of it are made from, and the constants."""
    entries: dict[Value, None] = {}
    known: dict[Value, Any] = {}
    waiting = [v for v in call.operands if v is not None]
    seen: set[Value] = set()
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        item, made = translator.lookup(here), translator.listing.producer.get(here)
        if isinstance(item, Known):
            known[here] = item.stored
        elif made is None or (isinstance(item, Flow) and "t" in item.axes):
            entries[here] = None
        else:
            waiting += [v for v in made.operands if v is not None]
    return list(entries), known


def _numbers(found: Mapping[Value, Any], wanted: Sequence[Value]) -> Array:
    """All numbers of arrays and lists of arrays."""
    arrays = [a for v in wanted for a in (found[v] if isinstance(found[v], list) else [found[v]])]
    return np.concatenate([np.ravel(np.asarray(a, np.float64)) for a in arrays])
