"""Several layers' states in one tensor: each layer reads its part of it, and the new parts are put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ssmc.frontend.evaluate import evaluate
from ssmc.frontend.flow import Flow, Known, Refused, Tracked
from ssmc.frontend.listing import Call, Listing
from ssmc.frontend.operands import axes_of, slices_of, split_sizes
from ssmc.frontend.recurrence import State
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

AFFINE_TOLERANCE = 1e-8


@dataclass(frozen=True)
class Part:
    """`current` is what a layer reads, the result number `result` of `read`; `following` is what it writes.

    `wrapped` is the node that gives `following` the axis along which the parts stand, None where it has it.
    """

    current: Value
    following: Value
    read: Call
    result: int
    wrapped: Call | None


@dataclass(frozen=True)
class Parts:
    """The parts in their order, and the node that puts them together."""

    members: tuple[Part, ...]
    join: Call


@dataclass(frozen=True)
class Divided:
    """A state as the states that are its parts."""

    states: tuple[State, ...]
    parts: Parts

    def together(self, translator: Translator, last: dict[str, Tracked]) -> Tracked:
        """The last state, of the last states of the parts, which are taken out of `last`. Raises Unsupported."""
        found: list[Tracked] = []
        for state, part in zip(self.states, self.parts.members, strict=True):
            item = last.pop(state.name)
            if part.wrapped is not None and not isinstance(item, Refused):
                (item,) = translator.apply(part.wrapped, [item, *_known(translator, part.wrapped.operands[1:])])
            found.append(item)
        if any(isinstance(item, Refused) for item in found):
            return Refused()
        return translator.apply(self.parts.join, found)[0]


def divide(translator: Translator, state: State, point: Mapping[Value, Array]) -> Divided | None:
    """A state of which the layers that share it are not linear in each other's parts; None where there is no need.

    Raises Unsupported where its first value cannot be taken apart.
    """
    listing = translator.listing
    if affine(listing, point, state.current, state.following):
        return None
    parts = find_parts(listing, state.current, state.following, point)
    if parts is None:
        return None
    states = []
    for k, part in enumerate(parts.members):
        initial = translator.apply(part.read, [state.initial, *_known(translator, part.read.operands[1:])])[part.result]
        assert isinstance(initial, Flow | Known)
        states.append(State(f"{state.name}[{k}]", part.current, part.following, initial))
    return Divided(tuple(states), parts)


def _known(translator: Translator, values: Sequence[Value | None]) -> list[Known | None]:
    return [None if v is None else Known(translator.listing.constants[v]) for v in values]


def affine(listing: Listing, point: Mapping[Value, Array], current: Value, following: Value) -> bool:
    """Does the next state move with the present one as a sum does with its terms?"""
    rng = np.random.default_rng(1)
    shape = np.shape(point[current])
    steps = [np.zeros(shape), *(rng.standard_normal(shape) for _ in range(2))]
    steps.append(steps[1] + steps[2])
    base, first, second, both = (
        np.asarray(evaluate(listing, {**point, current: point[current] + step}, [following])[following])
        for step in steps
    )
    moved = np.abs(both - first - second + base).max(initial=0.0)
    return bool(moved <= AFFINE_TOLERANCE * max(np.abs(both - base).max(initial=0.0), 1.0))


def find_parts(listing: Listing, current: Value, following: Value, point: Mapping[Value, Array]) -> Parts | None:
    """How a state is made of parts, each read once and written once; None where it is not.

    `point` are sample arrays of all inputs.
    """
    join = listing.producer.get(following)
    while join is not None and join.kind == "Identity" and join.operands[0] is not None:
        join = listing.producer.get(join.operands[0])
    if join is None or join.kind != "Concat":
        return None
    shape = np.shape(point[current])
    axis = int(join.attrs["axis"]) % len(shape)
    reads = _reads(listing, current, shape, axis)
    written = _written(listing, join, axis, point)
    if reads is None or written is None or sorted(reads) != sorted(written) or len(reads) < 2:
        return None
    members = []
    for place in sorted(reads):
        read, result, squeezed = reads[place]
        value, wrapped = written[place]
        inside = listing.producer.get(value) if wrapped is None else None
        if squeezed != (wrapped is not None) or value in (current, None) or inside is read:
            return None
        members.append(Part(read.results[result], value, read, result, wrapped))
    return Parts(tuple(members), join)


def _reads(
    listing: Listing, current: Value, shape: tuple[int, ...], axis: int
) -> dict[tuple[int, int], tuple[Call, int, bool]] | None:
    """(first, end) of each part that is read -> the node, its result, and whether the axis is gone; None if else."""
    found: dict[tuple[int, int], tuple[Call, int, bool]] = {}
    for call in listing.users.get(current, []):
        known = [listing.constants[v] for v in call.operands[1:] if v is not None and v in listing.constants]
        if call.operands[0] != current or len(known) < len(call.operands) - 1:
            return None
        operands: list[Any] = [np.empty(shape), *known]
        places: list[tuple[int, int]] = []
        squeezed = False
        if call.kind == "Gather" and int(call.attrs.get("axis", 0)) % len(shape) == axis and np.size(known[0]) == 1:
            first = int(np.reshape(known[0], ())) % shape[axis]
            places, squeezed = [(first, first + 1)], np.ndim(known[0]) == 0
        elif call.kind == "Slice":
            cuts = [(a, range(shape[a])[part]) for a, part in slices_of(operands, call.attrs, len(shape))]
            cuts = [(a, part) for a, part in cuts if part != range(shape[a])]
            if len(cuts) == 1 and cuts[0][0] == axis and cuts[0][1].step == 1:
                places = [(cuts[0][1].start, cuts[0][1].stop)]
        elif call.kind == "Split" and int(call.attrs.get("axis", 0)) % len(shape) == axis:
            ends = np.cumsum([0, *split_sizes(operands, call.attrs, len(call.results))])
            places = [(int(a), int(b)) for a, b in pairwise(ends)]
        if not places or any(place in found for place in places):
            return None
        found.update({place: (call, k, squeezed) for k, place in enumerate(places)})
    return found


def _written(
    listing: Listing, join: Call, axis: int, point: Mapping[Value, Array]
) -> dict[tuple[int, int], tuple[Value, Call | None]] | None:
    """(first, end) of each part that is written -> its value without and with the axis of the parts."""
    operands = [value for value in join.operands if value is not None]
    sizes = [np.shape(array)[axis] for array in _values(listing, operands, point)]
    found: dict[tuple[int, int], tuple[Value, Call | None]] = {}
    first = 0
    for value, size in zip(operands, sizes, strict=True):
        call = listing.producer.get(value)
        inside = call.operands[0] if call is not None and call.kind == "Unsqueeze" else None
        if call is not None and inside is not None:
            known = [None, *(None if v is None else listing.constants.get(v) for v in call.operands[1:])]
            axes = axes_of(known, call.attrs, 1, ()) or []
            rank = np.ndim(_values(listing, [value], point)[0])
            found[first, first + size] = (inside, call) if [a % rank for a in axes] == [axis] else (value, None)
        else:
            found[first, first + size] = (value, None)
        first += size
    return found


def _values(listing: Listing, wanted: Sequence[Value], point: Mapping[Value, Array]) -> list[Array]:
    found = evaluate(listing, point, wanted)
    return [np.asarray(found[value]) for value in wanted]
