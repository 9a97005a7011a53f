"""Who touched which words last: a row of the `cells` that the memories are cut into for each engine."""

from __future__ import annotations

import numpy as np

from backends.epochcore.program.cells import Ints, Spans, Visits
from isa.epochcore_fields import ENGINES


class Ledger:
    """When each engine wrote, and when it touched, each cell last; 0: never."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._written: Ints = np.zeros((len(ENGINES), spans.cells), np.int64)
        self._touched: Ints = np.zeros((len(ENGINES), spans.cells), np.int64)

    def needs(self, visits: Visits, *, at_once: bool = False) -> Ints:
        """By visit and engine the latest of its instructions that this one depends on, or 0: on those visited before,
        or, of visits `at_once`, on none of each other."""
        from backends.epochcore.program.walk import walked  # it loads the compiler

        latest = np.zeros((len(visits.at), len(ENGINES)), np.int64)
        walked(visits, at_once, self._spans.reads, self._spans.writes, self._written, self._touched, latest)
        return latest
