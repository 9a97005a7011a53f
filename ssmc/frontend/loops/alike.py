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
from ssmc.frontend.loops.limits import MOST_CHUNKS
from ssmc.frontend.loops.pieces import (
    DEPTH,
    Piece,
    Place,
    Values,
    concatenated,
    equal,
    how,
    joins_chunks,
    ordered,
)
from ssmc.frontend.source.evaluate import evaluate, keeping_small, run_call
from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.source.operands import slices_of, split_sizes
from ssmc.frontend.translator import RAW_OPS
from ssmc.ir.graph import Value
from ssmc.ir.op import Op

TRIES = 16  # ways to join the operands of an op (ours)
CLOSE = 1e-9  # relative
SMALL = 1 << 20  # numbers of a constant that is compared by what it holds
SEQUENTIAL = frozenset(["Scan", "Loop", "If", "Shape", "Size", "ConstantOfShape"])

RESHAPES = frozenset(["Reshape", "Expand"])


@dataclass(frozen=True)
class _Whole:
    """What values are the parts of, along an axis; `computed`: by more than what a linear region may hold; `joined`: of
    what is no whole by itself."""

    value: Value
    place: Place
    computed: bool = False
    joined: bool = False


@dataclass(frozen=True)
class _Choice:
    """What an op may be given: a value, or the join of `parts` along `axis`, and the array that it is."""

    value: Value | None
    array: Any
    computed: bool = False
    joined: bool = False
    parts: Values | None = None
    axis: int = 0


def join_alike(listing: Listing, point: Mapping[Value, Any], thorough: bool = False) -> Listing:
    """The listing with what is done to chunks done to the whole; itself where there is nothing of the kind.

    Linear ops stay where they are, as a region may hold them; with `thorough` they are moved too.
    """
    joins = [call for call in listing.calls if call.kind == "Concat" and joins_chunks(listing, call)]
    if not joins:
        return listing
    arrays: dict[Value, Any] = {**point, **listing.constants}
    try:
        wanted = [v for call in joins for v in call.operands if v is not None]
        arrays.update(evaluate(listing, dict(point), wanted, keeping_small(arrays)))
    except UserError:
        return listing
    own = replace(
        listing, calls=list(listing.calls), producer=dict(listing.producer), constants=dict(listing.constants)
    )
    joiner = _Joiner(own, arrays, thorough)
    for call in joins:
        joiner.join(call)
    joiner.may_join = False
    for group, sizes in list(joiner.groups()):
        joiner.hoist(group, sizes)
    return joiner.listing if joiner.found else listing


