"""Constants in the parameter memory, against one that looks at every word."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backends.epochcore.clock.lying import Lying

FETCHED = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6), st.integers(0, 3)), max_size=30)


@given(FETCHED, st.integers(0, 30))
def test_what_still_lies_whole_does_not_move(fetched: list[tuple[int, int, int]], cut: int) -> None:
    """In two pieces of code, one after the other."""
    words: dict[int, tuple[int, int, int]] = {}
    moved = []
    for each in fetched:
        first, size, _ = each
        own = range(first, first + size)
        moved.append(any(words.get(word) != each for word in own))
        words.update(dict.fromkeys(own, each))
    lying, found = Lying(), []
    for part in (fetched[:cut], fetched[cut:]):
        first, size, name = np.array(part, np.int64).reshape(-1, 3).T
        found += lying.move(np.array([first, first + size, name])).tolist()
    assert found == moved
    whole = {each for each in words.values() if all(words.get(each[0] + n) == each for n in range(each[1]))}
    assert set(map(tuple, lying.known.T.tolist())) == {(a, a + n, c) for a, n, c in whole}
