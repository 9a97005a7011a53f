from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.statespace import StateSpace, StateSpaceError, at_step, discretize, simulate

from .strategies import random_system, seeds, systems


def obvious(system: StateSpace, u: np.ndarray, x0: np.ndarray | None, dt: np.ndarray | None) -> np.ndarray:
    """One sample, one group, one step at a time, with explicit matrices."""
    batch, time, _ = u.shape
    wide, high = system.B.shape[2], system.C.shape[1]
    y = np.zeros((batch, time, system.groups * high), complex)
    for b in range(batch):
        for g in range(system.groups):
            a = np.diag(system.A[g]) if system.diagonal else system.A[g]
            x = np.zeros(system.states, complex) if x0 is None else x0[b, g].astype(complex)
            for k in range(time):
                if dt is not None:
                    abar = np.diag(np.exp(np.diag(a) * np.broadcast_to(system.delta, system.A.shape)[g] * dt[b, k]))
                else:
                    abar = a
                now = u[b, k, g * wide : (g + 1) * wide]
                new = abar @ x + system.B[g] @ now
                seen = system.C[g] @ (x if system.read_before else new)
                x = new
                if system.real_output:
                    seen = (2 if system.halved else 1) * seen.real
                y[b, k, g * high : (g + 1) * high] = seen + system.D[g] @ now
    return y


