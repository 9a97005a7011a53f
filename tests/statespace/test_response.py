from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.statespace import (
    StateSpace,
    StateSpaceError,
    controllability_gramian,
    diagonalize,
    discretize,
    frequencies,
    frequency_response,
    h2_norm,
    kernel,
    observability_gramian,
    poles,
    simulate,
    time_constants,
)
from ssmc.statespace.gramians import cross_gramian

from .strategies import random_system, seeds, systems


@given(systems(), st.integers(1, 40))
@settings(max_examples=80, deadline=None)
def test_kernel_is_the_answer_to_an_impulse(system: StateSpace, length: int) -> None:
    taps = kernel(system, length)
    groups, high, wide = system.D.shape
    for i in range(wide):
        u = np.zeros((1, length, groups, wide))
        u[0, 0, :, i] = 1
        y, _ = simulate(system, u.reshape(1, length, -1))
        want = y[0].reshape(length, groups, high)
        np.testing.assert_allclose(taps[:, :, i].transpose(2, 0, 1), want, rtol=1e-10, atol=1e-10)


def test_kernel_of_complex_outputs_and_of_dead_states() -> None:
    a = np.array([[0.0, 0.5j]])
    system = StateSpace(a, np.ones((1, 2, 1)), np.ones((1, 1, 2)), np.zeros((1, 1, 1)), real_output=False)
    np.testing.assert_allclose(kernel(system, 4).ravel(), [2, 0.5j, -0.25, -0.125j], atol=1e-16)
    np.testing.assert_allclose(kernel(replace(system, read_before=True), 4).ravel(), [0, 2, 0.5j, -0.25], atol=1e-16)


def test_long_slow_kernels_keep_their_digits() -> None:
    """Against exact integer arithmetic at the far end."""
    a = np.exp(-5e-5 + 0.3j)
    system = StateSpace(np.array([[a]]), np.ones((1, 1, 1)), np.ones((1, 1, 1)), np.zeros((1, 1, 1)))
    re, im, power = int(a.real * 2**60), int(a.imag * 2**60), (1, 0)
    for bit in bin(16383)[2:]:
        power = (power[0] ** 2 - power[1] ** 2, 2 * power[0] * power[1])
        if bit == "1":
            power = (power[0] * re - power[1] * im, power[0] * im + power[1] * re)
    want = (power[0] >> (60 * 16383 - 60)) / 2**60
    assert kernel(system, 16384)[0, 0, 0, -1] == pytest.approx(want, rel=1e-11)


@given(systems(), seeds)
@settings(max_examples=60, deadline=None)
def test_frequency_response_is_the_transform_of_the_kernel(system: StateSpace, seed: int) -> None:
    w = np.random.default_rng(seed).uniform(-np.pi, np.pi, 5)
    taps = kernel(system, 1200)  # 0.97^1200 < 1e-15
    want = taps @ np.exp(-1j * np.outer(np.arange(1200), w))
    np.testing.assert_allclose(frequency_response(system, w), want, rtol=1e-8, atol=1e-8)


@given(systems(radius=0.9), st.sampled_from([None, 1, 2, 7]))
@settings(max_examples=80, deadline=None)
def test_gramians_and_h2_are_their_sums(system: StateSpace, length: int | None) -> None:
    terms = length or 400
    reached, seen = controllability_gramian(system, length), observability_gramian(system, length)
    for g in range(system.groups):
        abar = system.A[g] if not system.diagonal else np.diag(system.A[g])
        for got, step, start in [
            (reached, abar, system.B[g]),
            (seen, abar.conj().T, system.C[g].conj().T),
        ]:
            want, x = 0, start
            for _ in range(terms):
                want, x = want + x @ x.conj().T, step @ x
            np.testing.assert_allclose(got[g], want, rtol=1e-8, atol=1e-8)
    energy = (np.abs(kernel(system, terms)) ** 2).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(h2_norm(system, length), np.sqrt(energy), rtol=1e-8)


@given(seeds, seeds, st.sampled_from([None, 1, 6]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_cross_gramian_is_its_sum(one: int, other: int, length: int | None, dense: bool) -> None:
    left = random_system(one, dense=dense, radius=0.8, sizes=(2, 3, 2, 1))
    right = random_system(other, dense=False, radius=0.8, sizes=(2, 4, 2, 1))
    got = cross_gramian(left, right, length)
    for g in range(2):
        a = left.A[g] if dense else np.diag(left.A[g])
        want, x, z = 0, left.B[g], right.B[g]
        for _ in range(length or 300):
            want, x, z = want + x @ z.conj().T, a @ x, right.A[g][:, None] * z
        np.testing.assert_allclose(got[g], want, rtol=1e-9, atol=1e-9)


def test_finite_gramian_of_a_slow_and_of_a_marginal_state() -> None:
    one = np.ones((1, 2, 1))
    system = StateSpace(np.array([[1.0, 1 - 1e-9]]), one, one.swapaxes(1, 2), np.zeros((1, 1, 1)))
    got = controllability_gramian(system, 1000)[0]
    assert got[0, 0] == 1000
    np.testing.assert_allclose(got[1, 1], sum((1 - 1e-9) ** (2 * k) for k in range(1000)), rtol=1e-12)
    with pytest.raises(StateSpaceError, match=r"not stable: \|Abar\| = 1 in group 0"):
        controllability_gramian(system)


def test_time_constants_and_frequencies() -> None:
    a = np.array([[-1 / 20.0, -1 / 300.0 + 2j * np.pi * 0.04, 0.0]])
    system = StateSpace(a, np.ones((1, 3, 1)), np.ones((1, 1, 3)), np.zeros((1, 1, 1)), np.array([[2.0]]))
    for form in (system, discretize(system, "zoh"), discretize(system, "async")):
        np.testing.assert_allclose(time_constants(form, 2.0), [[20, 300, np.inf]], rtol=1e-12)
        np.testing.assert_allclose(frequencies(form, 2.0), [[0, 0.04, 0]], rtol=1e-12, atol=1e-17)
    dead = replace(discretize(system, "zoh"), A=np.array([[0.0, 1.0, -1.1]]))
    np.testing.assert_array_equal(time_constants(dead), [[0, np.inf, np.inf]])


@given(systems(dense=True))
@settings(max_examples=30, deadline=None)
def test_poles_do_not_depend_on_the_basis(system: StateSpace) -> None:
    diagonal, _ = diagonalize(system)
    near = np.abs(poles(system)[:, :, None] - poles(diagonal)[:, None, :]).min(axis=2)
    assert near.max() < 1e-5


def test_requests_without_meaning_are_refused() -> None:
    system = StateSpace(np.full((1, 1), -1.0), *(np.ones((1, 1, 1)),) * 3, np.ones((1, 1)))
    for ask in (lambda s: kernel(s, 4), lambda s: frequency_response(s, 0.1), h2_norm):
        with pytest.raises(StateSpaceError, match="continuous"):
            ask(system)
        with pytest.raises(StateSpaceError, match="at_step"):
            ask(discretize(system, "async"))
    with pytest.raises(StateSpaceError, match="length"):
        kernel(discretize(system, "zoh"), 0)
