"""Parts of a tensor along an axis: which they are, and their join."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmc.frontend.loops.limits import MOST_CHUNKS
from ssmc.frontend.source.listing import Call, Listing
from ssmc.ir.graph import Value

DEPTH = 24  # ops between a join and the chunks that are looked at (ours)

Values = tuple[Value, ...]
Place = tuple[int, int]  # an axis, and how many times over it holds the steps, as where batch and steps are one


@dataclass(frozen=True)
class Piece:
    """Indices `start` to `stop` of one axis of a value."""

    source: Value
    axis: int
    start: int
    stop: int


def joins_chunks(listing: Listing, call: Call) -> bool:
    """Does it join what is made of different parts of a value, by ops of one kind?"""
    operands = [v for v in call.operands if v is not None]
    makers = [listing.producer.get(v) for v in operands]
    if not 2 <= len(operands) <= MOST_CHUNKS or len(set(operands)) < len(operands):
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


def how(call: Call) -> Any:
    """What two calls share that do the same."""
    return call.kind, tuple(sorted(a.SerializeToString() for a in call.op["node"].attribute))


def concatenated(arrays: Sequence[Any], place: Place) -> Any:
    """Arrays joined at the place."""
    axis, times = place
    if times == 1:
        return np.concatenate(arrays, axis)
    parts = [a.reshape(*a.shape[:axis], times, -1, *a.shape[axis + 1 :]) for a in arrays]
    whole = np.concatenate(parts, axis + 1)
    return whole.reshape(*whole.shape[:axis], -1, *whole.shape[axis + 2 :])


def equal(a: Any, b: Any) -> bool:
    """Whether two arrays are there, of one shape, with the same numbers."""
    return a is not None and b is not None and np.shape(a) == np.shape(b) and np.array_equal(a, b)


def ordered(producer: Mapping[Value, Call], wanted: Sequence[Value]) -> list[Call]:
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
