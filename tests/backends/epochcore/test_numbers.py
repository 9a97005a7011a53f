"""Numbers that are computed once for all ways in which a model is lowered."""

from __future__ import annotations

from functools import partial

import numpy as np

from backends.epochcore.lower.numbers import Numbers


def test_they_are_computed_once_for_an_owner_and_a_key() -> None:
    numbers, made = Numbers(), list[int]()

    def make() -> np.ndarray:
        made.append(1)
        return np.arange(3.0)

    first, second = object(), object()
    kept = numbers.of(first, "a", make)
    assert numbers.of(first, "a", make) is kept
    assert len(made) == 1
    assert numbers.of(first, "b", make) is not kept
    assert numbers.of(second, "a", make) is not kept


def test_an_owner_stays_its_own_when_nobody_else_keeps_it() -> None:
    """The next object would else have the identity of the one before."""
    numbers = Numbers()
    assert [numbers.of([], "a", partial(int, n)) for n in range(50)] == list(range(50))


def test_the_hash_of_kept_arrays_is_that_of_their_numbers() -> None:
    numbers = Numbers()
    (kept,) = numbers.of(None, "a", lambda: [np.arange(5)])
    assert numbers.hash(kept) == numbers.hash(np.arange(5)) == numbers.hash(kept)
    assert numbers.hash(np.zeros(5)) != numbers.hash(kept)
