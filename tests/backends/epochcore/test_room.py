"""The lowest gap that is wide enough, against a search through everything that is taken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backends.epochcore.lower.room import Room


def lowest(busy: dict[int, int], size: int) -> int:
    place = 0
    for low, width in sorted(busy.items()):
        if place + size <= low:
            break
        place = max(place, low + width)
    return place


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5)), max_size=60))
def test_the_lowest_gap_is_taken(moves: list[tuple[int, int]]) -> None:
    room, busy = Room(), dict[int, int]()
    for size, which in moves:
        if which and len(busy) >= which:  # give something back first
            place = sorted(busy)[-which]
            room.free(place, busy.pop(place))
        expected = lowest(busy, size)
        assert room.take(size) == expected
        busy[expected] = size
    for place, size in busy.items():
        room.free(place, size)
    assert (len(room.starts), room.starts[0]) == (1, 0)
