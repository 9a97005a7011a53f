"""What a reshape makes of batch and time, against the numbers that it moves."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmc.frontend.graph.flow import TimeMixing, Unsupported
from ssmc.frontend.rules.regrouping import regrouped

Case = tuple[str, tuple[int, ...], tuple[int, ...]]
SIZES = st.sampled_from([1, 2, 3, 4, 6])
LONGER = st.sampled_from([2, 3, 4, 6])


@st.composite
def reshapes(draw: st.DrawFn, letters: str = "btf") -> Case:
    """Axes with batch and time at most once, their sizes, and sizes with as many entries: split, joined, ones added."""
    order = draw(st.permutations([*letters, "f", "f"]))
    axes = "".join(order[: draw(st.integers(1, 5))])
    shape = tuple(draw(SIZES if a == "f" else LONGER) for a in axes)
    target: list[int] = []
    for d in shape:
        target += draw(st.sampled_from([[d], *([k, d // k] for k in (2, 3) if d % k == 0)]))
    for _ in range(draw(st.integers(0, 2))):
        if len(target) > 1:
            at = draw(st.integers(0, len(target) - 2))
            target[at : at + 2] = [target[at] * target[at + 1]]
    if draw(st.booleans()):
        target.insert(draw(st.integers(0, len(target))), 1)
    return axes, shape, tuple(target)


@given(reshapes())
def test_an_axis_that_is_named_holds_the_numbers_of_that_name(case: Case) -> None:
    """Along an axis called batch or time the old index counts up, and nowhere else does it change."""
    axes, shape, target = case
    try:
        found, merged = regrouped(axes, shape, target)
    except TimeMixing:
        return
    assert len(found) == len(target)
    places = dict(zip(found, np.indices(target), strict=True))
    inside = {"m": "t", "n": "b"}  # of batch and time in one axis, the one that changes first
    for letter in set(axes) & {"b", "t"} - set("".join(letters for letters, _ in merged)):
        counts = np.indices(shape)[axes.index(letter)].reshape(target)
        if letter == "t" and "w" in found:  # windows
            expected = places["t"] * target[found.index("w")] + places["w"]
        elif letter in found:
            expected = places[letter]
        else:
            (pair,) = set(found) & set(inside)
            size = shape[axes.index(inside[pair])]
            expected = places[pair] % size if letter == inside[pair] else places[pair] // size
        np.testing.assert_array_equal(counts, expected)


@given(reshapes("f"))
def test_features_become_any_features(case: Case) -> None:
    axes, shape, target = case
    assert regrouped(axes, shape, target) == ("f" * len(target), [])


@given(st.lists(SIZES, max_size=4), st.lists(SIZES, max_size=4))
def test_shapes_of_other_sizes_are_refused(shape: list[int], target: list[int]) -> None:
    if prod(shape) != prod(target):
        with pytest.raises(Unsupported):
            regrouped("f" * len(shape), shape, target)


def test_a_merged_batch_of_one_is_refused_in_words() -> None:
    with pytest.raises(Unsupported):
        regrouped("nb", (3, 1), (3,))
