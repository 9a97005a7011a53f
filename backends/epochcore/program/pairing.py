"""Which of two groups that may touch the same words waits for the other, and how: the compiled part of `conflicts`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssmc.jit import compiled

Ints = NDArray[np.int64]
RESULT, READING, WHOLE, KINDS = range(4)
APART, HELD, CHAINED = range(3)


@compiled
def waits(
    first: Ints,
    second: Ints,
    start: Ints,
    words: Ints,
    pitch: Ints,
    register: Ints,
    written: Ints,
    loop: Ints,
    against: Ints,
) -> tuple[Ints, Ints]:
    """Lists of groups that each of them waits for, of those that write also the group itself: all lists of a kind one
    behind the other, and where each begins, by kind and group. Of pairs the `first` starts first."""
    count = len(start)
    ways = np.empty(len(first), np.int8)
    at = np.zeros(KINDS * count + 1, np.int64)
    for n in range(count):
        if written[n]:
            chained = register[n] >= 0 and words[n] <= pitch[n]
            at[(RESULT if chained else WHOLE) * count + n + 1] += 1
    for n in range(len(first)):
        a, b, each = first[n], second[n], pitch[first[n]]
        way = HELD if written[a] or written[b] else APART
        if way and each and each == pitch[b]:
            inside = (start[b] - start[a]) % each
            same = register[a] >= 0 and register[a] == register[b] and loop[a] == loop[b] and against[a] == against[b]
            if inside >= words[a] and inside + words[b] <= each:
                way = APART  # beside each other in every row
            elif same and max(words[a], start[b] - start[a] + words[b]) <= each:
                way = CHAINED
        ways[n] = way
        if way:
            at[_kind(way, written[b]) * count + a + 1] += 1
            at[_kind(way, written[a]) * count + b + 1] += 1
    for n in range(KINDS * count):
        at[n + 1] += at[n]
    lists, next_ = np.empty(at[-1], np.int64), at.copy()
    for n in range(count):
        if written[n]:
            chained = register[n] >= 0 and words[n] <= pitch[n]
            _put(lists, next_, (RESULT if chained else WHOLE) * count + n, n)
    for n in range(len(first)):
        if ways[n]:
            a, b = first[n], second[n]
            _put(lists, next_, _kind(ways[n], written[b]) * count + a, b)
            _put(lists, next_, _kind(ways[n], written[a]) * count + b, a)
    return at, lists


@compiled
def _kind(way: int, written: int) -> int:
    """What a group waits for, of another that writes or only reads."""
    if way == CHAINED:
        return RESULT if written else READING
    return WHOLE


@compiled
def _put(lists: Ints, next_: Ints, number: int, value: int) -> None:
    lists[next_[number]] = value
    next_[number] += 1
