"""What running an ONNX-level graph tells about its values: shapes, what is static, equal, or one step of another."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ssmc.frontend.source.evaluate import run_quietly
from ssmc.frontend.source.interface import concrete_shapes, input_types, is_dynamic, sample_inputs
from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.source.operands import slices_of, split_sizes
from ssmc.frontend.unrolled.forwarding import MIN_STEPS, SCATTERS, Written, forwarded
from ssmc.ir.graph import Graph, Value
from ssmc.ir.tensor import widened

BATCH, LENGTH = 3, 11
SMALL = 4096  # static arrays up to this size are compared by content, larger ones by how they are computed
SEEN = 512  # other arrays up to this size are kept, so that steps need not be run again
COMPARISONS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")
COMMUTATIVE = frozenset(["Add", "Mul", "Max", "Min", "And", "Or", "Equal", "Sum"])
COLOUR_DEPTH = 3

Interval = tuple[int, int]


@dataclass(frozen=True)
class Access:
    """A value that is one index along one axis of another; `keep`: the axis stays, with size one."""

    stream: Value
    axis: int
    index: int
    keep: bool


@dataclass(eq=False, repr=False)
class Survey:
    """A graph run at one or two sample points (two where the batch is dynamic).

    `shapes` and `static` have an entry for each point: shapes of all values, arrays of those that do not depend on the
    data; `seen` has small ones of the others. `canon` maps each value to the first that is computed in the same way.
    """

    graph: Graph
    listing: Listing
    points: list[dict[Value, Any]]
    shapes: list[dict[Value, tuple[int, ...]]] = field(default_factory=list)
    static: list[dict[Value, Any]] = field(default_factory=list)
    seen: list[dict[Value, Any]] = field(default_factory=list)
    boolean: set[Value] = field(default_factory=set)
    canon: dict[Value, Value] = field(default_factory=dict)
    accesses: dict[Value, Access] = field(default_factory=dict)
    writes: dict[int, Written | None] = field(default_factory=dict)  # by the position of the call
    read_back: set[Value] = field(default_factory=set)

    def shape(self, value: Value) -> tuple[int, ...]:
        return self.shapes[0][value]

    def is_static(self, value: Value) -> bool:
        return value in self.static[0]

    def array(self, value: Value | None) -> Any:
        """The array of a static value, None for any other."""
        return None if value is None else widened(self.static[0].get(value))

    def operands(self, call: Call) -> list[Value | None]:
        return [None if v is None else self.canon[v] for v in call.operands]

    def squeezed(self, value: Value, axis: int) -> Value | None:
        """A static value without an axis, as if a node gave it; None where it is not static."""
        arrays = [static.get(value) for static in self.static]
        if any(a is None for a in arrays):
            return None
        new = Value(f"{value}.squeezed.{axis}")
        for static, shapes, array in zip(self.static, self.shapes, arrays, strict=True):
            static[new] = np.squeeze(np.asarray(array), axis)
            shapes[new] = static[new].shape
        self.canon[new] = new
        return new

    def stacked(self, values: Sequence[Value | None]) -> Value | None:
        """Static values along a new first axis, as if a node gave them; None where they are not numbers of one type and
        shape, the same for every batch.

        In place of the first ones, where they are None, stand numbers that count on to the others, or the first that
        there is.
        """
        missing = next(k for k, v in enumerate(values) if v is not None)
        seen = [v if v is not None else values[missing] for v in values[missing:]]
        rows = [[np.asarray(static[v]) for v in seen if v is not None] for static in self.static]
        first = rows[0][0]
        alike = all(a.shape == first.shape and a.dtype == first.dtype for row in rows for a in row)
        if not alike or first.dtype.kind not in "fi" or any(not np.array_equal(rows[0], row) for row in rows[1:]):
            return None
        found = np.stack(rows[0])
        stride = found[1] - found[0] if len(found) > 2 and not np.diff(found, n=2, axis=0).any() else 0 * first
        before = [first - (missing - k) * stride for k in range(missing)]
        new = Value("stacked." + ".".join(map(str, values)))
        for static, shapes in zip(self.static, self.shapes, strict=True):
            static[new] = np.stack([*before, *found]).astype(first.dtype)
            shapes[new] = static[new].shape
        self.canon[new] = new
        return new

    def similar(self, a: Call, b: Call, depth: int = COLOUR_DEPTH) -> bool:
        """Do two nodes compute the same of the same streams, but for the step and for the numbers of constants?"""
        if self.signature(a) != self.signature(b):
            return False
        return depth == 0 or all(
            x == y or (x is not None and y is not None and self._alike(x, y, depth - 1))
            for x, y in zip(self.operands(a), self.operands(b), strict=True)
        )

    def _alike(self, x: Value, y: Value, depth: int) -> bool:
        if self.is_static(x) and self.is_static(y):
            return self.shape(x) == self.shape(y)
        one, other = self.accesses.get(x), self.accesses.get(y)
        if one is not None or other is not None:
            return replace(one, index=0) == replace(other, index=0) if one is not None and other is not None else False
        a, b = self.listing.producer.get(x), self.listing.producer.get(y)
        return a is not None and b is not None and x.index == y.index and self.similar(a, b, depth)

    def signature(self, call: Call) -> Any:
        """What two nodes share when they do the same to their operands."""
        return self._signatures[call.position]

    @cached_property
    def _signatures(self) -> list[Any]:
        table: dict[Any, int] = {}
        found = []
        for call in self.listing.calls:
            attributes = tuple(sorted(a.SerializeToString() for a in call.op["node"].attribute))
            regions = tuple((name, id(graph)) for name, graph in sorted(call.op["regions"].items()))
            given = tuple(v is not None for v in call.operands)
            key = (call.kind, attributes, regions, given, len(call.results))
            found.append(table.setdefault(key, len(table)))
        return found

    @cached_property
    def colours(self) -> list[dict[Value, int]]:
        """Hashes of how a value is computed, looking 0, 1, ... nodes back; accesses differ in their stream only."""
        table: dict[Any, int] = {}
        first: dict[Value, int] = {}
        inner: list[tuple[Value, list[Value | None], bool]] = []  # values that look further back
        for value, own in self.canon.items():
            call = self.listing.producer.get(own)
            access = self.accesses.get(own)
            if access is not None:
                key: Any = ("access", access.stream, access.axis, access.keep)
            elif call is None or own in self.static[0]:
                key = own
            else:
                key = (self.signature(call), own.index)
                operands = self.operands(call)
                if call.kind in COMPARISONS:  # with the number of the step, as of lengths
                    operands = [None if v in self.static[0] else v for v in operands]
                inner.append((value, operands, call.kind in COMMUTATIVE))
            first[value] = table.setdefault(key, len(table))
        levels = [first]
        for _ in range(COLOUR_DEPTH):
            before, level = levels[-1], dict(first)
            for value, operands, commutes in inner:
                parts = [-1 if v is None else before[v] for v in operands]
                level[value] = hash((first[value], *(sorted(parts) if commutes else parts)))
            levels.append(level)
        return levels

    def intervals(self, length: int, cut: Collection[Value]) -> dict[Value, Interval]:
        """First and last step that each value depends on, of streams of `length` steps; not looking behind `cut`."""
        found: dict[Value, Interval] = {}
        for call in self.listing.calls:
            for value in call.results:
                access = self.accesses.get(self.canon[value])
                if access is None or access.stream in found:
                    continue  # a part of what one step computes is no step
                if self.shape(access.stream)[access.axis] == length:
                    found[value] = (access.index, access.index)
            if call.results[0] in found or call.results[0] in cut or self.is_static(call.results[0]):
                continue
            seen = [found[v] for v in call.operands if v is not None and v in found]
            if seen:
                hull = (min(a for a, _ in seen), max(b for _, b in seen))
                found.update((value, hull) for value in call.results)
        return found


def survey(graph: Graph, listing: Listing) -> Survey | None:
    """Run the graph and look at it; None where nothing in it looks like steps. Raises UserError where it cannot run."""
    if not _may_be_unrolled(listing):
        return None
    types = input_types(graph)
    batches = [BATCH, BATCH + 1] if is_dynamic(types)[0] else [BATCH]
    points = [sample_inputs(listing, concrete_shapes(types, batch, LENGTH), types, seed=5 + batch) for batch in batches]
    found = Survey(graph, listing, points)
    with np.errstate(all="ignore"):
        for point in points:
            _run(found, point)
    _name_values(found)
    _find_accesses(found)
    return found


def _may_be_unrolled(listing: Listing) -> bool:
    """Is any value read piece by piece? A look that costs nothing, to spare graphs of other kinds the run."""
    pieces: dict[tuple[str, Value], int] = {}
    for call in listing.calls:
        if call.kind in ("Split", "SplitToSequence") and (len(call.results) >= MIN_STEPS or call.kind != "Split"):
            return True
        if call.kind in ("Gather", "Slice") and call.operands[0] is not None:
            key = (call.kind, call.operands[0])
            pieces[key] = pieces.get(key, 0) + 1
    return max(pieces.values(), default=0) >= MIN_STEPS


def _run(found: Survey, point: Mapping[Value, Any]) -> None:
    """Shapes of all values at a point, and the arrays of static ones."""
    listing = found.listing
    last = {v: call.position for call in listing.calls for v in call.operands if v is not None}
    values: dict[Value, Any] = {**listing.constants, **point}
    static: dict[Value, Any] = dict(listing.constants)
    seen: dict[Value, Any] = {}
    shapes = {v: np.shape(a) for v, a in values.items()}
    for call in listing.calls:
        arrays = [None if v is None else values[v] for v in call.operands]
        results = run_quietly(call, arrays)
        fixed = call.kind in ("Shape", "Size") or all(v is None or v in static for v in call.operands)
        fixed = fixed or (call.kind == "Mul" and any(v in static and not np.any(static[v]) for v in call.operands))
        for value, array in zip(call.results, results, strict=False):
            values[value] = array
            shapes[value] = () if isinstance(array, list) else np.shape(array)
            if fixed:
                static[value] = array
            elif isinstance(array, np.ndarray) and array.size <= SEEN:
                seen[value] = array
            if not isinstance(array, list) and np.asarray(array).dtype == np.bool_:
                found.boolean.add(value)
        for v in call.operands:
            if v is not None and last[v] == call.position and v not in static:
                values.pop(v, None)
    found.shapes.append(shapes)
    found.static.append(static)
    found.seen.append(seen)


def _name_values(found: Survey) -> None:
    """Fill `canon`: equal small constants, equal nodes on equal operands, and Identity."""
    table: dict[Any, Value] = {}
    listing = found.listing

    def content(value: Value) -> Any:
        arrays = [static[value] for static in found.static if value in static]
        if len(arrays) < len(found.static) or any(isinstance(a, list) or np.size(a) > SMALL for a in arrays):
            return None
        return tuple((np.asarray(a).dtype.str, np.shape(a), np.asarray(a).tobytes()) for a in arrays)

    for value in (*listing.inputs.values(), *listing.constants):
        found.canon[value] = table.setdefault(content(value) or value, value)
    for call in listing.calls:
        operands = tuple(found.operands(call))
        if operands and operands[0] is not None and _gives_back(found, call, operands[0]):
            found.canon[call.results[0]] = operands[0]
            found.canon.update((value, value) for value in call.results[1:])
            continue
        for value in call.results:
            key = content(value) or (found.signature(call), operands, value.index)
            found.canon[value] = table.setdefault(key, value)
        written = _read_back(found, call, operands[0]) if operands else None
        if written is not None:
            found.canon[call.results[0]] = written
            found.read_back.add(call.results[0])


def _gives_back(found: Survey, call: Call, source: Value) -> bool:
    """Does a node give what it is given?"""
    if call.kind in ("Expand", "Reshape"):
        return all(shapes[call.results[0]] == shapes[source] for shapes in found.shapes)
    return call.kind in ("Identity", "Dropout")


def _read_back(found: Survey, call: Call, source: Value | None) -> Value | None:
    """What was written to the step that a call reads of `source`."""
    maker = None if source is None else found.listing.producer.get(source)
    if source is None or maker is None or maker.kind not in SCATTERS:
        return None
    access = _access(found, call, source, call.results[0])
    return None if access is None else forwarded(found, access)


def _find_accesses(found: Survey) -> None:
    for call in found.listing.calls:
        source = call.operands[0] if call.operands else None
        if source is None or found.is_static(source):
            continue
        stream = found.canon[source]
        for value in call.results:
            access = _access(found, call, stream, value)
            if access is not None and value not in found.read_back:
                found.accesses[found.canon[value]] = access


def _access(found: Survey, call: Call, stream: Value, value: Value) -> Access | None:
    shape, result = found.shape(stream), found.shape(value)
    if call.kind == "SequenceAt":
        split = found.listing.producer.get(stream)
        index = found.array(call.operands[1])
        if split is None or split.kind != "SplitToSequence" or split.operands[0] is None or index is None:
            return None
        source = found.canon[split.operands[0]]
        shape, axis = found.shape(source), int(split.attrs.get("axis", 0)) % len(found.shape(source))
        keep = len(result) == len(shape)
        if shape[axis] < MIN_STEPS or (keep and result[axis] != 1) or np.size(index) != 1:
            return None
        return Access(source, axis, int(np.reshape(index, -1)[0]) % shape[axis], keep)
    if call.kind == "Gather":
        index, axis = found.array(call.operands[1]), int(call.attrs.get("axis", 0)) % len(shape)
        if index is None or np.size(index) != 1 or np.ndim(index) > 1 or shape[axis] < MIN_STEPS:
            return None
        return Access(stream, axis, int(np.reshape(index, -1)[0]) % shape[axis], np.ndim(index) == 1)
    if call.kind not in ("Slice", "Split") or len(shape) != len(result):
        return None
    changed = [i for i, (a, b) in enumerate(zip(shape, result, strict=True)) if a != b]
    if len(changed) != 1 or result[changed[0]] != 1 or shape[changed[0]] < MIN_STEPS:
        return None
    axis = changed[0]
    arrays = [found.array(v) for v in call.operands]
    if call.kind == "Split":
        padded = [np.empty(shape), *arrays[1:]]
        start = sum(split_sizes(padded, call.attrs, len(call.results))[: value.index])
        return Access(stream, axis, start, True)
    if any(v is not None and a is None for v, a in zip(call.operands[1:], arrays[1:], strict=True)):
        return None
    parts = dict(slices_of(arrays, call.attrs, len(shape)))
    return Access(stream, axis, range(shape[axis])[parts[axis]][0], True) if axis in parts else None