@given(systems(), seeds)
@settings(max_examples=60, deadline=None)
def test_simulate_is_the_recurrence(system: StateSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    u = rng.standard_normal((2, 7, system.inputs))
    x0 = rng.standard_normal((2, system.groups, system.states))
    y, last, states = simulate(system, u, x0, return_states=True)
    np.testing.assert_allclose(y, obvious(system, u, x0, None), rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(last, states[:, -1])


@given(systems(dense=False), seeds, st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_a_run_can_be_cut_anywhere(system: StateSpace, seed: int, cut: int) -> None:
    u = np.random.default_rng(seed).standard_normal((3, 9, system.inputs))
    whole, last = simulate(system, u)
    first, x = simulate(system, u[:, :cut])
    second, x = simulate(system, u[:, cut:], x)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(x, last, rtol=1e-12, atol=1e-12)


def test_blocks_of_time_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    system = random_system(3, dense=False, complex_=True)
    u = np.random.default_rng(0).standard_normal((2, 50, system.inputs))
    whole = simulate(system, u)[0]
    monkeypatch.setattr("ssmc.statespace.recurrence._BLOCK_ELEMENTS", 1)
    np.testing.assert_allclose(simulate(system, u)[0], whole, rtol=1e-12, atol=1e-13)


@given(seeds, st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_asynchronous_decay_follows_the_elapsed_time(seed: int, complex_: bool, halved: bool) -> None:
    rng = np.random.default_rng(seed)
    continuous = continuous_system(rng, complex_, halved and complex_)
    system = discretize(continuous, "async")
    u, dt = rng.standard_normal((2, 8, system.inputs)), rng.exponential(1.0, (2, 8))
    y, _ = simulate(system, u, dt=dt)
    np.testing.assert_allclose(y, obvious(system, u, None, dt), rtol=1e-11, atol=1e-11)
    regular, _ = simulate(at_step(system, 0.7), u)
    np.testing.assert_allclose(simulate(system, u, dt=np.full(8, 0.7))[0], regular, rtol=1e-11, atol=1e-11)


def test_dense_asynchronous_equals_its_diagonal_form() -> None:
    rng = np.random.default_rng(5)
    diagonal = discretize(continuous_system(rng, False, False), "async")
    rate = diagonal.A[:, :, None] * np.eye(diagonal.states)
    u, dt = rng.standard_normal((2, 6, diagonal.inputs)), rng.exponential(1.0, (2, 6))
    dense = replace(diagonal, A=rate)
    np.testing.assert_allclose(simulate(dense, u, dt=dt)[0], simulate(diagonal, u, dt=dt)[0], atol=1e-12)


def continuous_system(rng: np.random.Generator, complex_: bool, halved: bool) -> StateSpace:
    groups, states = 2, 3
    a = -rng.uniform(0.1, 2.0, (groups, states)) + (1j * rng.uniform(-3, 3, (groups, states)) if complex_ else 0)
    b, c = rng.standard_normal((groups, states, 2)), rng.standard_normal((groups, 2, states))
    delta = rng.uniform(0.05, 0.5, (groups, states))
    return StateSpace(a, b, c, rng.standard_normal((groups, 2, 2)), delta, halved)


def test_learned_initial_state_is_used_and_can_be_overridden() -> None:
    system = StateSpace([[0.5]], [[[1.0]]], [[[1.0]]], [[[0.0]]], x0=[[8.0]])  # type: ignore[arg-type]
    u = np.zeros((1, 2, 1))
    assert simulate(system, u)[0].ravel().tolist() == [4.0, 2.0]
    assert simulate(replace(system, read_before=True), u)[0].ravel().tolist() == [8.0, 4.0]
    assert simulate(system, u, np.zeros((1, 1)))[0].ravel().tolist() == [0.0, 0.0]


def test_arrays_are_copied_and_read_only() -> None:
    a = np.full((1, 1), 0.5)
    system = StateSpace(a, np.ones((1, 1, 1)), np.ones((1, 1, 1)), np.zeros((1, 1, 1)))
    a[0, 0] = 7.0
    assert system.A[0, 0] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        system.A[0, 0] = 1.0


GOOD = {"A": np.zeros((2, 3)), "B": np.zeros((2, 3, 1)), "C": np.zeros((2, 4, 3)), "D": np.zeros((2, 4, 1))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": np.zeros(3)}, "A: expected shape"),
        ({"A": np.zeros((2, 3, 2))}, "A: expected shape"),
        ({"B": np.zeros((2, 2, 1))}, "B: expected shape"),
        ({"C": np.zeros((2, 4, 2))}, "C: expected shape"),
        ({"D": np.zeros((2, 1, 4))}, "D: expected shape"),
        ({"x0": np.zeros(3)}, "x0: expected shape"),
        ({"A": np.full((2, 3), np.nan)}, r"A: not finite at index \(0, 0\)"),
        ({"A": np.array([["a"] * 3] * 2)}, "A: expected numbers"),
        ({"delta": np.zeros((1, 1))}, "delta: a step is real and positive"),
        ({"delta": np.ones((3, 1))}, "delta: expected"),
        ({"asynchronous": True}, "delta: an asynchronous"),
        ({"halved": True, "real_output": False}, "halved"),
        ({"D": np.zeros((2, 4, 1), complex)}, "D: complex"),
    ],
)
def test_bad_systems_name_the_array(change: dict[str, object], message: str) -> None:
    StateSpace(**GOOD)  # type: ignore[arg-type]
    with pytest.raises(StateSpaceError, match=message):
        StateSpace(**{**GOOD, **change})  # type: ignore[arg-type]


def test_bad_runs_are_refused() -> None:
    system = StateSpace(**GOOD)  # type: ignore[arg-type]
    u = np.zeros((1, 5, 2))
    continuous = replace(system, delta=np.ones((1, 1)))
    events = replace(continuous, asynchronous=True)
    for bad, options, message in [
        (system, {"u": np.zeros((1, 5, 3))}, "u: expected"),
        (system, {"u": u, "x0": np.zeros((2, 2))}, "x0: expected"),
        (system, {"u": u, "dt": np.zeros(5)}, "dt: elapsed"),
        (continuous, {"u": u}, "continuous"),
        (events, {"u": u}, "dt: an asynchronous"),
        (events, {"u": u, "dt": np.zeros(4)}, "dt: expected"),
        (events, {"u": u, "dt": -np.ones(5)}, "dt: elapsed times are zero"),
    ]:
        with pytest.raises(StateSpaceError, match=message):
            simulate(bad, **options)  # type: ignore[call-overload]
