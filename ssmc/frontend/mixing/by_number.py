"""Exact reasons for regions that are linear and treat each step by its number: which results need later inputs.

A Kalman filter that runs its covariance along is causal, and has other weights at every step. Smoothing that starts
from several first inputs (Holt's, whose slope is their difference) gives its first results with numbers that are still
to come. Both are told by what moves when all inputs from a step on are others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ssmc.frontend.graph.flow import Unsupported
from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.reasons import Kind, Reason

FARTHEST = 32  # first steps from which inputs are changed (ours)
MOVED = 1e-9  # relative

ALIKE = "does not treat all time steps alike, though it is linear"
CAUSAL = (
    f"{ALIKE}: its weights follow the number of the step and not the data, as the gain of a Kalman filter that runs "
    "its covariance along; export it with the gain that this settles at"
)
FIRST = (
    f"{ALIKE}: what it gives for step {{at}} needs the input of step {{needed}}, as where the level or the slope of a "
    "smoothing (Holt, Winters) starts from several first inputs; a machine that goes through the sequence step by step "
    "gives that result before. Export the results from step {start} on (y[:, {start}:])"
)
AHEAD = (
    f"{ALIKE}: it weighs steps by their numbers, later ones too (what it gives for step {{at}} needs that of step "
    "{needed}), as a matrix over the time axis does. Compile the parts before and behind it by themselves"
)


class ByNumber(Unsupported):
    """A linear region treats its steps by their numbers: `told` runs it some more to say how, which few ask for."""

    def __init__(self, told: Callable[[], Reason]) -> None:
        self.told = told
        super().__init__(Reason(ALIKE, Kind.UNLIKE | Kind.LINEAR))


def by_number(region: Region, axes: str) -> Reason:
    """Why a linear region is no system, whose result has these axes; steps are numbered from 0."""
    ahead = _foresight(region, axes)
    if not ahead:
        return Reason(CAUSAL, Kind.UNLIKE)
    at, needed = ahead[0]
    early = max(needed for _, needed in ahead) < min(FARTHEST, region.shape[axes.index("t")] // 2)
    if early:
        at, needed = max(ahead, key=lambda pair: pair[1])
    return Reason((FIRST if early else AHEAD).format(at=at, needed=needed, start=ahead[-1][0] + 1), Kind.UNLIKE)


def _foresight(region: Region, axes: str) -> list[tuple[int, int]]:
    """(step, the last input step that it needs) of results that need inputs which are still to come."""
    rng = np.random.default_rng(41)
    arrays = [rng.standard_normal(f.shape) for f in region.flows]
    others = [rng.standard_normal(f.shape) for f in region.flows]
    steps = region.shape[axes.index("t")]
    base, needed = region.run(arrays), dict[int, int]()
    size = MOVED * max(float(np.abs(base).max(initial=0.0)), 1e-300)
    for start in dict.fromkeys([*range(1, min(steps, FARTHEST + 1)), steps - 1]):
        late = [
            np.where(np.arange(steps).reshape([-1 if a == "t" else 1 for a in f.axes]) >= start, other, x)
            for x, other, f in zip(arrays, others, region.flows, strict=True)
        ]
        moved = np.abs(region.run(late) - base) > size
        rows = np.moveaxis(moved, axes.index("t"), 0).reshape(steps, -1).any(axis=1)
        needed.update({int(row): start for row in np.flatnonzero(rows[:start])})
    return sorted(needed.items())
