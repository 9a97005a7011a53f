"""Spans of words against a set of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backends.epochcore.simulate.extents import Extents

SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6)), max_size=12)


@given(SPANS, st.integers(0, 36), st.integers(0, 8))
def test_extents_are_a_set_of_words(spans: list[tuple[int, int]], start: int, words: int) -> None:
    found, there = Extents(), set[int]()
    for low, count in spans:
        found.add(low, low + count)
        there |= set(range(low, low + count))
        assert all(stop < start for stop, start in zip(found.stops, found.starts[1:], strict=False))
        assert sum(found.stops) - sum(found.starts) == len(there)
    assert found.covers(start, start + words) == (set(range(start, start + words)) <= there)
