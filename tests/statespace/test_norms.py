from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.statespace import (
    StateSpace,
    StateSpaceError,
    balanced_truncation,
    frequency_response,
    hinf_norm,
    kernel,
    l1_distance,
    l1_norm,
    simulate,
)

from .strategies import random_system, seeds, systems


def slow_system(seed: int, states: int = 16, step: float = 1e-3) -> StateSpace:
    """S4D-like: decay 1/2, frequencies pi n, a small step."""
    rng = np.random.default_rng(seed)
    a = np.exp(step * (-0.5 + 1j * np.pi * np.arange(states)))[None]
    c = rng.standard_normal((1, 1, states)) + 1j * rng.standard_normal((1, 1, states))
    return StateSpace(a, np.full((1, states, 1), step), c, rng.standard_normal((1, 1, 1)), halved=True)


@given(systems(radius=0.9))
@settings(max_examples=60, deadline=None)
def test_l1_norm_is_the_sum_from_above(system: StateSpace) -> None:
    want = np.abs(kernel(system, 600)).sum(axis=(2, 3))
    got = l1_norm(system, 1e-9)
    assert (got >= want * (1 - 1e-12)).all()
    np.testing.assert_allclose(got, want, rtol=1e-7)
    np.testing.assert_allclose(l1_norm(system, length=5), np.abs(kernel(system, 5)).sum(axis=(2, 3)), rtol=1e-12)


@given(systems(radius=0.9), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_the_tail_is_never_underestimated(system: StateSpace, taps: int) -> None:
    from ssmc.statespace.conjugates import unhalve
    from ssmc.statespace.norms import _energy_tail, _mode_tail, _norm_tail, _tail

    plain = unhalve(system)
    rest = np.abs(kernel(system, 600)[..., taps:]).sum(axis=(2, 3)) * (1 - 1e-9) - 1e-12
    assert (_tail(plain, taps) >= rest).all()
    for bound in (_mode_tail, _energy_tail) if plain.diagonal else (_norm_tail,):
        assert (bound(plain, taps - 1 if plain.read_before else taps) >= rest).all()


def test_l1_norm_of_a_slow_system_within_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    system = slow_system(0)
    want = np.abs(kernel(system, 40_000)).sum()
    assert l1_norm(system) == pytest.approx(want, rel=1e-5)
    monkeypatch.setattr("ssmc.statespace.norms._BUDGET", 1)  # 64 taps; the rest is bounded, and not wildly
    assert want * (1 - 1e-9) <= l1_norm(system).item() <= 1.4 * want


@given(seeds, st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_worst_input_stays_below_the_distance(seed: int, dense: bool) -> None:
    rng = np.random.default_rng(seed)
    one = random_system(seed, dense=dense, read_before=False, radius=0.9)
    other = replace(one, A=one.A * rng.uniform(0.8, 1, (one.groups,) + (1,) * (one.A.ndim - 1)))
    distance = l1_distance(one, other, 1e-9)
    taps = kernel(one, 300) - kernel(other, 300)
    for o in range(one.C.shape[1]):  # the input that reaches it: signs of the reversed response
        u = np.sign(taps[:, o, :, ::-1]).transpose(2, 0, 1).reshape(1, 300, -1)
        gap = (simulate(one, u)[0] - simulate(other, u)[0])[0, -1].reshape(one.groups, -1)[:, o]
        assert (np.abs(gap) <= distance[:, o] * (1 + 1e-9)).all()
        np.testing.assert_allclose(gap, distance[:, o], rtol=1e-6)
    np.testing.assert_allclose(l1_distance(one, one), 0, atol=1e-9)


@given(systems(radius=0.95))
@settings(max_examples=20, deadline=None)
def test_hinf_norm_is_the_highest_gain(system: StateSpace) -> None:
    w = np.linspace(-np.pi, np.pi, 20_001)
    gains = np.linalg.norm(frequency_response(system, w).transpose(0, 3, 1, 2), 2, axis=(2, 3)).max(axis=1)
    got = hinf_norm(system)
    assert (got >= gains * (1 - 2e-6)).all()
    np.testing.assert_allclose(got, gains, rtol=1e-3)


def test_hinf_norm_of_one_pole_and_of_a_sharp_peak() -> None:
    one = np.ones((1, 1, 1))
    system = StateSpace(np.array([[0.99]]), one, one, np.zeros((1, 1, 1)))
    assert hinf_norm(system)[0] == pytest.approx(100, rel=1e-6)  # at w = 0
    sharp = slow_system(3, step=1e-4)
    taps = kernel(sharp, 200_000)[0, 0, 0]
    spectrum = np.abs(np.fft.rfft(taps, 1 << 20))
    assert hinf_norm(sharp)[0] == pytest.approx(spectrum.max(), rel=1e-4)


@given(seeds, st.booleans(), st.booleans(), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_balanced_truncation_keeps_its_bound(seed: int, complex_: bool, before: bool, order: int) -> None:
    system = random_system(seed, complex_=complex_, read_before=before, radius=0.9, sizes=(2, 4, 2, 2))
    reduced = balanced_truncation(system, order=order)
    w = np.linspace(0, np.pi, 400)
    error = frequency_response(system, w) - frequency_response(reduced.system, w)
    worst = np.linalg.norm(error.transpose(0, 3, 1, 2), 2, axis=(2, 3)).max(axis=1)
    assert (worst <= reduced.bound + 1e-9).all()
    values = np.pad(reduced.hankel_singular_values, [(0, 0), (0, 1)])
    left_out = np.take_along_axis(values, reduced.orders[:, None], 1)[:, 0]
    assert (worst >= 0.5 * left_out - 1e-9).all()  # no system of that order comes closer than left_out
    assert reduced.system.states <= max(1, order)
    full = balanced_truncation(system, tolerance=1e-12)
    np.testing.assert_allclose(kernel(full.system, 30), kernel(system, 30), rtol=1e-6, atol=1e-6)


def test_balanced_truncation_finds_a_hidden_order() -> None:
    """Three real modes copied into twelve states."""
    rng = np.random.default_rng(1)
    a = np.repeat([0.9, 0.5, -0.3], 4)[None]
    system = StateSpace(a, rng.standard_normal((1, 12, 1)), rng.standard_normal((1, 1, 12)), np.zeros((1, 1, 1)))
    reduced = balanced_truncation(system, tolerance=1e-9)
    assert reduced.orders.tolist() == [3] and reduced.bound[0] < 1e-12
    np.testing.assert_allclose(kernel(reduced.system, 50), kernel(system, 50), atol=1e-12)


def test_refusals() -> None:
    one = np.ones((1, 1, 1))
    growing = StateSpace(np.array([[1.01]]), one, one, one)
    for ask in (l1_norm, hinf_norm, lambda s: balanced_truncation(s, order=1)):
        with pytest.raises(StateSpaceError, match="not stable"):
            ask(growing)
    stable = replace(growing, A=np.array([[0.5]]))
    with pytest.raises(StateSpaceError, match="either order or tolerance"):
        balanced_truncation(stable)
    with pytest.raises(StateSpaceError, match="must agree"):
        l1_distance(stable, replace(stable, read_before=True))
