"""How much the loops of a file may make: told before the first trip, or by it, and never by the clock.

Loops are run step by step while a model is imported. Of loops inside of loops it is the product of all trips that
counts, whether a count is a weight, is captured from outside, or is computed on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.source.announced import MAX_RESULT, TooLarge
from ssmc.frontend.source.listing import Call

MAX_TRIPS = 1 << 17  # of a loop, with those that it is in (ours)
MAX_RUNS = 1 << 22  # runs of a node in them (ours)
MAX_NUMBERS = 1 << 35  # numbers that they make (ours)
PROBES = 1 << 5  # runs of a body, at least, while its states are found (ours)
COUNTED = (1 << 31) - 1  # from here on a number of trips says only that another condition ends the loop
STEPWISE = "it is run step by step while the model is imported"
SHORTER = "export the model at a shorter length"
WRITE_OUT = f"{SHORTER}, or write its inner loops as sums or products"


@dataclass(eq=False)
class Effort:
    """What a body of a loop takes: the trips of the loops `around` it, multiplied, and `numbers` made in it so far."""

    around: int = 1
    numbers: int = 0

    def within(self, call: Call, trips: int, nodes: int) -> Effort:
        """That of the body, of so many nodes, of a loop in this one.

        Raises TooLarge where its trips, with those around it, are too many, or run too many nodes.
        """
        whole = max(trips, 1) * self.around
        if self.around > 1 and whole > MAX_TRIPS:
            what = f"a loop of {trips} trips in a body that runs {self.around} times (at most {MAX_TRIPS} trips in all)"
            raise TooLarge(what, node=call.name, why=STEPWISE, hint=WRITE_OUT)
        if whole * nodes > MAX_RUNS:
            what = f"a loop of {whole} trips in all, of {nodes} nodes each (at most {MAX_RUNS} runs of a node)"
            raise TooLarge(what, node=call.name, why=STEPWISE, hint=WRITE_OUT)
        return Effort(whole)

    def foresee(self, call: Call, row: Sequence[Any], done: int, trips: int) -> None:
        """Look from what `done` trips of a loop made, and stacked as `row` at the last, at what so many will.

        Raises TooLarge where that fits neither in memory nor in time.
        """
        size = trips * sum(a.size for a in row if isinstance(a, np.ndarray))
        if size > MAX_RESULT:
            what = f"'{call.kind}' stacks {size} numbers in {trips} trips (at most {MAX_RESULT})"
            raise TooLarge(what, node=call.name, hint=SHORTER)
        made = self.numbers // done * max(self.around, done)
        if made > MAX_NUMBERS:
            what = f"'{call.kind}' makes {made} numbers in {self.around} trips (at most {MAX_NUMBERS})"
            raise TooLarge(what, node=call.name, why=STEPWISE, hint=SHORTER)


def body_around(around: int, trips: int) -> int:
    """What stands around the body of a loop of so many trips, in others, that is not only run but looked into."""
    return around * max(trips, PROBES)


def ends_in_time(call: Call, trips: int | None, going: bool, alone: bool) -> None:
    """Refuse a loop of too many trips, `alone` one that its count alone ends. Raises TooLarge, or UserError."""
    if trips is not None and MAX_TRIPS < trips < COUNTED and going:
        raise UserError(f"a loop of {trips} trips (at most {MAX_TRIPS})", node=call.name)
    if alone and (trips is None or trips > MAX_TRIPS):
        raise TooLarge(f"the loop does not end within {MAX_TRIPS} trips", node=call.name)
