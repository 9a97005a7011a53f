"""The memories cut where any region begins or ends: which of such cells instructions read and write.

A region is a span of cells, so that what an instruction depends on is the latest in a few spans, however many regions
of others they belong to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.program.regions import Region, Touched

Ints = NDArray[np.int64]


class Cells(NamedTuple):
    """By instruction spans of cells, one behind the other: the first instruction's end where the next one's begin."""

    at: Ints
    low: Ints
    high: Ints

    @staticmethod
    def of(regions: Sequence[Iterable[Region]], spans: dict[Region, tuple[int, int]]) -> Cells:
        """The spans of some regions of each instruction."""
        each = [dict.fromkeys(spans[region] for region in some) for some in regions]
        every = np.array([span for some in each for span in some], np.int64).reshape(-1, 2)
        at = np.cumsum([0, *map(len, each)]).astype(np.int64)
        return Cells(at, np.ascontiguousarray(every[:, 0]), np.ascontiguousarray(every[:, 1]))


class Spans:
    """By instruction: the cells that it reads and writes."""

    def __init__(self, touched: Sequence[Touched]) -> None:
        regions = list(dict.fromkeys(region for t in touched for region in (*t.reads, *t.writes)))
        of, self.cells = _cells(regions)
        self.reads = Cells.of([t.reads for t in touched], of)
        self.writes = Cells.of([t.writes for t in touched], of)


def _cells(regions: Sequence[Region]) -> tuple[dict[Region, tuple[int, int]], int]:
    """The span of every region, and how many cells there are in all spaces."""
    found: dict[Region, tuple[int, int]] = {}
    count = 0
    for space in dict.fromkeys(region.space for region in regions):
        inside = [region for region in regions if region.space == space]
        bounds = np.array([(r.low, max(r.high, r.low + 1)) for r in inside], np.int64)
        cuts = np.unique(bounds)
        spans = (count + cuts.searchsorted(bounds)).tolist()
        found |= {region: (low, high) for region, (low, high) in zip(inside, spans, strict=True)}
        count += len(cuts)
    return found, count


class Visits(NamedTuple):
    """Instructions one after the other, by their numbers, each with its engine's number and when that runs it."""

    instruction: Ints
    engine: Ints
    at: Ints
