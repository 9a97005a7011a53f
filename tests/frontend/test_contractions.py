"""Einstein sums against numpy's own, without its shortcuts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.frontend.source import contractions

SIZES = {"a": 2, "b": 3, "c": 4, "d": 1, "e": 5}


@st.composite
def equations(draw: st.DrawFn) -> str:
    """Two terms with letters in any order, each of which is anywhere, twice, or left out of the result."""
    left, right = (draw(st.lists(st.sampled_from("abcde"), min_size=1, max_size=4)) for _ in range(2))
    result = draw(st.permutations(sorted({*left, *right})))
    return f"{''.join(left)},{''.join(right)}->{''.join(result[draw(st.integers(0, 2)) :])}"


@settings(max_examples=200)
@given(equations(), st.booleans())
def test_sums_are_numpys(equation: str, turned: bool) -> None:
    rng = np.random.default_rng(0)
    terms = equation.split("->")[0].split(",")
    arrays = [rng.standard_normal([SIZES[c] for c in term]) for term in terms]
    if turned:  # not one number after the other
        arrays = [np.asfortranarray(a) for a in arrays]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contractions, "LARGE", 1)
        found = contractions.einsum(equation, *arrays)
    np.testing.assert_allclose(found, np.einsum(equation, *arrays, optimize=False), atol=1e-12)


def test_states_between_chunks_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The states of all chunks of Mamba-2: one matrix product a head."""
    rng = np.random.default_rng(1)
    between, states = rng.standard_normal((2, 4, 3, 3)), rng.standard_normal((2, 3, 4, 16, 32))
    expected = np.einsum("bhzc,bchpn->bzhpn", between, states)
    monkeypatch.setattr(np, "einsum", None)
    np.testing.assert_allclose(contractions.einsum("bhzc,bchpn->bzhpn", between, states), expected, atol=1e-12)


def test_axes_of_one_number_stretch() -> None:
    a, b = np.ones((2, 1)), np.ones((3, 2))
    assert contractions.einsum("ij,jk->ik", a, b).tolist() == [[3.0, 3.0]] * 2
