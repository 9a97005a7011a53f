from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.statespace import StateSpaceError, simulate, simulate_in_chunks

from .strategies import random_system, seeds


@given(seeds, st.integers(512, 900), st.integers(1, 3), st.booleans(), st.sampled_from([0.9, 0.9999, 1.0, 1.01]))
@settings(max_examples=40, deadline=None)
def test_chunks_give_what_steps_give(seed: int, time: int, batch: int, started: bool, radius: float) -> None:
    rng = np.random.default_rng(seed)
    system = random_system(seed, dense=False, radius=radius, sizes=(3, 4, 1, 1))
    system = replace(system, A=system.A * (rng.random(system.A.shape) > 0.1))  # decays of zero, too
    u, x0 = rng.standard_normal((batch, time, 3)), rng.standard_normal((batch, 3, 4)) if started else None
    y, last = simulate(system, u, x0)
    found, after = simulate_in_chunks(system, u, x0)
    assert found.shape == y.shape and after.shape == last.shape and after.dtype == last.dtype
    np.testing.assert_allclose(found, y, rtol=0, atol=1e-10 * float(np.abs(y).max()))
    np.testing.assert_allclose(after, last, rtol=0, atol=1e-10 * float(np.abs(last).max()))


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_other_systems_are_left_to_steps(seed: int) -> None:
    system = random_system(seed)
    u = np.random.default_rng(seed).standard_normal((2, 530, system.inputs))
    for one, other in zip(simulate_in_chunks(system, u), simulate(system, u), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10 * max(1.0, float(np.abs(other).max())))


def test_numbers_that_are_not_finite_go_only_forward() -> None:
    system = random_system(1, dense=False, sizes=(2, 3, 1, 1))
    u = np.ones((1, 600, 2))
    u[0, 300, 0] = np.inf
    with np.errstate(invalid="ignore"):
        for one, other in zip(simulate_in_chunks(system, u), simulate(system, u), strict=True):
            np.testing.assert_array_equal(one, other)
    growing = replace(system, A=np.full_like(system.A, 1e9))
    with np.errstate(over="ignore", invalid="ignore"):
        found, wanted = simulate_in_chunks(growing, np.ones((1, 600, 2)))[0], simulate(growing, np.ones((1, 600, 2)))[0]
    np.testing.assert_array_equal(found, wanted)
    with pytest.raises(StateSpaceError, match="u: expected real"):
        simulate_in_chunks(system, np.ones((1, 600, 3)))
