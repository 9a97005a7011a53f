"""What ops add to the length of a run, and to the time in which clocks of the array run: the compiled part of
`account`."""

from __future__ import annotations

from backends.epochcore.clock.records import Ints
from ssmc.jit import compiled


@compiled
def add(begun: Ints, finished: Ints, layer: Ints, on: Ints, times: int, ends: Ints, counts: Ints) -> None:
    """Ops from when each has `begun` until it is `finished`, so many `times`: what they add to `ends` of all, and of
    the engines that they are `on` (negative: of none that matters), counts by that and by `layer`."""
    for op in range(len(finished)):
        finish, place, row = finished[op], layer[op], on[op] + 1
        if finish > ends[0]:
            counts[0, place] += times * (finish - ends[0])
            ends[0] = finish
        if row > 0 and finish > ends[row]:
            # from its beginning, or from when another one ended
            counts[row, place] += times * min(finish - ends[row], finish - begun[op])
            ends[row] = finish
