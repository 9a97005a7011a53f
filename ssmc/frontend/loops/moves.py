"""Chunks that are taken out of a tensor, and put together again, by whatever ops only move numbers.

Run on the numbers of the places such ops tell which chunk is which part of the time axis, in which layout: so chunks
that are picked from (batch, chunks, steps, ...), or stacked and reshaped, or written into a tensor, become a Slice or
a Concat along that axis, with a reshape and a transpose of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.loops.limits import MOST_CALLS, MOST_CHUNKS
from ssmc.frontend.loops.parts import moved_by
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.source.maker import Maker
from ssmc.frontend.source.samples import Samples
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

LARGEST = 1 << 22  # numbers of a tensor whose places are looked at (ours)
SEQUENCES: dict[str, tuple[int, ...]] = {
    "SequenceInsert": (0, 1),
    "ConcatFromSequence": (0,),
    "SequenceAt": (0,),
    "SplitToSequence": (0,),
}


def in_place(listing: Listing, point: Mapping[Value, Any], steps: int) -> Listing:
    """The listing with chunks of an axis of `steps` as Slices of it, and joined to it by a Concat."""
    if len(listing.calls) > MOST_CALLS:
        return listing
    found = replace(listing, calls=[], constants=dict(listing.constants), producer={})
    writer = _Writer(listing, point, Samples(listing, [dict(point)]), steps, Maker(found))
    for call in listing.calls:
        if not (len(call.results) == 1 and writer.rewritten(call)):
            writer.maker.add(call)
    return found


@dataclass(eq=False)
class _Writer:
    listing: Listing
    point: Mapping[Value, Any]
    samples: Samples
    steps: int
    maker: Maker

    def rewritten(self, call: Call) -> bool:
        """Was what a call gives said by a Slice or a Concat?"""
        value = call.results[0]
        if not _sources(call) or not self._is_read(value):
            return False
        leaves, between = self._behind(value)
        if not leaves or len(leaves) > MOST_CHUNKS or between <= 1:
            return False
        arrays = self._run(leaves, [value])
        if arrays is None:
            return False
        places, ends = arrays
        if len(leaves) == 1:
            return self._part(call, leaves[0], places)
        return self._whole(call, leaves, places, ends)

    def _is_read(self, value: Value) -> bool:
        """Does anything read it but what only moves it?"""
        users = self.listing.users.get(value, [])
        return value in self.listing.outputs.values() or any(value not in _sources(user) for user in users)

    def _behind(self, value: Value) -> tuple[list[Value], int]:
        """What the value is moved from, and by how many calls."""
        leaves: dict[Value, None] = {}
        calls: set[int] = set()
        waiting = [value]
        while waiting:
            here = waiting.pop()
            call = self.listing.producer.get(here)
            sources = [] if call is None or here in self.listing.constants else _sources(call)
            if call is not None and (sources or call.kind == "SequenceEmpty"):
                if call.position not in calls:
                    calls.add(call.position)
                    waiting += sources
            else:
                leaves[here] = None
        return list(leaves), len(calls)

    def _run(self, leaves: Sequence[Value], wanted: list[Value]) -> tuple[Array, Array] | None:
        """The numbers of the places of the leaves, wherever they are moved, and after which each leaf ends."""
        try:
            arrays = self.samples.at(0, leaves)
            if any(not isinstance(arrays[v], np.ndarray) for v in leaves):
                return None
            ends = np.cumsum([0, *(arrays[v].size for v in leaves)])
            if ends[-1] > LARGEST:
                return None
            marks = {
                v: np.arange(first, first + arrays[v].size, dtype=np.float64).reshape(arrays[v].shape)
                for v, first in zip(leaves, ends[:-1], strict=True)
            }
            found = evaluate(self.listing, {**self.point, **marks}, wanted)[wanted[0]]
        except UserError:
            return None
        self.shapes = {v: arrays[v].shape for v in leaves}
        return (found.astype(np.int64), ends) if isinstance(found, np.ndarray) else None

    def _part(self, call: Call, source: Value, places: Array) -> bool:
        """A chunk of an axis as a Slice of it."""
        shape = self.shapes[source]
        for axis, size in enumerate(shape):
            if size != self.steps or places.size >= prod(shape) or not places.size:
                continue
            along = places // prod(shape[axis + 1 :]) % size
            start, stop = int(along.min()), int(along.max()) + 1
            if stop - start < 2 or places.size != prod(shape) // size * (stop - start):
                continue
            chunk = np.take(np.arange(prod(shape)).reshape(shape), range(start, stop), axis)
            if not np.array_equal(np.sort(places.reshape(-1)), np.sort(chunk.reshape(-1))):
                continue
            order = np.empty(prod(shape), np.int64)
            order[chunk.reshape(-1)] = np.arange(chunk.size)
            if (layout := layout_of(order[places])) is None:
                continue
            bounds = [self.maker.numbers(call, n) for n in (start, stop, axis)]
            self._laid_out(call, self.maker.node(call, "Slice", [source, *bounds]), chunk.shape, layout, places.shape)
            return True
        return False

    def _whole(self, call: Call, leaves: Sequence[Value], places: Array, ends: Array) -> bool:
        """Chunks that fill an axis, as a Concat along it."""
        owner = np.searchsorted(ends, places, side="right") - 1
        for axis, size in enumerate(places.shape):
            rows = np.moveaxis(owner, axis, 0).reshape(size, -1)
            if size != self.steps or not rows.size or np.any(rows != rows[:, :1]):
                continue
            cuts = [0, *(np.flatnonzero(np.diff(rows[:, 0])) + 1).tolist(), size]
            chosen = [int(rows[k, 0]) for k in cuts[:-1]]
            chunks = [np.take(places, range(a, b), axis) for a, b in pairwise(cuts)]
            if len(set(chosen)) < len(chosen) or min(np.diff(cuts)) < 2:
                continue
            layouts = []
            for k, chunk in zip(chosen, chunks, strict=True):
                whole = chunk.size == ends[k + 1] - ends[k]
                layouts.append(layout_of(chunk - ends[k]) if whole else None)
            if any(layout is None for layout in layouts):
                continue
            parts = [
                self._laid_out(call, leaves[k], self.shapes[leaves[k]], layout, chunk.shape, ends=False)
                for k, layout, chunk in zip(chosen, layouts, chunks, strict=True)
                if layout is not None
            ]
            self.maker.node(call, "Concat", parts, call.results[0], axis=axis)
            return True
        return False

    def _laid_out(
        self,
        call: Call,
        value: Value,
        shape: tuple[int, ...],
        layout: tuple[tuple[int, ...], tuple[int, ...]],
        wanted: tuple[int, ...],
        ends: bool = True,
    ) -> Value:
        """A value in another layout; with `ends` as the result of the call."""
        fine, order = layout
        turned = tuple(fine[k] for k in order)
        steps: list[tuple[str, tuple[int, ...]]] = []
        if list(order) != sorted(order):
            steps += [("Reshape", fine)] * (shape != fine) + [("Transpose", order)]
            shape = turned
        steps += [("Reshape", wanted)] * (shape != wanted)
        if ends and not steps:
            steps = [("Identity", ())]
        for k, (kind, numbers) in enumerate(steps):
            result = call.results[0] if ends and k == len(steps) - 1 else None
            if kind == "Transpose":
                value = self.maker.node(call, kind, [value], result, perm=list(numbers))
            elif kind == "Reshape":
                value = self.maker.node(call, kind, [value, self.maker.numbers(call, *numbers)], result)
            else:
                value = self.maker.node(call, kind, [value], result)
        return value


def _sources(call: Call) -> list[Value]:
    """The operands whose numbers a call only moves; none for any other call."""
    if call.kind == "SequenceConstruct":
        return [v for v in call.operands if v is not None]
    if call.kind in SEQUENCES:
        return [v for k, v in enumerate(call.operands) if k in SEQUENCES[call.kind] and v is not None]
    return [] if call.kind in ("Expand", "Cast") else list(moved_by(call).values())


def layout_of(places: Array) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Sizes, and an order of the axes, such that the numbers 0, 1, 2 ... in these sizes, transposed and reshaped, are
    the `places`; None where there are none."""
    axes: list[tuple[int, int]] = []  # sizes and strides
    for axis in range(places.ndim):
        index = tuple(slice(None) if k == axis else 0 for k in range(places.ndim))
        parts = _strides(places[index])
        if parts is None:
            return None
        axes += parts
    order = sorted(range(len(axes)), key=lambda k: -axes[k][1])
    fine = tuple(axes[k][0] for k in order)
    turned = tuple(order.index(k) for k in range(len(axes)))
    if prod(fine) != places.size:
        return None
    again = np.arange(places.size).reshape(fine).transpose(turned).reshape(places.shape)
    return (fine, turned) if np.array_equal(again, places) else None


def _strides(numbers: Array) -> list[tuple[int, int]] | None:
    """The (size, stride) of the axes that an axis is made of, the outer ones first; without those of size one."""
    count = len(numbers)
    if count == 1:
        return []
    stride = int(numbers[1] - numbers[0])
    for size in (d for d in range(count, 1, -1) if count % d == 0):
        if np.array_equal(numbers[:size] - numbers[0], stride * np.arange(size)):
            outer = _strides(numbers[::size])
            return None if outer is None else [*outer, (size, stride)]
    return None