@dataclass(eq=False)
class _Joiner:
    listing: Listing
    arrays: dict[Value, Any]
    thorough: bool = False
    found: bool = False
    may_join: bool = True  # what is no whole by itself
    sizes: tuple[int, ...] = ()  # of the chunks
    data: set[Value] = field(default_factory=set)  # what depends on the inputs
    known: dict[tuple[Values, Place], _Whole | None] = field(default_factory=dict)

    def join(self, call: Call) -> None:
        """Let what is done to each operand of a Concat be done to what it joins."""
        operands = tuple(v for v in call.operands if v is not None)
        if any(not isinstance(self._array(v), np.ndarray) for v in operands):
            return
        axis = int(call.attrs["axis"]) % max(self._array(operands[0]).ndim, 1)
        if self._array(operands[0]).ndim == 0 or any(self._array(v).shape[axis] < 2 for v in operands):
            return  # one step at a time: a recurrence
        self.sizes = tuple(self._array(v).shape[axis] for v in operands)
        whole = self.whole(operands, (axis, 1))
        if whole is not None and (whole.computed or self.thorough):
            self._replace({call.results[0]: whole.value})

    def hoist(self, values: Values, sizes: tuple[int, ...]) -> None:
        """Compute what is done alike to parts of a value from the value."""
        self.known.clear()
        self.sizes = sizes
        if any(v not in self.arrays and v not in self.listing.producer for v in values):
            return  # what was done to others before has taken its place
        if any(not isinstance(self._array(v), np.ndarray) for v in values):
            return
        places = (p for p in self._places([self._array(v) for v in values]) if p[1] == 1)
        wholes = (self.whole(values, place) for place in places)
        whole = next((w for w in wholes if w is not None and (w.computed or self.thorough)), None)
        if whole is None or all((p := self._piece(v)) is not None and p.source == whole.value for v in values):
            return
        start, moved = 0, {}
        for value in values:
            stop = start + self._array(value).shape[whole.place[0]]
            moved[value] = self._part(whole, start, stop)
            start = stop
        self._replace(moved)

    def groups(self) -> Iterable[tuple[Values, tuple[int, ...]]]:
        """Values made alike, by what no linear region may hold, of parts of one value that follow each other."""
        table: dict[Any, list[tuple[int, int, Value]]] = {}
        self.data = self.listing.influenced(set(self.listing.inputs.values()))
        self.signatures: dict[Value, tuple[Any, frozenset[tuple[int, int]]]] = {}
        self.numbers: dict[Any, int] = {}
        for call in self.listing.calls:
            plain = call.kind in RAW_OPS and not self._is_more(call) and not self.thorough
            for value in call.results:
                key, spans = self._signature(value)
                if len(spans) == 1 and not plain and call.kind not in SEQUENTIAL:
                    table.setdefault(key, []).append((*next(iter(spans)), value))
        for members in table.values():
            if 2 <= len(members) <= MOST_CHUNKS and len({start for start, _, _ in members}) == len(members):
                members.sort(key=lambda member: member[0])
                yield tuple(value for _, _, value in members), tuple(stop - start for start, stop, _ in members)

    def _signature(self, value: Value) -> tuple[Any, frozenset[tuple[int, int]]]:
        """How a value is computed of parts, and from where to where these are in what they are parts of."""
        if value not in self.signatures:
            key, spans = self._told(value)
            self.signatures[value] = self.numbers.setdefault(key, len(self.numbers)), spans
        return self.signatures[value]

    def _told(self, value: Value) -> tuple[Any, frozenset[tuple[int, int]]]:
        nowhere = frozenset[tuple[int, int]]()
        piece, call = self._piece(value), self.listing.producer.get(value)
        if piece is not None:
            key, spans = self._signature(piece.source)
            if len(spans) == 1:  # a part of what is computed of parts, as of the heads of a chunk
                return (piece.axis, piece.start, piece.stop, key), spans
            return ("part", piece.source, piece.axis), frozenset([(piece.start, piece.stop)])
        if value not in self.data:
            array = self._array(value)
            alone = isinstance(array, np.ndarray) and array.size <= SMALL
            return (("array", array.shape, hash(array.tobytes())) if alone else value), nowhere
        if call is None or call.op["regions"]:
            return value, nowhere
        told = [(None, nowhere) if v is None else self._signature(v) for v in call.operands]
        spans = nowhere.union(*(s for _, s in told))
        return ((how(call), value.index, tuple(k for k, _ in told)) if len(spans) == 1 else value), spans

    # -- what values are the parts of ----------------------------------------------------------------------

    def whole(self, values: Values, place: Place, depth: int = 0) -> _Whole | None:
        """What the values are consecutive parts of along an axis, if anything but their own join; None where nothing
        is known."""
        key = (values, place)
        if key not in self.known:
            self.known[key] = None
            self.known[key] = self._whole(values, place, depth)
        return self.known[key]

    def _whole(self, values: Values, place: Place, depth: int) -> _Whole | None:
        pieces = [self._piece(v) for v in values]
        first = pieces[0]
        if first is not None and all(p is not None and p.source == first.source for p in pieces):
            ends = 0
            for piece in pieces:
                if piece is None or (piece.source, (piece.axis, 1)) != (first.source, place) or piece.start != ends:
                    return None
                ends = piece.stop
            return _Whole(first.source, place) if ends == self._array(first.source).shape[place[0]] else None
        calls = [self.listing.producer.get(v) for v in values]
        some = calls[0]
        if some is None or depth > DEPTH or some.op["regions"] or some.kind in SEQUENTIAL:
            return None
        if len({v.index for v in values}) > 1 or any(
            c is None or how(c) != how(some) or len(c.operands) != len(some.operands) for c in calls
        ):
            return None
        return self._applied([c for c in calls if c is not None], values, place, depth)

    def _applied(self, calls: Sequence[Call], values: Values, place: Place, depth: int) -> _Whole | None:
        """The op that made all the values, on the wholes of its operands, where that gives the whole of the values."""
        some = calls[0]
        slots = [self._choices([c.operands[k] for c in calls], values, place, depth) for k in range(len(some.operands))]
        if any(not options for options in slots):
            return None
        computed = some.kind not in RAW_OPS or self._is_more(some)
        if self._stays(computed, [o for options in slots for o in options]) and not self.thorough:
            return None
        wanted = concatenated([self._array(v) for v in values], place)
        scale = float(np.abs(wanted).max(initial=0.0)) or 1.0
        if some.kind in RESHAPES and isinstance(slots[1][0].array, np.ndarray):
            slots[1] = [self._longer(some, slots[1][0], wanted.shape[place[0]], place[0])]
        for chosen in islice(product(*slots), TRIES):
            if self._stays(computed, chosen):
                continue
            try:
                result = np.asarray(run_call(some, [option.array for option in chosen])[values[0].index])
            except UserError:
                continue
            if result.shape == wanted.shape and np.allclose(result, wanted, rtol=0.0, atol=CLOSE * scale):
                operands = [o.value if o.parts is None else self._joined(o.parts, o.axis, o.array) for o in chosen]
                made = self._made(calls, operands, result)
                value = Value(made.node, values[0].index) if values[0].index else made
                more = computed or any(o.computed for o in chosen)
                return _Whole(value, place, more, any(o.joined for o in chosen))
        return None

    def _stays(self, computed: bool, operands: Sequence[_Choice]) -> bool:
        """May a linear region hold an op as it is? One of what is joined by itself is better done to the whole."""
        if not self.may_join or computed or any(o.computed for o in operands):
            return False
        return not self.thorough or sum(o.joined for o in operands) > 1

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

    def _choices(self, parts: Sequence[Value | None], values: Values, place: Place, depth: int) -> list[_Choice]:
        """What an op may be given in place of these, the likeliest first."""
        arrays: list[Any] = [None if v is None else self._array(v) for v in parts]
        alike = [_Choice(parts[0], arrays[0])] * all(equal(arrays[0], a) for a in arrays)
        if len(set(parts)) == 1 or (alike and parts[0] in self.listing.constants):
            return [_Choice(parts[0], arrays[0])]
        if any(not isinstance(a, np.ndarray) or a.ndim == 0 for a in arrays):
            return alike
        given, found = tuple(v for v in parts if v is not None), list[_Choice]()
        right = place[0] - self._array(values[0]).ndim  # counted from the right
        for at in sorted(self._places(arrays), key=lambda p: (p[1] > place[1], abs(p[0] - arrays[0].ndim - right))):
            inner = self.whole(given, at, depth + 1)
            if inner is not None:
                found.append(_Choice(inner.value, self._array(inner.value), inner.computed, inner.joined))
            elif self.may_join and not alike and at[1] == 1:
                found.append(_Choice(None, concatenated(arrays, at), joined=True, parts=given, axis=at[0]))
        return [*found, *alike]

    def _places(self, arrays: Sequence[Any]) -> list[Place]:
        """Axes along which arrays may be chunks."""
        ranks = {a.ndim for a in arrays}
        some = range(ranks.pop()) if len(ranks) == 1 else range(0)
        found = []
        for k in (k for k in some if len({(*a.shape[:k], *a.shape[k + 1 :]) for a in arrays}) == 1):
            times = arrays[0].shape[k] // self.sizes[0]
            own = tuple(a.shape[k] for a in arrays) == tuple(times * size for size in self.sizes)
            if own and (times == 1 or (times and self.thorough)):
                found.append((k, times))
        return found

    def _piece(self, value: Value) -> Piece | None:
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
            return Piece(call.operands[0], axis, int(ends[value.index]), int(ends[value.index + 1]))
        parts = slices_of([source, *known], call.attrs, source.ndim)
        if len(parts) != 1 or parts[0][1].step not in (None, 1):
            return None
        chosen = range(source.shape[parts[0][0]])[parts[0][1]]
        return Piece(call.operands[0], parts[0][0], chosen.start, chosen.stop)

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
        if all(v in self.listing.constants for v in values):
            told = Value(f"{values[0].node}.joined{axis}")
            self.listing.constants[told] = self.arrays[told] = array
            return told
        maker = next(c for v in values if (c := self.listing.producer.get(v)) is not None)
        return self._add(maker, "Concat", values, {"axis": axis}, array)

    def _made(self, calls: Sequence[Call], operands: Sequence[Value | None], array: Any) -> Value:
        origin = tuple(dict.fromkeys(name for call in calls for name in call.provenance))
        return self._add(replace(calls[0], provenance=origin), None, operands, {}, array)

    def _part(self, whole: _Whole, start: int, stop: int) -> Value:
        bounds = []
        for what, number in (("start", start), ("stop", stop), ("axis", whole.place[0])):
            told = Value(f"{whole.value.node}.{what}{number}")
            self.listing.constants[told] = self.arrays[told] = np.asarray([number], np.int64)
            bounds.append(told)
        part = np.take(self._array(whole.value), range(start, stop), axis=whole.place[0])
        return self._add(self.listing.producer[whole.value], "Slice", [whole.value, *bounds], {}, part)

    def _replace(self, moved: Mapping[Value, Value]) -> None:
        """Let others read the new values, and put the calls that are still needed into order."""
        self.found = True
        listing = self.listing
        calls = [replace(c, operands=tuple(moved.get(v, v) if v else None for v in c.operands)) for c in listing.calls]
        outputs = {name: moved.get(value, value) for name, value in listing.outputs.items()}
        producer = {value: call for call in calls for value in call.results}
        placed = [replace(c, position=k) for k, c in enumerate(ordered(producer, list(outputs.values())))]
        producer = {value: call for call in placed for value in call.results}
        self.listing = replace(listing, calls=placed, outputs=outputs, producer=producer)
        self.known.clear()
