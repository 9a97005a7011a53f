"""What running an ONNX-level graph tells about its values: shapes, what is static, equal, or one step of another."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ssmc.frontend.source.listing import Call, Listing
from ssmc.ir.graph import Graph, Value
from ssmc.ir.tensor import widened

MIN_STEPS = 3  # fewer steps than this are no recurrence that could be told from anything else
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


@dataclass(frozen=True)
class Written:
    """One index along one axis is overwritten by `update`; `keep`: the update has that axis, with size one."""

    axis: int
    index: int
    update: Value
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

    @cached_property
    def _portioned(self) -> set[tuple[Value, int]]:
        """Axes that are cut into parts of several entries and a few single ones, as features that happen to be as many
        as there are steps."""
        wide: set[tuple[Value, int]] = set()
        for call in self.listing.calls:
            source = call.operands[0] if call.kind in ("Slice", "Split", "SequenceAt") else None
            split = self.listing.producer.get(source) if source is not None and call.kind == "SequenceAt" else None
            if split is not None:
                source = split.operands[0] if split.kind == "SplitToSequence" else None
            if source is None or self.is_static(source):
                continue
            stream, size = self.canon[source], self.shape(source)
            for part in (self.shape(value) for value in call.results):
                cut = [i for i, (a, b) in enumerate(zip(size, part, strict=False)) if a != b]
                wide.update((stream, axis) for axis in cut if len(cut) == 1 < part[axis] and len(part) == len(size))
        singles: dict[tuple[Value, int], set[int]] = {place: set() for place in wide}
        for access in self.accesses.values():
            if (access.stream, access.axis) in wide:
                singles[access.stream, access.axis].add(access.index)
        return {place for place, indices in singles.items() if len(indices) < MIN_STEPS}

    def intervals(self, length: int, cut: Collection[Value]) -> dict[Value, Interval]:
        """First and last step that each value depends on, of streams of `length` steps; not looking behind `cut`."""
        found: dict[Value, Interval] = {}
        for call in self.listing.calls:
            for value in call.results:
                access = self.accesses.get(self.canon[value])
                if access is None or access.stream in found or (access.stream, access.axis) in self._portioned:
                    continue  # a part of what one step computes is no step, nor is one feature among several parts
                if self.shape(access.stream)[access.axis] == length:
                    found[value] = (access.index, access.index)
            if call.results[0] in found or call.results[0] in cut or self.is_static(call.results[0]):
                continue
            seen = [found[v] for v in call.operands if v is not None and v in found]
            if seen:
                hull = (min(a for a, _ in seen), max(b for _, b in seen))
                found.update((value, hull) for value in call.results)
        return found
