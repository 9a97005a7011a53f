"""Who touched which words last: the memories cut where any region begins or ends, and a row of cells for each engine.

A region is a span of such cells, so that what an instruction depends on is the latest in a few spans, however many
regions of others they belong to.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.program.regions import Region, Touched
from isa.epochcore_fields import ENGINES

Ints = NDArray[np.int64]
NUMBER = {engine: number for number, engine in enumerate(ENGINES)}
NONE = (0,) * len(ENGINES)


class Spans:
    """By instruction: the cells that it reads and writes, as (first, stop)."""

    def __init__(self, touched: Sequence[Touched]) -> None:
        regions = list(dict.fromkeys(region for t in touched for region in (*t.reads, *t.writes)))
        of, self.cells = _cells(regions)
        self.reads = [tuple(dict.fromkeys(of[region] for region in t.reads)) for t in touched]
        self.writes = [tuple(dict.fromkeys(of[region] for region in t.writes)) for t in touched]


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
        self._written: Ints = np.zeros((len(ENGINES), spans.cells), np.int64)
        self._touched: Ints = np.zeros((len(ENGINES), spans.cells), np.int64)

    def needs(self, engine: str, index: int) -> list[tuple[str, int]]:
        """Engines with the latest of their instructions that this one depends on."""
        latest: Sequence[int] = NONE
        for span in self._spans.writes[index]:
            latest = _later(latest, self._touched, span)
        if latest is not NONE:
            # an engine reads and writes in order: only reading what is still being written must wait
            latest = [*latest]
            latest[NUMBER[engine]] = 0
        for span in self._spans.reads[index]:
            latest = _later(latest, self._written, span)
        return [pair for pair in zip(ENGINES, latest, strict=True) if pair[1]]

    def note(self, engine: str, index: int, at: int) -> None:
        """The instruction runs, as the engine's `at`-th."""
        own = NUMBER[engine]
        for low, high in self._spans.reads[index]:
            self._touched[own, low:high] = at
        for low, high in self._spans.writes[index]:
            self._touched[own, low:high] = at
            self._written[own, low:high] = at


def _later(latest: Sequence[int], rows: Ints, span: tuple[int, int]) -> Sequence[int]:
    low, high = span
    found: list[int] = (rows[:, low] if high - low == 1 else rows[:, low:high].max(1)).tolist()
    return found if latest is NONE else list(map(max, latest, found))
