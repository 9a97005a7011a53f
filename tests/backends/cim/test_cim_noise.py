"""Counter-based noise: its distribution, and that it depends on place, sample and step alone.

Statistical bounds are five standard errors: a true claim fails once in 1.7 million trials, and seeds are fixed.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from backends.cim.simulate.kernels import spread_exponents
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


@settings(max_examples=examples(50), deadline=None)
@given(
    words=st.integers(1, 40),
    steps=st.integers(0, 5),
    first=st.integers(0, 2**50),
    batch=st.integers(1, 20),
    group=st.integers(0, 2**20),
)
def test_the_generator_is_numpys(words: int, steps: int, first: int, batch: int, group: int) -> None:
    """Entries of the device's table by the words of numpy's Philox, its counter set by its own rules."""
    key, draws = key_of(5, "there"), -(-8 * words // 16)
    drawn = normals(key, batch, first, steps, words, 8 * group)
    for b in range(0, batch, 8):
        generator = np.random.Philox(key=key, counter=[first * draws, group + b // 8, 0, 0])
        places = generator.random_raw(4 * steps * draws).view(np.uint16).reshape(steps, 16 * draws)
        places = places[:, : 8 * words].reshape(steps, 8, words).swapaxes(0, 1)[: batch - b]
        expected = special.ndtri((places + 0.5) / 2**16)
        np.testing.assert_allclose(drawn[b : b + 8], expected, rtol=2e-4)  # but for the table's own scale


@pytest.mark.parametrize("shape", [(3, 4), (1, 4), (3, 1), (1, 1)])
def test_spread_of_decays(shape: tuple[int, int]) -> None:
    """As numpy says it, to the bit; what would grow stays."""
    rng, out = np.random.default_rng(0), np.empty((3, 4, 5))
    rates, dt = -rng.exponential(size=5), rng.exponential(size=(*shape, 1))
    drawn, sigma = rng.normal(size=out.shape).astype(np.float32), np.float32(0.9)
    spread_exponents(rates, dt, sigma, drawn, out)
    expected = np.minimum(rates * dt * (np.float32(1) + sigma * drawn), 0.0)
    assert (expected == 0.0).any()
    np.testing.assert_array_equal(out, expected)
