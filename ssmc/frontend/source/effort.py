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
MAX_PROBED = 1 << 19  # runs of a node while it is found out what mixes time in a reading of a file (ours)
MORE_PROBED = 1 << 5  # and more for each node of the file (ours)
LOOKS = 4  # at a node, on the way to a region, that take as long as a run of it
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


@dataclass(eq=False)
class Probing:
    """What it takes to find out what the regions of a reading are, whose file has so many nodes.

    Every part of a region may be tried by itself, and each trial runs all its nodes some times for each of its entries:
    a graph that is nothing known would be tried for minutes. What is `over` is looked for no further.
    """

    nodes: int = 0
    made: int = 0
    inside: bool = False  # of a trial, which may fail

    @property
    def allowed(self) -> int:
        """Runs of a node."""
        return MAX_PROBED + MORE_PROBED * self.nodes

    @property
    def over(self) -> bool:
        return self.made > self.allowed

    @property
    def exhausted(self) -> bool:
        """Is even what was left, for a value as a whole, used up in a trial?"""
        return self.inside and self.made > 2 * self.allowed

    def run(self, nodes: int) -> None:
        """Note a run of so many nodes."""
        self.made += nodes

    def look(self, nodes: int) -> None:
        """Note a walk through so many nodes."""
        self.made += nodes // LOOKS


def body_around(around: int, trips: int) -> int:
    """What stands around the body of a loop of so many trips, in others, that is not only run but looked into."""
    return around * max(trips, PROBES)


def ends_in_time(call: Call, trips: int | None, going: bool, alone: bool) -> None:
    """Refuse a loop of too many trips, `alone` one that its count alone ends. Raises TooLarge, or UserError."""
    if trips is not None and MAX_TRIPS < trips < COUNTED and going:
        raise UserError(f"a loop of {trips} trips (at most {MAX_TRIPS})", node=call.name)
    if alone and (trips is None or trips > MAX_TRIPS):
        raise TooLarge(f"the loop does not end within {MAX_TRIPS} trips", node=call.name)
