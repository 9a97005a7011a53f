from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from ssmc.statespace import StateSpace, StateSpaceError, at_step, discretize, simulate

from .strategies import seeds


def continuous(seed: int, dense: bool, complex_: bool) -> StateSpace:
    rng = np.random.default_rng(seed)
    states, wide = int(rng.integers(1, 5)), int(rng.integers(1, 3))

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if complex_ else 0)

    a = draw(2, states, states) if dense else draw(2, states)
    delta = rng.uniform(0.05, 0.5, [(1, 1), (2, 1), (2, states)][rng.integers(3)])
    return StateSpace(a, draw(2, states, wide), draw(2, 2, states), np.zeros((2, 2, wide)), delta)


@given(seeds, st.booleans(), st.booleans())
@settings(max_examples=25, deadline=None)
def test_zoh_solves_the_differential_equation(seed: int, dense: bool, complex_: bool) -> None:
    system = continuous(seed, dense, complex_)
    discrete = discretize(system, "zoh")
    step = np.broadcast_to(system.delta, (2, system.states))
    u = np.random.default_rng(seed).standard_normal(system.inputs)
    _, last = simulate(discrete, u[None, None])
    for g, held in enumerate(u.reshape(2, -1)):
        a = system.A[g] if dense else np.diag(system.A[g])
        a, b = step[g][:, None] * a, step[g] * (system.B[g] @ held)
        flow = solve_ivp(
            lambda _, x, a=a, b=b: a @ x + b, (0, 1), np.zeros(system.states, complex), rtol=1e-10, atol=1e-12
        )
        np.testing.assert_allclose(last[0, g], flow.y[:, -1], rtol=1e-7, atol=1e-8)


@given(seeds, st.sampled_from(["zoh", "bilinear", "dirac", "euler", "async", "async-dirac"]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_dense_and_diagonal_agree(seed: int, method: str, complex_: bool) -> None:
    diagonal = continuous(seed, False, complex_)
    dense = replace(diagonal, A=diagonal.A[:, :, None] * np.eye(diagonal.states))
    one, other = (at_step(discretize(s, method), 0.8) for s in (diagonal, dense))  # type: ignore[arg-type]
    np.testing.assert_allclose(one.A[:, :, None] * np.eye(one.states), other.A, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(one.B, other.B, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("a", [0.0, 1e-18, -1e-9, 1e-9j, -2.0, -1 + 3j])
def test_zoh_near_an_integrator(a: complex) -> None:
    """phi(z) against its series and its definition."""
    system = StateSpace(np.array([[a]]), np.ones((1, 1, 1)), np.ones((1, 1, 1)), np.zeros((1, 1, 1)), np.array(0.5))
    z = 0.5 * a
    phi = 1 + z / 2 + z**2 / 6 if abs(z) < 1e-4 else (np.exp(z) - 1) / z
    np.testing.assert_allclose(discretize(system, "zoh").B.ravel(), 0.5 * phi, rtol=1e-14)


def test_zoh_of_a_singular_dense_matrix() -> None:
    """A double integrator: closed form in every textbook."""
    a, b = np.array([[[0.0, 1.0], [0.0, 0.0]]]), np.array([[[0.0], [1.0]]])
    t = 0.3
    discrete = discretize(StateSpace(a, b, np.ones((1, 1, 2)), np.zeros((1, 1, 1)), np.array(t)), "zoh")
    np.testing.assert_allclose(discrete.A[0], [[1, t], [0, 1]], atol=1e-16)
    np.testing.assert_allclose(discrete.B[0], [[t**2 / 2], [t]], atol=1e-16)


@given(seeds, st.booleans(), st.booleans())
@settings(max_examples=25, deadline=None)
def test_bilinear_and_euler_are_their_equations(seed: int, dense: bool, complex_: bool) -> None:
    system = continuous(seed, dense, complex_)
    bilinear, euler = discretize(system, "bilinear"), discretize(system, "euler")
    step = np.broadcast_to(system.delta, (2, system.states))
    for g in range(2):
        z = step[g][:, None] * (system.A[g] if dense else np.diag(system.A[g]))
        b, eye = step[g][:, None] * system.B[g], np.eye(system.states)
        inverse = np.linalg.inv(eye - z / 2)
        for got, want in [
            (bilinear.A[g], inverse @ (eye + z / 2)),
            (bilinear.B[g], inverse @ b),
            (euler.A[g], eye + z),
            (euler.B[g], b),
        ]:
            got = np.diag(got) if got.ndim == 1 else got
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def test_asynchronous_form_is_the_event_model() -> None:
    """`x <- exp(lambda s dt) x + (exp(lambda s) - 1)/lambda B u`, the form of Event-SSM."""
    rate, step, dt, u = -0.7 + 2j, 0.3, 1.9, 1.5
    system = StateSpace(
        np.array([[rate]]),
        np.full((1, 1, 1), 2.0),
        np.ones((1, 1, 1)),
        np.zeros((1, 1, 1)),
        np.array([[step]]),
    )
    _, x = simulate(discretize(system, "async"), np.full((1, 1, 1), u), np.ones((1, 1)), np.array([dt]))
    np.testing.assert_allclose(
        x.item(), np.exp(rate * step * dt) + (np.exp(rate * step) - 1) / rate * 2.0 * u, rtol=1e-14
    )
    _, x = simulate(discretize(system, "async-dirac"), np.full((1, 1, 1), u), dt=np.array([dt]))
    np.testing.assert_allclose(x.item(), 2.0 * u, rtol=1e-14)


def test_refusals() -> None:
    system = StateSpace(np.array([[2.0]]), *(np.ones((1, 1, 1)),) * 3, np.array([[1.0]]))
    with pytest.raises(StateSpaceError, match="pole lies at 2/delta"):
        discretize(system, "bilinear")
    with pytest.raises(StateSpaceError, match="pole lies at 2/delta"):
        discretize(replace(system, A=np.array([[[2.0]]])), "bilinear")
    with pytest.raises(StateSpaceError, match="'tustin' is not one of zoh, bilinear"):
        discretize(system, "tustin")  # type: ignore[arg-type]
    for done in (discretize(system, "zoh"), discretize(system, "async")):
        with pytest.raises(StateSpaceError, match="discrete already"):
            discretize(done, "zoh")
    with pytest.raises(StateSpaceError, match="continuous"):
        at_step(system)
