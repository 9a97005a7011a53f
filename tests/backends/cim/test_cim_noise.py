"""Counter-based noise: its distribution, and that it depends on place, sample and step alone.

Statistical bounds are five standard errors: a true claim fails once in 1.7 million trials, and seeds are fixed.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from backends.cim.noise import batch_normals, key_of, normals

COUNT = 200_000


def test_moments_and_distribution() -> None:
    x = normals(key_of(7, "here"), 0, 0, COUNT // 50, 50).ravel()
    assert abs(x.mean()) < 5 / np.sqrt(COUNT)
    assert abs(x.var() - 1) < 5 * np.sqrt(2 / COUNT)
    assert abs(stats.skew(x)) < 5 * np.sqrt(6 / COUNT)
    assert stats.kstest(x, "norm").pvalue > 1e-4


def test_neighbours_are_independent() -> None:
    x = normals(key_of(7, "here"), 0, 0, 1000, 50)
    others = {
        "step": normals(key_of(7, "here"), 0, 1, 1000, 50),
        "sample": normals(key_of(7, "here"), 1, 0, 1000, 50),
        "seed": normals(key_of(8, "here"), 0, 0, 1000, 50),
        "place": normals(key_of(7, "there"), 0, 0, 1000, 50),
    }
    for what, other in others.items():
        assert abs(np.corrcoef(x.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(x.size), what
    assert abs(np.corrcoef(x[:, :-1].ravel(), x[:, 1:].ravel())[0, 1]) < 5 / np.sqrt(x.size)


@settings(max_examples=50, deadline=None)
@given(
    words=st.integers(1, 70),
    steps=st.integers(1, 30),
    cut=st.integers(0, 30),
    first=st.integers(0, 2**40),
    sample=st.integers(0, 2**20),
)
def test_blocks_and_batches_do_not_matter(words: int, steps: int, cut: int, first: int, sample: int) -> None:
    key = key_of(3, "x")
    whole = normals(key, sample, first, steps, words)
    cut = min(cut, steps)
    parts = [normals(key, sample, first, cut, words), normals(key, sample, first + cut, steps - cut, words)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(batch_normals(key, 3, first, steps, words)[1], normals(key, 1, first, steps, words))
