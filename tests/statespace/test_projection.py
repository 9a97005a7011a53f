"""Kernels on shared decays: what is wanted is what the data ask for, poles are found, weights are the best."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from ssmc.statespace import (
    Coordinates,
    StateSpace,
    StateSpaceError,
    Toll,
    cluster_decays,
    kernel,
    project,
    projectable,
    refit_output,
    simulate,
    wanted_kernel,
    wanted_response,
)

LENGTH = 48


def channels(seed: int, groups: int = 3, states: int = 4, *, tau: float | None = None) -> StateSpace:
    """Damped oscillators, single-input and single-output; of one time constant where it is given."""
    rng = np.random.default_rng(seed)
    rate = rng.uniform(0.02, 0.2, (groups, states)) if tau is None else np.full((groups, states), 1 / tau)
    angle = np.cumsum(rng.uniform(0.2, 0.5, (groups, states)), axis=1)
    c = rng.standard_normal((groups, 1, states)) + 1j * rng.standard_normal((groups, 1, states))
    d = rng.standard_normal((groups, 1, 1))
    return StateSpace(np.exp(-rate + 1j * angle), np.ones((groups, states, 1)), c, d, halved=True)


def free(at: Coordinates) -> Toll:
    return Toll(np.zeros_like(at.gram), np.zeros(len(at.weights)))


def error(wanted: object, system: StateSpace) -> np.ndarray:
    """(G,): the wanted distance of a system's kernel."""
    taps = kernel(system, LENGTH).reshape(system.groups, LENGTH).copy()
    taps[:, 0] -= system.D[:, 0, 0]
    missed = wanted.weigh((taps - wanted.taps)[:, :, None])  # type: ignore[attr-defined]
    return np.asarray(np.square(missed).sum((1, 2)) + wanted.rest)  # type: ignore[attr-defined]


@given(st.integers(0, 2**16), st.integers(1, 3), st.sampled_from([0.0, 0.03, 1.0]))
@settings(max_examples=20, deadline=None)
def test_the_wanted_distance_is_the_error_on_the_data(seed: int, batch: int, share: float) -> None:
    """For any kernel of that length, whatever `target` was."""
    rng = np.random.default_rng(seed)
    own, other = channels(seed), channels(seed + 1)
    other = replace(other, D=own.D)
    u = rng.standard_normal((batch, LENGTH, own.groups)).cumsum(1)
    target = rng.standard_normal(u.shape) + simulate(own, u)[0]
    wanted = wanted_response(own, u, target, LENGTH, share)
    missed = np.square(simulate(other, u)[0] - target).mean((0, 1))
    white = np.square(kernel(other, LENGTH) - kernel(own, LENGTH)).sum((1, 2, 3))
    expected = missed + share * np.square(u).mean((0, 1)) * white
    np.testing.assert_allclose(error(wanted, other), expected, rtol=1e-6)
    assert (error(wanted, own) >= wanted.rest * (1 - 1e-6)).all()


def test_poles_that_are_off_are_found_again() -> None:
    """Kernels of one decay, from other oscillations and another decay."""
    truth = channels(3, tau=20.0)
    rng = np.random.default_rng(0)
    off = replace(truth, A=np.exp(-1 / 12 + 1j * (np.angle(truth.A) + rng.uniform(-0.04, 0.04, truth.A.shape))))
    wanted = wanted_kernel(truth, LENGTH)
    assignment = np.zeros(truth.A.shape, np.int64)
    found = project(off, wanted, np.array([1 / 12]), assignment, free, move_decays=True, rounds=60)
    assert found.rates == pytest.approx([1 / 20], rel=1e-3)
    np.testing.assert_allclose(np.angle(found.system.A), np.angle(truth.A), atol=1e-3)
    assert (found.missed < 1e-6 * np.square(wanted.taps).sum(1)).all()
    still = project(off, wanted, np.array([1 / 12]), assignment, free, move_decays=False, rounds=60)
    assert still.rates == pytest.approx([1 / 12]) and (still.missed > found.missed).all()


