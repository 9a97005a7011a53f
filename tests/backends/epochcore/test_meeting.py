"""Which groups of words may meet, against a look at all pairs."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backends.epochcore.program import meeting as module
from backends.epochcore.program.meeting import Extents, meeting

PITCHES = (0, 5, 8)


@st.composite
def extents(draw: Any) -> Extents:
    rows = draw(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 5), st.integers(0, 2), st.integers(1, 4))))
    start, words, kind, steps = np.array(rows, np.int64).reshape(-1, 4).T
    pitch = np.array(PITCHES)[kind]
    return Extents(start, start + (steps - 1) * pitch + words, words, pitch)


def words_of_a_row(given: Extents, n: int, pitch: int) -> set[int]:
    return {(int(given.start[n]) + k) % pitch for k in range(int(given.words[n]))}


@given(extents(), st.integers(1, 3), st.integers(1, 50))
def test_all_pairs_that_meet_are_found_once(given: Extents, crowded: int, block: int) -> None:
    with patch.object(module, "CROWDED", crowded), patch.object(module, "BLOCK", block):
        found = [(int(a), int(b)) for some in meeting(given) for a, b in zip(*some, strict=True)]
    assert all(given.start[a] <= given.start[b] < given.stop[a] for a, b in found)
    pairs = {frozenset(pair) for pair in found}
    assert len(pairs) == len(found) and all(len(pair) == 2 for pair in pairs)
    for a in range(len(given.start)):
        for b in range(a):
            overlap = max(given.start[a], given.start[b]) < min(given.stop[a], given.stop[b])
            pitch = int(given.pitch[a])
            in_rows = pitch > 0 and pitch == given.pitch[b]
            if overlap and not (in_rows and not words_of_a_row(given, a, pitch) & words_of_a_row(given, b, pitch)):
                assert frozenset((a, b)) in pairs
            if crowded == 1 and in_rows and not words_of_a_row(given, a, pitch) & words_of_a_row(given, b, pitch):
                assert frozenset((a, b)) not in pairs


def test_columns_beside_each_other_are_not_paired() -> None:
    columns, steps = 4096, 16
    start = np.arange(columns) * 8
    extents = Extents(start, start + (steps - 1) * 8 * columns + 8, np.full(columns, 8), np.full(columns, 8 * columns))
    pairs = list(meeting(extents))
    assert not sum(len(a) for a, _ in pairs)
