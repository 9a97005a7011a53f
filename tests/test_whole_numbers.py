"""Functions of whole numbers do as machine code what they do as they stand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.whole_numbers import Words, compiled

BOUND = 7


def some(x: Words, low: int, n: int) -> int:
    total, first = 0, x[low] if low < n else -1
    for i in range(low, n):
        if (x[i] < 0 and i != 3) or x[i] in (BOUND, 5):
            continue
        total += x[i] // (first if first != 0 else -3)
        if not total <= 100:
            break
    x[0] = max(total, n, -5)
    return min(total, 20 * x[n - 1])


def several(x: Words, n: int) -> int:
    """Its loop changes what it counts with, which does not matter."""
    found = some(x, 0, n)
    for i in range(n):
        low = i
        i = i * 2 - 5
        while found > i:
            found -= abs_of(x[low]) + 1
        if found == 3:
            return i
        if low == 4:
            x[low] = found
    some(x, n // 2, n)
    return found


def abs_of(value: int) -> int:
    return -value if value < 0 else value


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-50, 150), min_size=1, max_size=20))
def test_machine_code_is_what_is_written(values: list[int]) -> None:
    words = np.array(values, np.int64)
    assert compiled_several(words, len(values)) == several(values, len(values))
    assert words.tolist() == values


compiled_several = compiled(some, abs_of, several)


def unknown(x: Words) -> int:
    return x[0] ** 2


def enters_no_loop(n: int) -> int:
    n += 1
    for i in range(0):
        n = i
    return n


def test_what_is_not_in_the_language_is_told() -> None:
    with pytest.raises(ValueError, match=r"unknown, line \d+: machine code has no 'x\[0\] \*\* 2'"):
        compiled(unknown)


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros(6, np.int64)[::2], [1, 2, 3]])
def test_arrays_that_would_be_misread_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="64-bit whole numbers"):
        compiled_several(wrong, 3)  # type: ignore[arg-type]


def test_a_loop_that_is_not_entered_leaves_its_variable() -> None:
    assert compiled(enters_no_loop)(4) == enters_no_loop(4) == 5