@pytest.mark.parametrize("levels", [1, 2])
def test_oscillations_that_are_far_off_are_exchanged(levels: int) -> None:
    """Steps alone end elsewhere; exchanges find the decay that belongs to each oscillation, too."""
    truth = channels(3, groups=6, tau=20.0)
    rates = np.array([1 / 20, 1 / 5])[:levels]
    assignment = np.arange(truth.A.size).reshape(truth.A.shape) % levels
    truth = replace(truth, A=np.exp(-rates[assignment] + 1j * np.angle(truth.A)))
    far = np.broadcast_to(np.linspace(2.2, 3.0, truth.A.shape[1]), truth.A.shape)
    off = replace(truth, A=np.exp(-rates[0] + 1j * far))
    wanted, mixed = wanted_kernel(truth, LENGTH), 1 - assignment if levels == 2 else assignment
    power = np.square(wanted.taps).sum(1)
    found = project(off, wanted, rates, mixed, free, move_decays=True, rounds=40)
    assert np.median(found.missed / power) < 1e-3 and (found.missed < 0.02 * power).all()
    nearest = project(off, wanted, rates, mixed, free, move_decays=False, rounds=40)
    assert (found.missed < 0.2 * nearest.missed).all()


@given(st.integers(0, 2**16), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_moving_oscillations_comes_closer_than_the_refit(seed: int, levels: int) -> None:
    system = channels(seed)
    shared, decays = cluster_decays(system, levels)
    plain = refit_output(system, shared, length=LENGTH, bound=False).system
    wanted = wanted_kernel(system, LENGTH)
    found = project(system, wanted, decays.rates, decays.assignment, free, move_decays=False, rounds=8)
    before, after = error(wanted, plain), error(wanted, found.system)
    assert (after <= before * (1 + 1e-6) + 1e-12).all()
    np.testing.assert_allclose(after, found.missed, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(-np.log(np.abs(found.system.A)), decays.rates[decays.assignment], rtol=1e-9)


@given(st.integers(0, 2**16))
@settings(max_examples=10, deadline=None)
def test_weights_are_the_best_for_their_toll(seed: int) -> None:
    """Poles as they stand, against a minimiser that knows nothing of it."""
    system = channels(seed, groups=2, states=2)
    wanted = wanted_kernel(system, LENGTH)
    _, decays = cluster_decays(system, 1)
    rng = np.random.default_rng(seed)
    power = float(np.square(wanted.taps).sum(1).mean())
    form = power * rng.uniform(0, 0.3, (2, 4))[:, :, None] * np.eye(4)
    largest = power * rng.uniform(0.1, 0.5, 2)
    found = project(
        system, wanted, decays.rates, decays.assignment, lambda _: Toll(form, largest), move_decays=True, rounds=30
    )
    basis = []
    for part in (1.0, 1j):
        one = replace(found.system, C=np.full_like(found.system.C, part / found.system.gain), D=0 * found.system.D)
        for n in range(2):
            alone = replace(one, A=one.A[:, n : n + 1], B=one.B[:, n : n + 1], C=one.C[:, :, n : n + 1])
            basis.append(kernel(alone, LENGTH).reshape(2, LENGTH))
    for g in range(2):
        columns = np.stack([b[g] for b in basis], axis=1)

        def cost(theta: np.ndarray, g: int = g, columns: np.ndarray = columns) -> float:
            missed = np.square(wanted.taps[g] - columns @ theta).sum()
            return float(missed + theta @ form[g] @ theta + largest[g] * (theta**8).sum() ** 0.25)

        least = minimize(cost, np.full(4, 0.1), method="BFGS", options={"gtol": 1e-9}).fun
        assert found.missed[g] + found.toll[g] <= least * 1.01


def test_what_is_not_a_bank_of_oscillators_is_refused() -> None:
    system = channels(0)
    assert projectable(system)
    real = replace(system, A=np.abs(system.A), halved=False)
    assert not projectable(real) and not projectable(replace(system, read_before=True))
    with pytest.raises(StateSpaceError, match="oscillators"):
        wanted = wanted_kernel(real, LENGTH)
        project(real, wanted, np.ones(1), np.zeros(real.A.shape, np.int64), free, move_decays=False, rounds=1)
