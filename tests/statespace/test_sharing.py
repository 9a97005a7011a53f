from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.statespace import (
    StateSpace,
    StateSpaceError,
    arrival_spans,
    cluster_decays,
    difference,
    discretize,
    event_l1_distance,
    frequencies,
    frequency_response,
    h2_norm,
    kernel,
    modal_energy,
    refit_input,
    refit_output,
    regress_output,
    simulate,
    time_constants,
)

from .strategies import random_system, seeds, systems
from .test_norms import slow_system


def drawn(seed: int, *, complex_: bool = True, form: str = "discrete") -> StateSpace:
    """Two groups of five states, decays over two decades."""
    rng = np.random.default_rng(seed)
    a = -np.exp(rng.uniform(np.log(0.03), 0, (2, 5))) + (1j * rng.uniform(0, 3, (2, 5)) if complex_ else 0)
    c = rng.standard_normal((2, 2, 5)) + (1j * rng.standard_normal((2, 2, 5)) if complex_ else 0)
    system = StateSpace(a, rng.standard_normal((2, 5, 2)), c, rng.standard_normal((2, 2, 2)), np.full((2, 5), 0.7))
    system = replace(system, halved=complex_)
    return discretize(system, {"discrete": "zoh", "asynchronous": "async"}[form])  # type: ignore[arg-type]


@given(seeds, st.integers(1, 5), st.booleans(), st.sampled_from(["discrete", "asynchronous"]))
@settings(max_examples=60, deadline=None)
def test_decays_are_shared_and_the_clusters_are_the_best(seed: int, levels: int, complex_: bool, form: str) -> None:
    system = drawn(seed, complex_=complex_, form=form)
    weight = np.random.default_rng(seed).uniform(0.1, 1, (2, 5))
    shared, report = cluster_decays(system, levels, weight)
    taus = time_constants(shared)
    np.testing.assert_allclose(taus, (1 / report.rates)[report.assignment], rtol=1e-9)
    np.testing.assert_allclose(report.shift, np.log(taus / time_constants(system)), atol=1e-9)
    np.testing.assert_allclose(frequencies(shared), frequencies(system), atol=1e-12)
    assert len(np.unique(np.abs(shared.A.real if form == "asynchronous" or not complex_ else taus.round(9)))) <= levels
    # Brute force: the best way to cut ten sorted values into runs.
    order = np.argsort(np.log(time_constants(system)).ravel())
    x, w = np.log(time_constants(system)).ravel()[order], weight.ravel()[order]
    best = np.inf
    for cuts in combinations(range(1, 10), levels - 1):
        parts = [(x[i:j], w[i:j]) for i, j in zip((0, *cuts), (*cuts, 10), strict=True)]
        best = min(best, sum((v * (p - np.average(p, weights=v)) ** 2).sum() for p, v in parts))
    assert (weight * report.shift**2).sum() == pytest.approx(best, rel=1e-6, abs=1e-12)


def test_enough_levels_change_nothing() -> None:
    system = drawn(3)
    shared, report = cluster_decays(system, 10)
    np.testing.assert_allclose(shared.A, system.A, rtol=1e-12)
    assert len(report.rates) == 10


def test_more_states_than_bins() -> None:
    rng = np.random.default_rng(0)
    a = rng.uniform(0.5, 0.999, (50, 100))
    system = StateSpace(a, np.ones((50, 100, 1)), np.ones((50, 1, 100)), np.zeros((50, 1, 1)))
    coarse, fine = (np.abs(cluster_decays(system, k)[1].shift).max() for k in (4, 32))
    assert fine < coarse / 4


@given(systems(dense=False, radius=0.9))
@settings(max_examples=30, deadline=None)
def test_modal_energy_is_the_energy_of_each_mode(system: StateSpace) -> None:
    want = np.zeros((system.groups, system.states))
    for k in range(300):
        response = system.C[:, :, :, None] * (system.A**k)[:, None, :, None] * system.B[:, None]
        want += (np.abs(response) ** 2).sum(axis=(1, 3))
    np.testing.assert_allclose(modal_energy(system), want, rtol=1e-9)


