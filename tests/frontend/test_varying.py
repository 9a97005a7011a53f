"""Decays that are computed from the data, in the forms in which exporters write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.frontend import Model
from tests.frontend import disguise_varying as disguise
from tests.frontend.test_disguises import lifted

few = settings(max_examples=6, deadline=None)
sizes = st.builds(
    disguise.Heads,
    seed=st.integers(0, 1 << 16),
    heads=st.integers(1, 3),
    width=st.integers(1, 3),
    states=st.integers(1, 4),
    length=st.integers(6, 20),
    shared=st.booleans(),
    constant=st.booleans(),
)


def check(model: Model, heads: disguise.Heads, backward: bool) -> None:
    """One recurrence with a state for every pair of a key's and a value's numbers, of every head."""
    (system,) = model.systems
    assert system.kind == ("linear time-invariant" if heads.constant else "selective")
    assert system.reverse == backward
    assert system.groups * system.states == heads.heads * heads.width * heads.states


@few
@given(sizes, st.integers(2, 24), st.booleans(), st.booleans())
def test_chunks(heads: disguise.Heads, chunk: int, stable: bool, backward: bool) -> None:
    model = disguise.as_chunks(heads, min(chunk, heads.length), stable, backward)
    check(lifted(model, heads.length), heads, backward)


@few
@given(sizes, st.integers(2, 24), st.booleans())
def test_retention(heads: disguise.Heads, chunk: int, backward: bool) -> None:
    heads = disguise.Heads(heads.seed, heads.heads, heads.width, heads.states, heads.length, False, True)
    check(lifted(disguise.as_retention(heads, chunk, backward), heads.length), heads, backward)


@pytest.mark.parametrize("shifted", [False, True])
@settings(max_examples=3, deadline=None)
@given(st.integers(0, 1 << 16), st.integers(1, 4), st.integers(5, 20))
def test_sums_of_logarithms(shifted: bool, seed: int, width: int, length: int) -> None:
    (system,) = lifted(disguise.as_log_sums(seed, width, length, shifted), length).systems
    assert (system.kind, system.groups * system.states) == ("selective", width)
