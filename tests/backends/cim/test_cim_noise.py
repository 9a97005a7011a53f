"""Counter-based noise: its distribution, and that it depends on place, sample and step alone.

Statistical bounds are five standard errors: a true claim fails once in 1.7 million trials, and seeds are fixed.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from backends.cim.simulate.noise import device_normals, key_of, normals
from tests.examples import examples

COUNT = 200_000


def test_moments_and_distribution() -> None:
    x = normals(key_of(7, "here"), 4, 0, COUNT // 200, 50).ravel()
    assert abs(x.mean()) < 5 / np.sqrt(COUNT)
    assert abs(x.var() - 1) < 5 * np.sqrt(2 / COUNT)
    assert abs(stats.skew(x)) < 5 * np.sqrt(6 / COUNT)
    assert stats.kstest(x, "norm").pvalue > 1e-4


def test_neighbours_are_independent() -> None:
    x, *samples = normals(key_of(7, "here"), 20, 0, 1000, 50)
    others = {
        "step": normals(key_of(7, "here"), 1, 1, 1000, 50)[0],
        "tile of steps": normals(key_of(7, "here"), 1, 16, 1000, 50)[0],
        "sample": samples[0],
        "tile of samples": samples[15],
        "seed": normals(key_of(8, "here"), 1, 0, 1000, 50)[0],
        "place": normals(key_of(7, "there"), 1, 0, 1000, 50)[0],
    }
    assert np.array_equal(device_normals(5, 100)[:40], device_normals(5, 40))
    for what, other in others.items():
        assert abs(np.corrcoef(x.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(x.size), what
    assert abs(np.corrcoef(x[:, :-1].ravel(), x[:, 1:].ravel())[0, 1]) < 5 / np.sqrt(x.size)


@settings(max_examples=examples(50), deadline=None)
@given(
    words=st.integers(1, 70),
    steps=st.integers(1, 30),
    cut=st.integers(0, 30),
    first=st.integers(0, 2**40),
    batch=st.integers(1, 20),
)
def test_blocks_and_batches_do_not_matter(words: int, steps: int, cut: int, first: int, batch: int) -> None:
    key = key_of(3, "x")
    whole = normals(key, batch, first, steps, words)
    cut = min(cut, steps)
    parts = [normals(key, batch, first, cut, words), normals(key, batch, first + cut, steps - cut, words)]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
    assert np.array_equal(normals(key, 1, first, steps, words), whole[:1])
