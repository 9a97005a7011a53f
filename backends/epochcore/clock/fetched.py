"""Constants that overwrite each other: the compiled part of `lying`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.clock.records import Ints, Number
from ssmc.jit import compiled

FIRST, END = range(2)


@compiled
def fetch(fetched: Ints, lying: Ints, count: int, moves: NDArray[np.bool_]) -> Number:
    """Fetch one constant after the other to where so many lie already, with room for all: which of them move, and how
    many lie there then. Rows are where they begin, where they end, and their numbers."""
    for n in range(len(moves)):
        first, end = fetched[FIRST, n], fetched[END, n]
        low, high = 0, count
        while low < high:
            middle = (low + high) // 2
            if lying[END, middle] <= first:
                low = middle + 1
            else:
                high = middle
        while high < count and lying[FIRST, high] < end:
            high += 1
        moves[n] = high != low + 1
        for row in range(len(lying)):
            moves[n] |= lying[row, low] != fetched[row, n]
        if moves[n]:
            # it takes the place of all that it overlaps
            by = low + 1 - high
            for turn in range(count - high):
                place = count - 1 - turn if by > 0 else high + turn
                for row in range(len(lying)):
                    lying[row, place + by] = lying[row, place]
            for row in range(len(lying)):
                lying[row, low] = fetched[row, n]
            count += by
    return count
