"""Who touched which words last: the memories cut where any region begins or ends, and a row of engines for each cell.

A region is a span of such cells, so that what an instruction depends on is the latest in a few spans, however many
regions of others they belong to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.program.regions import Region, Touched
from isa.epochcore_fields import ENGINES

Ints = NDArray[np.int64]
NUMBER = {engine: number for number, engine in enumerate(ENGINES)}
Visit = tuple[int, str, int]  # an instruction, its engine, and when that runs it
Needs = list[tuple[str, int]]  # engines, and the latest of their instructions


class Cells(NamedTuple):
    """By instruction spans of cells, one behind the other: the first instruction's end where the next one's begin."""

    at: Ints
    low: Ints
    high: Ints

    @staticmethod
    def of(regions: Sequence[Iterable[Region]], spans: dict[Region, tuple[int, int]]) -> Cells:
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


class Ledger:
    """When each engine wrote, and when it touched, each cell last; 0: never."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._written: Ints = np.zeros((spans.cells, len(ENGINES)), np.int64)
        self._touched: Ints = np.zeros((spans.cells, len(ENGINES)), np.int64)

    def needs(self, visits: Sequence[Visit], *, at_once: bool = False) -> list[Needs]:
        """By visit the engines with the latest of their instructions that this one depends on: on those visited before,
        or, of visits `at_once`, on none of each other."""
        from backends.epochcore.program.walk import walked  # it loads the compiler

        index, engine, at = (np.array(values, np.int64) for values in _columns(visits))
        latest = np.zeros((len(visits), len(ENGINES)), np.int64)
        walked(
            index, engine, at, at_once, *self._spans.reads, *self._spans.writes, self._written, self._touched, latest
        )
        found: list[Needs] = [[] for _ in visits]
        for visit, other in np.argwhere(latest).tolist():
            found[visit].append((ENGINES[other], int(latest[visit, other])))
        return found


def _columns(visits: Sequence[Visit]) -> tuple[list[int], list[int], list[int]]:
    return [v[0] for v in visits], [NUMBER[v[1]] for v in visits], [v[2] for v in visits]
