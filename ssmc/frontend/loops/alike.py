"""Chunks of steps that are computed one by one, alike, and joined again: computed as the whole that they are parts of.

A loop over chunks that an exporter unrolled ends in a Concat along time. What its body does to each step by itself
(dividing by a normaliser, norms, activations) stands between the chunks and their join, where no whole sequence is; it
changes places with the join, and with the Slice or Split that made the chunks. That an op does the same to the whole as
to its parts is seen by running it on both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product
from typing import Any

import numpy as np
from onnx import helper

from ssmc.diagnostics import UserError
from ssmc.frontend.source.evaluate import evaluate, run_call
from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.source.operands import slices_of, split_sizes
from ssmc.frontend.translator import RAW_OPS
from ssmc.ir.graph import Value
from ssmc.ir.op import Op

MOST = 256  # chunks (ours)
DEPTH = 24  # ops between a join and the chunks that are looked at (ours)
TRIES = 16  # ways to join the operands of an op (ours)
CLOSE = 1e-9  # relative
SMALL = 1 << 20  # numbers of a constant that is compared by what it holds
SEQUENTIAL = frozenset(["Scan", "Loop", "If", "Shape", "Size", "ConstantOfShape"])

RESHAPES = frozenset(["Reshape", "Expand"])

Values = tuple[Value, ...]


@dataclass(frozen=True)
class _Whole:
    """What values are the parts of, along an axis; `computed`: by more than what a linear region may hold."""

    value: Value
    axis: int
    computed: bool = False


@dataclass(frozen=True)
class _Piece:
    source: Value
    axis: int
    start: int
    stop: int


@dataclass(frozen=True)
class _Choice:
    """What an op may be given: a value, or the join of `parts` along `axis`, and the array that it is."""

    value: Value | None
    array: Any
    computed: bool = False
    parts: Values | None = None
    axis: int = 0


def join_alike(listing: Listing, point: Mapping[Value, Any]) -> Listing:
    """The listing with what is done to chunks done to the whole; itself where there is nothing of the kind."""
    joins = [call for call in listing.calls if call.kind == "Concat" and _joins_chunks(listing, call)]
    if not joins:
        return listing
    arrays: dict[Value, Any] = {**point, **listing.constants}
    try:
        wanted = [v for call in joins for v in call.operands if v is not None]
        arrays.update(evaluate(listing, dict(point), wanted, arrays))
    except UserError:
        return listing
    own = replace(
        listing, calls=list(listing.calls), producer=dict(listing.producer), constants=dict(listing.constants)
    )
    joiner = _Joiner(own, arrays)
    for call in joins:
        joiner.join(call)
    joiner.may_join = False
    for group, sizes in list(joiner.groups()):
        joiner.hoist(group, sizes)
    return joiner.listing if joiner.found else listing


def _joins_chunks(listing: Listing, call: Call) -> bool:
    """Does it join what is made of different parts of a value, by ops of one kind?"""
    operands = [v for v in call.operands if v is not None]
    makers = [listing.producer.get(v) for v in operands]
    if not 2 <= len(operands) <= MOST or len(set(operands)) < len(operands):
        return False
    if any(m is None for m in makers) or len({m.kind for m in makers if m is not None}) > 1:
        return False
    first, second = (_cuts(listing, v) for v in operands[:2])
    return bool(first - second or second - first)


def _cuts(listing: Listing, value: Value) -> set[Value]:
    """Parts that a value is made of, as far as a few ops behind it."""
    found: set[Value] = set()
    waiting = [(value, 0)]
    seen = {value}
    while waiting:
        here, depth = waiting.pop()
        call = listing.producer.get(here)
        if call is None or depth > DEPTH:
            continue
        if call.kind in ("Slice", "Split"):
            found.add(here)
            continue
        waiting += [(v, depth + 1) for v in call.operands if v is not None and v not in seen]
        seen.update(v for v in call.operands if v is not None)
    return found


@dataclass(eq=False)
class _Joiner:
    listing: Listing
    arrays: dict[Value, Any]
    found: bool = False
    may_join: bool = True  # what is no whole by itself
    sizes: tuple[int, ...] = ()  # of the chunks
    data: set[Value] = field(default_factory=set)  # what depends on the inputs
    known: dict[tuple[Values, int], _Whole | None] = field(default_factory=dict)

    def join(self, call: Call) -> None:
        """Let what is done to each operand of a Concat be done to what it joins."""
        operands = tuple(v for v in call.operands if v is not None)
        if any(not isinstance(self._array(v), np.ndarray) for v in operands):
            return
        axis = int(call.attrs["axis"]) % max(self._array(operands[0]).ndim, 1)
        if self._array(operands[0]).ndim == 0 or any(self._array(v).shape[axis] < 2 for v in operands):
            return  # one step at a time: a recurrence
        self.sizes = tuple(self._array(v).shape[axis] for v in operands)
        whole = self.whole(operands, axis)
        if whole is not None and whole.computed:
            self._replace({call.results[0]: whole.value})

    def hoist(self, group: Sequence[Call], sizes: tuple[int, ...]) -> None:
        """Compute what is done alike to parts of a value from the value."""
        self.known.clear()
        self.sizes = sizes
        values = tuple(call.results[0] for call in group)
        if any(not isinstance(self._array(v), np.ndarray) for v in values):
            return
        wholes = (self.whole(values, axis) for axis in self._axes([self._array(v) for v in values]))
        whole = next((w for w in wholes if w is not None and w.computed), None)
        if whole is None:
            return
        start, moved = 0, {}
        for value in values:
            stop = start + self._array(value).shape[whole.axis]
            moved[value] = self._part(whole, start, stop)
            start = stop
        self._replace(moved)

    def groups(self) -> Iterable[tuple[list[Call], tuple[int, ...]]]:
        """Calls that do alike, what no linear region may hold, to parts of one value that follow each other."""
        table: dict[Any, list[tuple[int, int, Call]]] = {}
        self.data = self.listing.influenced(set(self.listing.inputs.values()))
        for call in self.listing.calls:
            plain = call.kind in RAW_OPS and not self._is_more(call)
            if plain or call.kind in SEQUENTIAL or len(call.results) != 1:
                continue
            seen: list[_Piece] = []
            key = self._signature(call.results[0], seen, 0)
            if seen and len({(p.start, p.stop) for p in seen}) == 1:
                table.setdefault(key, []).append((seen[0].start, seen[0].stop, call))
        for members in table.values():
            if 2 <= len(members) <= MOST and len({start for start, _, _ in members}) == len(members):
                members.sort(key=lambda member: member[0])
                yield [call for _, _, call in members], tuple(stop - start for start, stop, _ in members)

    def _signature(self, value: Value, seen: list[_Piece], depth: int) -> Any:
        """How a value is computed of parts, which are told by what they are parts of."""
        piece, call = self._piece(value), self.listing.producer.get(value)
        if piece is not None:
            before = len(seen)
            inner = self._signature(piece.source, seen, depth + 1) if depth <= DEPTH else piece.source
            if len(seen) > before:  # a part of what is computed of parts, as of the heads of a chunk
                return piece.axis, piece.start, piece.stop, inner
            seen.append(piece)
            return "part", piece.source, piece.axis
        if value not in self.data:
            array = self._array(value)
            alone = isinstance(array, np.ndarray) and array.size <= SMALL
            return (array.shape, hash(array.tobytes())) if alone else value
        if call is None or depth > DEPTH or call.op["regions"]:
            return value
        before = len(seen)
        keys = tuple(None if v is None else self._signature(v, seen, depth + 1) for v in call.operands)
        return (_how(call), value.index, keys) if len(seen) > before else value

    # -- what values are the parts of ----------------------------------------------------------------------

    def whole(self, values: Values, axis: int, depth: int = 0) -> _Whole | None:
        """What the values are consecutive parts of along an axis, if anything but their own join; None where nothing
        is known."""
        key = (values, axis)
        if key not in self.known:
            self.known[key] = None
            self.known[key] = self._whole(values, axis, depth)
        return self.known[key]

    def _whole(self, values: Values, axis: int, depth: int) -> _Whole | None:
        pieces = [self._piece(v) for v in values]
        first = pieces[0]
        if first is not None and all(p is not None and p.source == first.source for p in pieces):
            ends = 0
            for piece in pieces:
                if piece is None or (piece.source, piece.axis) != (first.source, axis) or piece.start != ends:
                    return None
                ends = piece.stop
            return _Whole(first.source, axis) if ends == self._array(first.source).shape[axis] else None
        calls = [self.listing.producer.get(v) for v in values]
        some = calls[0]
        if some is None or depth > DEPTH or some.op["regions"] or some.kind in SEQUENTIAL:
            return None
        if len({v.index for v in values}) > 1 or any(
            c is None or _how(c) != _how(some) or len(c.operands) != len(some.operands) for c in calls
        ):
            return None
        return self._applied([c for c in calls if c is not None], values, axis, depth)

    def _applied(self, calls: Sequence[Call], values: Values, axis: int, depth: int) -> _Whole | None:
        """The op that made all the values, on the wholes of its operands, where that gives the whole of the values."""
        some = calls[0]
        slots = [self._choices([c.operands[k] for c in calls], values, axis, depth) for k in range(len(some.operands))]
        if any(not options for options in slots):
            return None
        computed = some.kind not in RAW_OPS or self._is_more(some)
        if self.may_join and not computed and not any(o.computed for options in slots for o in options):
            return None  # a linear region may hold it as it is
        wanted = np.concatenate([self._array(v) for v in values], axis)
        scale = float(np.abs(wanted).max(initial=0.0)) or 1.0
        if some.kind in RESHAPES and isinstance(slots[1][0].array, np.ndarray):
            slots[1] = [self._longer(some, slots[1][0], wanted.shape[axis], axis)]
        for chosen in islice(product(*slots), TRIES):
            if self.may_join and not computed and not any(option.computed for option in chosen):
                continue
            try:
                result = np.asarray(run_call(some, [option.array for option in chosen])[values[0].index])
            except UserError:
                continue
            if result.shape == wanted.shape and np.allclose(result, wanted, rtol=0.0, atol=CLOSE * scale):
                operands = [o.value if o.parts is None else self._joined(o.parts, o.axis, o.array) for o in chosen]
                made = self._made(calls, operands, result)
                return _Whole(Value(made.node, values[0].index) if values[0].index else made, axis, True)
        return None

    def _longer(self, call: Call, shape: _Choice, size: int, axis: int) -> _Choice:
        """The shape that a chunk is given, as that of the whole."""
        target = np.array(shape.array, np.int64)
        if axis < len(target) and target[axis] > 0:
            target[axis] = size
        told = Value(f"{call.results[0].node}.longer{axis}")
        self.listing.constants[told] = self.arrays[told] = target
        return _Choice(told, target)

    def _is_more(self, call: Call) -> bool:
        """Does it divide by what is computed, or add a constant? A region of products may hold neither."""
        known = [v in self.listing.constants for v in call.operands]
        return (call.kind == "Div" and not known[1]) or (call.kind in ("Add", "Sub") and any(known))

    def _choices(self, parts: Sequence[Value | None], values: Values, axis: int, depth: int) -> list[_Choice]:
        """What an op may be given in place of these, the likeliest first."""
        arrays: list[Any] = [None if v is None else self._array(v) for v in parts]
        if len(set(parts)) == 1 or all(_equal(arrays[0], a) for a in arrays):
            return [_Choice(parts[0], arrays[0])]
        if any(not isinstance(a, np.ndarray) or a.ndim == 0 for a in arrays):
            return []
        given, found = tuple(v for v in parts if v is not None), []
        place = axis - self._array(values[0]).ndim  # counted from the right
        for k in sorted(self._axes(arrays), key=lambda k: abs(k - arrays[0].ndim - place)):
            inner = self.whole(given, k, depth + 1)
            if inner is not None:
                found.append(_Choice(inner.value, self._array(inner.value), inner.computed))
            elif self.may_join:
                found.append(_Choice(None, np.concatenate(arrays, k), parts=given, axis=k))
        return found

    def _axes(self, arrays: Sequence[Any]) -> list[int]:
        """Axes along which arrays may be chunks."""
        ranks = {a.ndim for a in arrays}
        some = range(ranks.pop()) if len(ranks) == 1 else range(0)
        chunks = [k for k in some if tuple(a.shape[k] for a in arrays) == self.sizes]
        return [k for k in chunks if len({(*a.shape[:k], *a.shape[k + 1 :]) for a in arrays}) == 1]

    def _piece(self, value: Value) -> _Piece | None:
        call = self.listing.producer.get(value)
        if call is None or call.kind not in ("Slice", "Split") or call.operands[0] is None:
            return None
        known = [self.listing.constants.get(v) if v is not None else None for v in call.operands[1:]]
        if any(a is None and v is not None for a, v in zip(known, call.operands[1:], strict=True)):
            return None
        source = self._array(call.operands[0])
        if not isinstance(source, np.ndarray):
            return None
        if call.kind == "Split":
            axis = int(call.attrs.get("axis", 0)) % source.ndim
            ends = np.cumsum([0, *split_sizes([source, *known], call.attrs, len(call.results))])
            return _Piece(call.operands[0], axis, int(ends[value.index]), int(ends[value.index + 1]))
        parts = slices_of([source, *known], call.attrs, source.ndim)
        if len(parts) != 1 or parts[0][1].step not in (None, 1):
            return None
        chosen = range(source.shape[parts[0][0]])[parts[0][1]]
        return _Piece(call.operands[0], parts[0][0], chosen.start, chosen.stop)

    # -- new calls -----------------------------------------------------------------------------------------

    def _array(self, value: Value | None) -> Any:
        """What a value is at the sample point; large ones are computed anew."""
        if value is None:
            return None
        if value not in self.arrays:
            given = {v: self.arrays[v] for v in self.listing.inputs.values()}
            self.arrays[value] = evaluate(self.listing, given, [value])[value]
        return self.arrays[value]

    def _add(self, like: Call, kind: str | None, operands: Sequence[Value | None], attrs: Any, array: Any) -> Value:
        """A call before those that read it; `like` tells the opset, and the op where no other `kind` is given."""
        value = Value(f"{like.results[0].node}.whole{len(self.listing.calls)}")
        op = like.op
        if kind is not None:
            node = helper.make_node(kind, [f"x{k}" for k in range(len(operands))], ["y"], **attrs)
            version = op["opset"]
            op = Op(f"onnx.{kind}", {"node": node, "version": version, "opset": version, "regions": {}, "captured": 0})
        results = (value, *(Value(value.node, k) for k in range(1, 1 if kind else len(like.results))))
        call = replace(like, op=op, kind=kind or like.kind, operands=tuple(operands), results=results)
        self.listing.calls.append(replace(call, position=len(self.listing.calls)))
        self.listing.producer.update(dict.fromkeys(results, self.listing.calls[-1]))
        if len(results) == 1:
            self.arrays[value] = array
        return value

    def _joined(self, values: Values, axis: int, array: Any) -> Value:
        maker = next(c for v in values if (c := self.listing.producer.get(v)) is not None)
        return self._add(maker, "Concat", values, {"axis": axis}, array)

    def _made(self, calls: Sequence[Call], operands: Sequence[Value | None], array: Any) -> Value:
        origin = tuple(dict.fromkeys(name for call in calls for name in call.provenance))
        return self._add(replace(calls[0], provenance=origin), None, operands, {}, array)

    def _part(self, whole: _Whole, start: int, stop: int) -> Value:
        bounds = []
        for what, number in (("start", start), ("stop", stop), ("axis", whole.axis)):
            told = Value(f"{whole.value.node}.{what}{number}")
            self.listing.constants[told] = self.arrays[told] = np.asarray([number], np.int64)
            bounds.append(told)
        part = np.take(self._array(whole.value), range(start, stop), axis=whole.axis)
        return self._add(self.listing.producer[whole.value], "Slice", [whole.value, *bounds], {}, part)

    def _replace(self, moved: Mapping[Value, Value]) -> None:
        """Let others read the new values, and put the calls that are still needed into order."""
        self.found = True
        listing = self.listing
        calls = [replace(c, operands=tuple(moved.get(v, v) if v else None for v in c.operands)) for c in listing.calls]
        outputs = {name: moved.get(value, value) for name, value in listing.outputs.items()}
        producer = {value: call for call in calls for value in call.results}
        ordered = [replace(c, position=k) for k, c in enumerate(_ordered(producer, list(outputs.values())))]
        producer = {value: call for call in ordered for value in call.results}
        self.listing = replace(listing, calls=ordered, outputs=outputs, producer=producer)
        self.known.clear()


def _how(call: Call) -> Any:
    """What two calls share that do the same."""
    return call.kind, tuple(sorted(a.SerializeToString() for a in call.op["node"].attribute))


def _equal(a: Any, b: Any) -> bool:
    return a is not None and b is not None and np.shape(a) == np.shape(b) and np.array_equal(a, b)


def _ordered(producer: Mapping[Value, Call], wanted: Sequence[Value]) -> list[Call]:
    """The calls that values need, each behind those that it reads."""
    found: dict[int, Call] = {}
    waiting: list[tuple[Call, bool]] = [(producer[v], False) for v in reversed(wanted) if v in producer]
    while waiting:
        call, ready = waiting.pop()
        if id(call) in found:
            continue
        if ready:
            found[id(call)] = call
            continue
        waiting.append((call, True))
        before = (producer.get(v) for v in reversed(call.operands) if v is not None)
        waiting += [(c, False) for c in before if c is not None and id(c) not in found]
    return list(found.values())
