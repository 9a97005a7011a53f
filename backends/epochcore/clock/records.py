"""What `placing` works on, as `handover` lays it out: whole numbers in arrays and in records, by their names.

Lists of lists are one behind the other (`program.conflicts.Lists`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.program.conflicts import Lists

Ints = NDArray[np.int64]
Records = NDArray[Any]
Number = Any  # whole, of Python or of an array


def _record(*names: str) -> np.dtype[Any]:
    return np.dtype([(name, np.int64) for name in names])


# An engine, the first of `pipes` in a row; the way through the array; cycles, and whether they are the channel's;
# blocks (0: it is of one), their unit and where `before`, `done` and `alone` of them begin among the shares; numbers of
# wave and shift; when the last pass begins, if nothing holds up the first. Of several passes in turn, what a pass waits
# for the end and for the beginning of the one before, and what all but the first two of them take.
JOB = _record(
    *("engine", "pipes", "way", "busy", "on_channel", "blocks", "unit", "blocks_at", "latency", "steps"),
    *("wave", "shift", "late", "turns", "after", "gap", "more"),
)
RUN = _record("finish", "latency", "steps", "blocks")  # the last one of an instruction; blocks whose ends are known

NO_WAY, PRELOAD, STATE_LOAD, STATE_STORE, PASS = range(5)
LOAD, STORE, PRELOADING, COMPUTE, DRAIN, VECTOR = range(6)  # further pipes of the vector unit come last
NO_WAVE = -1

# Times of the array: when parameters and states in the shadow registers are complete, when the last pass has all its
# states, when the states of the last two were out, when the engine was through with the last pass, and when the last
# one began that others are shifted in behind. Of both the latter, the waves.
PARAMETERS, STATES, PASSED, DRAINED_BEFORE, DRAINED, THROUGH, LED, TIMES = range(8)
LAST_WAVE, LED_WAVE, WAVES = range(3)


class Channel(NamedTuple):
    """When it is taken: disjoint intervals in order; for those from `live[0]` to `live[1]` somebody may still ask."""

    live: Ints
    starts: Ints
    ends: Ints


class Machine(NamedTuple):
    """When engines are free, and what the array's registers and the channel wait for."""

    engines: Ints
    array: Ints
    waves: Ints
    channel: Channel


class Ran(NamedTuple):
    """By instruction the last run and the ends of its blocks, by group of touched words when all of it is finished."""

    runs: Records
    done: Ints
    touched: Ints


class Tables(NamedTuple):
    """Jobs, shares of an engine's time by block, and how closely waves (and what is shifted in) follow waves."""

    jobs: Records
    shares: Ints
    behind: Ints
    leads: Ints
    shadow: bool


class Meetings(NamedTuple):
    """Who waits for whom, as `program.conflicts.Conflicts` says."""

    touches: Lists
    members: Lists
    given: Lists
    taken: Lists
    apart: Lists