@given(seeds, st.booleans(), st.booleans(), st.sampled_from([None, 2, 20]), st.booleans())
@settings(max_examples=30, deadline=None)
def test_refit_is_the_least_squares_answer(
    seed: int, complex_: bool, before: bool, length: int | None, direct: bool
) -> None:
    """Against numpy's least squares on the taps themselves."""
    original = replace(drawn(seed, complex_=complex_), read_before=before)
    shared, _ = cluster_decays(original, 3)
    fit = refit_output(original, shared, length=length, refit_direct=direct)
    horizon = length or 1200
    terms = horizon - 1 if before else horizon  # the first tap is D alone there
    h, first = kernel(original, horizon), original.D
    f = shared.gain
    now = shared.B[:, :, :, None] * shared.A[:, :, None, None] ** np.arange(terms)
    error = np.zeros(2)
    for g in range(2):
        rows = now[g].reshape(5, -1)  # (N, I * taps)
        design = f * np.concatenate([rows.real, -rows.imag]) if complex_ else rows.real
        taps = h[g].copy()
        taps[:, :, 0] -= first[g]
        taps = taps[..., 1:] if before else taps
        keep = np.ones((2, terms), bool)
        keep[:, 0] = before or not direct
        want, *_ = np.linalg.lstsq(design[:, keep.ravel()].T, taps[:, keep].T, rcond=1e-12)
        gap = taps[:, keep] - want.T @ design[:, keep.ravel()]
        error[g] = np.sqrt((gap**2).sum() / (taps**2).sum())
    np.testing.assert_allclose(fit.h2_error, error, atol=2e-6)
    new = kernel(fit.system, horizon)
    relative = np.sqrt(
        ((new - h) ** 2).sum(axis=(1, 2, 3))
        / ((h - first[..., None] * (np.arange(horizon) == 0)) ** 2).sum(axis=(1, 2, 3))
    )
    np.testing.assert_allclose(relative, error, atol=2e-6)
    assert fit.l1_bound is not None
    assert (np.abs(new - h).sum(axis=(2, 3)) <= fit.l1_bound * (1 + 1e-6) + 1e-6).all()


def test_refit_of_the_same_system_is_exact_and_wins_over_doing_nothing() -> None:
    original = slow_system(1)
    again = refit_output(original, original)
    assert again.h2_error[0] < 1e-6
    shared, _ = cluster_decays(random_slow(2), 2)
    fit = refit_output(random_slow(2), shared)
    untouched = h2_norm(difference(random_slow(2), shared)) / h2_norm(random_slow(2))
    assert (fit.h2_error < untouched).all()
    tame = refit_output(random_slow(2), shared, ridge=0.1)
    assert np.abs(tame.system.C).max() < np.abs(fit.system.C).max()
    assert (tame.h2_error >= fit.h2_error).all()


def random_slow(seed: int) -> StateSpace:
    return drawn(seed)


def test_refit_between_different_kinds() -> None:
    """A rotating system approached by real decays: what the CIM chip's training code does from the start."""
    original = drawn(4)
    real = replace(drawn(4, complex_=False), D=original.D)
    fit = refit_output(original, real)
    assert not np.iscomplexobj(fit.system.C)
    error = h2_norm(difference(original, fit.system)) / h2_norm(replace(original, D=np.zeros((2, 2, 2))))
    np.testing.assert_allclose(fit.h2_error, error, rtol=1e-6)
    dense = random_system(1, dense=True, complex_=False, radius=0.9, read_before=False, sizes=(2, 4, 2, 2))
    fit = refit_output(dense, replace(real, D=dense.D))
    assert (fit.h2_error <= 1 + 1e-9).all()


def test_refit_for_a_spectrum_minds_where_the_input_is() -> None:
    original = drawn(7)
    shared, _ = cluster_decays(original, 1)
    w = np.linspace(0, np.pi, 513)
    low = np.exp(-((w / 0.2) ** 2))
    white, coloured = refit_output(original, shared), refit_output(original, shared, spectrum=low)

    def missed(system: StateSpace) -> float:
        gap = frequency_response(original, w) - frequency_response(system, w)
        return float((low * np.abs(gap) ** 2).sum())

    assert missed(coloured.system) < 0.9 * missed(white.system)
    flat = refit_output(original, shared, spectrum=np.ones(4097))
    np.testing.assert_allclose(flat.h2_error, white.h2_error, rtol=1e-3)


def test_refit_of_events_with_random_gaps() -> None:
    """White inputs at independent gaps: the predicted error is the one simulated."""
    rng = np.random.default_rng(0)
    original = drawn(5, form="asynchronous")
    shared, _ = cluster_decays(original, 2)
    gaps = rng.exponential(1.0, 200)
    fit = refit_output(original, shared, gaps=gaps)
    u, dt = rng.standard_normal((64, 600, 4)), rng.choice(gaps, (64, 600))
    y, _ = simulate(original, u, dt=dt)
    gap = y - simulate(fit.system, u, dt=dt)[0]
    plain, _ = simulate(replace(original, D=np.zeros((2, 2, 2))), u, dt=dt)
    power = [(z[:, 200:].reshape(64, 400, 2, 2) ** 2).sum(axis=(0, 1, 3)) for z in (gap, plain)]
    np.testing.assert_allclose(fit.h2_error, np.sqrt(power[0] / power[1]), rtol=0.05)
    regular = refit_output(original, shared, gaps=1.0)
    other, _ = simulate(regular.system, u, dt=dt)
    assert ((y - other) ** 2).sum() > (gap**2).sum()


