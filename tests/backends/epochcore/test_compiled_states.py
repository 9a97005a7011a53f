"""Compiled columns of states against the same steps in numpy: the same bits, however the steps are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore.compiled_states import WIDTH, run_columns
from backends.epochcore.recurrence import Decay, by_row, order, read_out, run_float

Parts = tuple[np.ndarray, ...]


def slow(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, x: Parts, u: np.ndarray, reverse: bool, before: bool, liquid: bool
) -> tuple[Parts, np.ndarray]:
    total, (own, gain, weight) = np.empty(u.shape), (by_row(part) for part in (a, b, c))
    for k in order(len(u), reverse):
        v = tuple(half * u[k] for half in gain)
        decay = tuple(part + half for part, half in zip(own, v, strict=True)) if liquid else own
        following = run_float(Decay(decay), x, v)
        total[k] = read_out(x if before else following, weight)
        x = following
    return x, total


@pytest.mark.parametrize("parts", [1, 2])
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 7),
    batch=st.integers(1, 3),
    cols=st.integers(1, 2 * WIDTH + 3),
    rows=st.integers(1, 5),
    cut=st.integers(0, 7),
    flags=st.fixed_dictionaries({name: st.booleans() for name in ("reverse", "before", "liquid")}),
)
def test_columns_step_as_numpy_does(
    parts: int, seed: int, steps: int, batch: int, cols: int, rows: int, cut: int, flags: dict[str, bool]
) -> None:
    rng = np.random.default_rng(seed)
    a, b, c = (rng.standard_normal((parts, cols, rows)) for _ in range(3))
    x, u = tuple(rng.standard_normal((parts, rows, batch, cols))), rng.standard_normal((steps, batch, cols))
    kept = np.array(x)
    last, y = slow(a, b, c, x, u, **flags)
    cut = min(cut, steps)
    pieces = [u[cut:], u[:cut]] if flags["reverse"] else [u[:cut], u[cut:]]
    found, state = [], x
    for piece in pieces:
        state, value = run_columns(a, b, c, state, piece, **flags)
        found.append(value)
    np.testing.assert_array_equal(np.concatenate(found[::-1] if flags["reverse"] else found), y)
    np.testing.assert_array_equal(np.array(state), np.array(last))
    np.testing.assert_array_equal(np.array(x), kept)
