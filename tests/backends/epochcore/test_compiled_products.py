"""Products with weights: numpy's to rounding, each row by itself to the bit, and nothing written beside the result."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore.simulate.compiled_products import ROWS, Matrix, _loops


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(0, 2 * ROWS + 3),
    inputs=st.integers(1, 20),
    cols=st.integers(1, 70),
    cut=st.integers(0, 2 * ROWS + 3),
    room=st.integers(0, 3),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_rows_are_those_of_numpy(
    dtype: Any, seed: int, rows: int, inputs: int, cols: int, cut: int, room: int, flags: tuple[bool, bool]
) -> None:
    rng, (biased, accumulate) = np.random.default_rng(seed), flags
    x, y = (rng.standard_normal((rows, n + room)).astype(dtype) for n in (inputs, cols))
    w, bias = rng.standard_normal((inputs, cols)), rng.standard_normal(cols) if biased else None
    matrix, before = Matrix.of(w, bias, dtype), y.copy()
    matrix.apply(x[:, :inputs], y[:, :cols], accumulate)
    expected = x[:, :inputs].astype(np.float64) @ w + (0.0 if bias is None else bias)
    expected += before[:, :cols] if accumulate else 0.0
    size = np.abs(x[:, :inputs]).astype(np.float64) @ np.abs(w) + np.abs(expected) + 4.0
    assert (np.abs(y[:, :cols] - expected) <= 4 * np.finfo(dtype).eps * size).all()
    np.testing.assert_array_equal(y[:, cols:], before[:, cols:])
    again, cut = before.copy(), min(cut, rows)
    for part in (slice(0, cut), slice(cut, rows)):
        matrix.apply(x[part, :inputs], again[part, :cols], accumulate)
    np.testing.assert_array_equal(again, y)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros((4, 2)), np.zeros((4, 5))),
        (np.zeros((4, 3)), np.zeros((4, 4))),
        (np.zeros((3, 3)), np.zeros((4, 5))),
        (np.zeros((4, 3), np.float32), np.zeros((4, 5))),
        (np.zeros((4, 3)), np.zeros((4, 5), np.float32)),
        (np.zeros((3, 4)).T, np.zeros((4, 5))),
        (np.zeros((4, 3)), np.zeros((4, 10))[:, ::2]),
    ],
)
def test_arrays_that_do_not_go_with_the_weights_are_refused(x: np.ndarray, y: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"product|machine code"):
        Matrix.of(np.ones((3, 5)), None, np.float64).apply(x, y, accumulate=False)


def test_results_may_lie_where_what_is_multiplied_lies() -> None:
    rng = np.random.default_rng(0)
    words, w = rng.standard_normal((20, 40)), rng.standard_normal((30, 35))
    expected = words[:, :30] @ w
    Matrix.of(w, None, np.float64).apply(words[:, :30], words[:, 5:], accumulate=False)
    np.testing.assert_allclose(words[:, 5:], expected, atol=1e-12)


def test_threads_may_all_be_the_first() -> None:
    """Each that finds no machine code makes some."""
    rng = np.random.default_rng(0)
    x, w, results = rng.standard_normal((64, 30)), rng.standard_normal((30, 50)), np.zeros((8, 64, 50))
    matrix = Matrix.of(w, None, np.float64)
    _loops.cache_clear()
    with ThreadPoolExecutor(len(results)) as pool:
        list(pool.map(lambda y: matrix.apply(x, y, accumulate=False), results))
    np.testing.assert_allclose(results[0], x @ w, atol=1e-12)
    assert (results == results[0]).all()
