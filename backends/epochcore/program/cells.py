"""The memories cut where any region begins or ends: which of such cells instructions read and write.

A region is a span of cells, so that what an instruction depends on is the latest in a few spans, however many regions
of others they belong to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.program.columns import Columns
from backends.epochcore.program.touches import Loops, touches
from isa import Section

Ints = NDArray[np.int64]


class Cells(NamedTuple):
    """By instruction spans of cells, one behind the other: the first instruction's end where the next one's begin."""

    at: Ints
    low: Ints
    high: Ints


class Spans(NamedTuple):
    """By instruction the cells that it reads and writes, and how many there are."""

    reads: Cells
    writes: Cells
    cells: int

    @staticmethod
    def of(section: Section, sizes: Mapping[str, int], steps: int | None = None) -> Spans:
        """Those of a section's code where sequences have so many `steps`, or as many as there are. `sizes` are words of
        the constants."""
        columns = Columns.of(section.code)
        found = touches(columns, Loops.of(section, steps), lambda names: np.array([sizes[name] for name in names]))
        bounds = np.stack([found.start, np.maximum(found.stop, found.start + 1)])
        cuts = np.unique(bounds)
        low, high = cuts.searchsorted(bounds)

        def cells(written: int) -> Cells:
            some = np.flatnonzero(found.written == written)
            at = np.searchsorted(found.instruction[some], np.arange(len(columns.code) + 1))
            return Cells(at.astype(np.int64), low[some], high[some])

        return Spans(cells(0), cells(1), len(cuts))


class Visits(NamedTuple):
    """Instructions one after the other, by their numbers, each with its engine's number and when that runs it."""

    instruction: Ints
    engine: Ints
    at: Ints
