"""Who touched which words last: a row of the `cells` that the memories are cut into for each engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backends.epochcore.program.cells import Ints, Spans, Visits
from isa.epochcore_fields import ENGINES

NUMBER = {engine: number for number, engine in enumerate(ENGINES)}
Visit = tuple[int, str, int]  # an instruction, its engine, and when that runs it
Needs = list[tuple[str, int]]  # engines, and the latest of their instructions


class Ledger:
    """When each engine wrote, and when it touched, each cell last; 0: never."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._written: Ints = np.zeros((len(ENGINES), spans.cells), np.int64)
        self._touched: Ints = np.zeros((len(ENGINES), spans.cells), np.int64)

    def needs(self, visits: Sequence[Visit], *, at_once: bool = False) -> list[Needs]:
        """By visit the engines with the latest of their instructions that this one depends on: on those visited before,
        or, of visits `at_once`, on none of each other."""
        from backends.epochcore.program.walk import walked  # it loads the compiler

        of = Visits(*(np.array(values, np.int64) for values in _columns(visits)))
        latest = np.zeros((len(visits), len(ENGINES)), np.int64)
        walked(of, at_once, self._spans.reads, self._spans.writes, self._written, self._touched, latest)
        found: list[Needs] = [[] for _ in visits]
        for visit, other in np.argwhere(latest).tolist():
            found[visit].append((ENGINES[other], int(latest[visit, other])))
        return found


def _columns(visits: Sequence[Visit]) -> tuple[list[int], list[int], list[int]]:
    return [v[0] for v in visits], [NUMBER[v[1]] for v in visits], [v[2] for v in visits]