def test_refusals() -> None:
    one = np.ones((1, 1, 1))
    still = StateSpace(np.array([[1.0]]), one, one, one)
    with pytest.raises(StateSpaceError, match="state 0 of group 0 does not decay"):
        cluster_decays(still, 1)
    with pytest.raises(StateSpaceError, match="levels"):
        cluster_decays(drawn(0), 0)
    with pytest.raises(StateSpaceError, match="dense"):
        cluster_decays(replace(still, A=one * 0.5), 1)
    with pytest.raises(StateSpaceError, match="weight"):
        cluster_decays(drawn(0), 2, np.ones(3))
    with pytest.raises(StateSpaceError, match="agree in read_before"):
        refit_output(drawn(0), replace(drawn(0), read_before=True))
    with pytest.raises(StateSpaceError, match="length or spectrum"):
        refit_output(drawn(0), drawn(0), length=4, spectrum=np.ones(5))
    with pytest.raises(StateSpaceError, match="not stable"):
        refit_output(still, still)


def test_refit_of_the_input_is_the_least_squares_answer() -> None:
    """Against numpy's least squares on the taps: each state's drive, its own response given."""
    original = drawn(11)
    shared, _ = cluster_decays(original, 2)
    length = 30
    fit = refit_input(original, shared, length=length)
    h, new = kernel(original, length), kernel(fit.system, length)
    powers = shared.A[:, :, None] ** np.arange(length)
    for g in range(2):
        read = shared.C[g][:, :, None] * powers[g][None]  # o n k
        both = shared.gain * np.concatenate([read.real, -read.imag], axis=1)
        design = both.transpose(0, 2, 1).reshape(-1, both.shape[1])
        taps = h[g].copy()
        taps[:, :, 0] -= original.D[g]
        want = taps.transpose(0, 2, 1).reshape(len(design), -1)
        _, missed, *_ = np.linalg.lstsq(design, want, rcond=1e-12)
        np.testing.assert_allclose(((h - new)[g] ** 2).sum(), missed.sum(), rtol=1e-6)


@given(seeds, st.booleans(), st.booleans(), st.sampled_from(["discrete", "asynchronous"]))
@settings(max_examples=20, deadline=None)
def test_regression_finds_the_c_that_made_the_data(seed: int, complex_: bool, before: bool, form: str) -> None:
    rng = np.random.default_rng(seed)
    true = replace(drawn(seed, complex_=complex_, form=form), read_before=before)
    wrong = replace(true, C=true.C + rng.standard_normal(true.C.shape))
    u, dt = rng.standard_normal((3, 200, 4)), rng.exponential(1.0, (3, 200)) if form == "asynchronous" else None
    x0 = rng.standard_normal((3, 2, 5))
    y, _ = simulate(true, u, x0, dt)
    found = regress_output(wrong, u, y, dt=dt, x0=x0, ridge=1e-9)
    np.testing.assert_allclose(simulate(found, u, x0, dt)[0], y, atol=1e-4 * np.abs(y).max())
    held = regress_output(wrong, u, y, dt=dt, x0=x0, ridge=1e9)
    np.testing.assert_allclose(held.C, wrong.C, atol=1e-6)
    nothing = regress_output(wrong, 0 * u, 0 * y, dt=dt, ridge=1e-3)
    np.testing.assert_array_equal(nothing.C, wrong.C)


def test_the_bound_for_events_holds_for_events_no_denser() -> None:
    rng = np.random.default_rng(3)
    original = drawn(5, form="asynchronous")
    shared, _ = cluster_decays(original, 1)
    dt = rng.exponential(0.5, (4, 60)) * (rng.random((4, 60)) < 0.7)
    spans = arrival_spans(dt)
    assert spans[0] == 0 and (np.diff(spans) >= 0).all() and len(spans) == 60
    times = np.cumsum(dt, 1)
    assert spans[2] == min((t[2:] - t[:-2]).min() for t in times)
    bound = event_l1_distance(original, shared, spans).ravel()
    worst = np.zeros(4)
    for draw in range(20):
        u = np.sign(np.random.default_rng(draw).standard_normal((4, 60, 4)))
        gap = simulate(original, u, dt=dt)[0] - simulate(shared, u, dt=dt)[0]
        worst = np.maximum(worst, np.abs(gap).max(axis=(0, 1)))
    assert (worst <= bound).all()
    assert (worst > bound / 50).all()  # it says something
    assert event_l1_distance(original, original, spans).max() < 0.1 * bound.max()
    with pytest.raises(StateSpaceError, match="asynchronous"):
        event_l1_distance(drawn(0), drawn(0), spans)
