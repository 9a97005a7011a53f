"""Pairs of groups that may touch the same words: intervals that overlap, without looking at all pairs.

Many groups of one pitch (columns of the states of a wide layer, each with rows of its own a step) lie between each
other: all their intervals overlap, though few have words in common. These are told by where they lie within a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Pairs = tuple[Ints, Ints]

CROWDED = 256  # groups of one pitch from which on rows are looked at (ours)
BLOCK = 1 << 20  # pairs that are looked at together


@dataclass(frozen=True)
class Extents:
    """By group: from where to where it lies, how many words of a row it takes, and the pitch of its rows, 0 where it is
    not repeated by step."""

    start: Ints
    stop: Ints
    words: Ints
    pitch: Ints

    def of(self, chosen: Ints) -> Extents:
        return Extents(self.start[chosen], self.stop[chosen], self.words[chosen], self.pitch[chosen])


def meeting(extents: Extents) -> Iterator[Pairs]:
    """Pairs of different groups whose intervals overlap, that which starts first in front, each pair once. Those of one
    pitch whose words lie apart in every row may be missing."""
    pitches, counts = np.unique(extents.pitch[extents.pitch > 0], return_counts=True)
    rest = np.arange(len(extents.start))
    for pitch in pitches[counts >= CROWDED]:
        chosen = extents.pitch[rest] == pitch
        crowd, rest = rest[chosen], rest[~chosen]
        yield from _named(_within(extents.of(crowd), int(pitch)), crowd, crowd)
        yield from _between(extents.of(crowd), extents.of(rest), crowd, rest)
    yield from _named(_overlapping(extents.start[rest], extents.stop[rest]), rest, rest)


def _named(pairs: Iterator[Pairs], first: Ints, second: Ints) -> Iterator[Pairs]:
    return ((first[a], second[b]) for a, b in pairs)


def _overlapping(start: Ints, stop: Ints) -> Iterator[Pairs]:
    """Those that start after one of them and before it stops follow it in order."""
    order = np.argsort(start, kind="stable")
    low, places = start[order], np.arange(len(start))
    following = np.maximum(np.searchsorted(low, stop[order]) - places - 1, 0)
    return _named(_ranges(places + 1, following), order, order)


def _between(a: Extents, b: Extents, of_a: Ints, of_b: Ints) -> Iterator[Pairs]:
    """Overlapping pairs of one of `a` and one of `b`; where both start together, that of `a` is in front."""
    yield from _named(_starting_in(a, b, "left"), of_a, of_b)
    yield from _named(_starting_in(b, a, "right"), of_b, of_a)


def _starting_in(one: Extents, other: Extents, side: Literal["left", "right"]) -> Iterator[Pairs]:
    """Intervals of `one`, each with those of `other` that start in it: at its start too, or behind it alone."""
    order = np.argsort(other.start, kind="stable")
    low = other.start[order]
    first = np.searchsorted(low, one.start, side)
    count = np.maximum(np.searchsorted(low, one.stop) - first, 0)
    return _named(_ranges(first, count), np.arange(len(one.start)), order)


def _within(crowd: Extents, pitch: int) -> Iterator[Pairs]:
    """Pairs of one pitch that overlap as intervals and, seen round a row, in their words."""
    place, words = crowd.start % pitch, np.minimum(crowd.words, pitch)
    order = np.argsort(place, kind="stable")
    low, wide, count = place[order], words[order], len(order)
    twice = np.concatenate([low, low + pitch])  # a row may go on at its beginning
    here = np.arange(count)
    following = np.maximum(np.searchsorted(twice, low + wide) - here - 1, 0)
    for a, b in _ranges(here + 1, following):
        again = b >= count
        b = np.where(again, b - count, b)
        again &= low[a] < low[b] + wide[b]  # which the other finds too
        a, b = order[a[~again]], order[b[~again]]
        together = np.maximum(crowd.start[a], crowd.start[b]) < np.minimum(crowd.stop[a], crowd.stop[b])
        a, b = a[together], b[together]
        turned = crowd.start[a] > crowd.start[b]
        yield np.where(turned, b, a), np.where(turned, a, b)


def _ranges(first: Ints, count: Ints) -> Iterator[Pairs]:
    """(n, k) for all k of `count[n]` places from `first[n]` on, some at a time."""
    ends = np.cumsum(count)
    n = 0
    while n < len(count):
        before = int(ends[n] - count[n])
        stop = max(n + 1, int(np.searchsorted(ends, before + BLOCK, "right")))
        some = count[n:stop]
        each = np.repeat(np.arange(n, stop), some)
        if len(each):
            yield each, first[each] + np.arange(len(each)) - np.repeat(ends[n:stop] - some - before, some)
        n = stop
