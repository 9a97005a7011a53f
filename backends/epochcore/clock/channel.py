"""The DRAM channel where engines hand over step by step: in every cycle it serves the oldest transfer that can go on.

A younger transfer gets what the older ones leave, so that placing transfers in the program's order, each into the
cycles that are left, gives the same as serving them cycle by cycle. When it is taken is kept as disjoint intervals in
order; cycles are counted as free ones, those before a time that are in none of them, and back.

Functions of `Words` are machine code, or run as they stand (`ssmc.whole_numbers`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssmc.whole_numbers import Words

Ints = NDArray[np.int64]
FIRST, COUNT, ROOM = 0, 1, 2  # intervals that somebody may still ask for, from the first to the last; room for them


def make_room(channel: Words, starts: Words, ends: Words, more: int, horizon: int) -> int:
    """Whether there is room for so many intervals more, at their place or after moving all of them to the front.

    Nothing will be asked for before `horizon` any more.
    """
    if channel[COUNT] + more <= channel[ROOM]:
        return 1
    first = place_of(ends, channel[FIRST], channel[COUNT], horizon + 1)
    for n in range(first, channel[COUNT]):
        starts[n - first] = starts[n]
        ends[n - first] = ends[n]
    channel[COUNT] = channel[COUNT] - first
    channel[FIRST] = 0
    if channel[COUNT] + more <= channel[ROOM]:
        return 1
    return 0


def place_of(values: Words, low: int, high: int, value: int) -> int:
    """The first place from `low` to `high`, in order, with no less than a value."""
    while low < high:
        middle = (low + high) // 2
        if values[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


def serve(
    channel: Words,
    starts: Words,
    ends: Words,
    kept_starts: Words,
    kept_ends: Words,
    ready: Words,
    shares: Words,
    before: int,
    number: int,
    unit: int,
    done: Words,
    at: int,
    horizon: int,
) -> int:
    """Serve blocks one after the other, none before it is `ready` (ascending); `shares` of the engine's time, from
    `before` on those before each of them and then those with it, are in cycles over `unit`. Nothing will be asked for
    before `horizon` any more.

    Writes when each is `done`, from `at` on; what is `ready` becomes when it begins. Returns when the first does.
    """
    count = channel[COUNT]
    channel[FIRST] = place_of(ends, channel[FIRST], count, horizon + 1)
    # what ends before the first block is ready is in nobody's way
    low = place_of(ends, channel[FIRST], count, ready[0])
    # by kind of time: intervals that have passed, and the cycles that they take
    past, past_taken, begun, begun_taken, over, over_taken = low, 0, low, 0, low, 0
    latest = 0
    for k in range(number):
        while past < count and starts[past] <= ready[k]:
            past_taken += ends[past] - starts[past]
            past += 1
        free = ready[k] - past_taken
        if past > low:
            free += max(0, ends[past - 1] - ready[k])
        least = unit * free - shares[before + k]
        latest = max(latest, least) if k > 0 else least
        begin = (latest + shares[before + k]) // unit
        end = -(-(latest + shares[before + number + k]) // unit)
        while begun < count and starts[begun] - begun_taken <= begin:
            begun_taken += ends[begun] - starts[begun]
            begun += 1
        while over < count and starts[over] - over_taken < end:
            over_taken += ends[over] - starts[over]
            over += 1
        ready[k] = begin + begun_taken
        done[at + k] = end + over_taken
    # all of them in order; what lies between was taken already where they overlap
    n, own, k = 0, low, 0
    while own < count or k < number:
        if k == number or (own < count and starts[own] <= ready[k]):
            start, stop = starts[own], ends[own]
            own += 1
        else:
            start, stop = ready[k], done[at + k]
            k += 1
        if n > 0 and start <= kept_ends[n - 1]:
            kept_ends[n - 1] = max(kept_ends[n - 1], stop)
        else:
            kept_starts[n] = start
            kept_ends[n] = stop
            n += 1
    for m in range(n):
        starts[low + m] = kept_starts[m]
        ends[low + m] = kept_ends[m]
    channel[COUNT] = low + n
    return ready[0]


def serve_one(
    channel: Words,
    starts: Words,
    ends: Words,
    kept_starts: Words,
    kept_ends: Words,
    ready: Words,
    cycles: int,
    horizon: int,
) -> int:
    """The same for one block of so many cycles that is `ready`; when it is done is behind that then."""
    start, count = ready[0], channel[COUNT]
    if count > channel[FIRST] and start < ends[count - 1]:
        ready[2] = 0
        ready[3] = cycles
        return serve(channel, starts, ends, kept_starts, kept_ends, ready, ready, 2, 1, 1, ready, 1, horizon)
    ready[1] = start + cycles
    if count > channel[FIRST] and start == ends[count - 1]:
        ends[count - 1] = start + cycles
    else:
        starts[count] = start
        ends[count] = start + cycles
        channel[COUNT] = count + 1
    return start


def clipped(starts: Ints, ends: Ints, first: int) -> tuple[Ints, Ints]:
    """What of intervals comes after `first`."""
    at = int(ends.searchsorted(first, "right"))
    return np.maximum(starts[at:], first), ends[at:]


def again(starts: Ints, ends: Ints, first: int, each: int, times: int) -> tuple[Ints, Ints]:
    """Intervals, where what was taken in the `each` cycles from `first` on is so again so many `times` before what
    comes later."""
    split = first + each
    cut = [_between(starts, ends, 0, first, 0)]
    cut += [_between(starts, ends, first, split, n * each) for n in range(times + 1)]
    cut += [_between(starts, ends, split, None, times * each)]
    starts, ends = (np.concatenate(values) for values in zip(*cut, strict=True))
    apart = np.flatnonzero(starts[1:] > ends[:-1])
    if not len(starts):
        return starts, ends
    return starts[np.append(0, apart + 1)], ends[np.append(apart, len(ends) - 1)]


def _between(starts: Ints, ends: Ints, low: int, high: int | None, late: int) -> tuple[Ints, Ints]:
    """Parts of intervals from `low` to `high`, so much later."""
    starts, ends = np.maximum(starts, low), ends if high is None else np.minimum(ends, high)
    kept = starts < ends
    return starts[kept] + late, ends[kept] + late
