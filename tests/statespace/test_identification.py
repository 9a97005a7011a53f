from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.statespace import (
    StateSpace,
    StateSpaceError,
    fit_residues,
    identify,
    kernel,
    poles,
    realize,
    side_by_side,
    simulate,
)

from .strategies import random_system, seeds


def s4d(seed: int, channels: int, states: int, steps: tuple[float, float], family: str) -> StateSpace:
    """S4D at its initialisations (arXiv 2206.11893, section 4), scattered as training does, ZOH, with a skip."""
    rng = np.random.default_rng(seed)
    n = np.arange(states)
    a = {
        "lin": -0.5 + 1j * np.pi * n,
        "inv": -0.5 + 1j * 2 * states / np.pi * (2 * states / (2 * n + 1) - 1),
        "real": -(n + 1.0) + 0j,
    }[family] * rng.uniform(0.8, 1.2, (channels, states))
    z = a * np.exp(rng.uniform(*np.log(steps), (channels, 1)))
    c = rng.standard_normal((channels, 1, states)) + 1j * rng.standard_normal((channels, 1, states))
    b = ((np.exp(z) - 1) / a)[:, :, None]
    return StateSpace(np.exp(z), b, c, rng.standard_normal((channels, 1, 1)), halved=True)


@pytest.mark.parametrize("family", ["lin", "inv", "real"])
@pytest.mark.parametrize(
    ("states", "length", "channels", "steps"),
    [
        (4, 64, 6, (1e-4, 1e-1)),
        (16, 64, 6, (1e-4, 1e-3)),
        (16, 512, 3, (1e-4, 1e-1)),
        (32, 2048, 1, (1e-3, 1e-2)),
    ],
)
@pytest.mark.parametrize("rounded", [False, True])
def test_trained_shapes_of_kernels(
    family: str, states: int, length: int, channels: int, steps: tuple[float, float], rounded: bool
) -> None:
    system = s4d(5, channels, states, steps, family)
    taps = kernel(system, length)[:, 0, 0]
    if rounded:
        taps = taps.astype(np.float32).astype(np.float64)
    found = identify(taps)
    assert found.system is not None and found.ok and found.met.all()
    got = kernel(found.system, length)[:, 0, 0]
    scale = np.abs(taps).max(axis=1)
    np.testing.assert_allclose(np.abs(got - taps).max(axis=1) / scale, found.residual, rtol=1e-6, atol=1e-12)
    assert (found.residual <= 1e-6).all()
    np.testing.assert_allclose(found.l1_error, np.abs(got - taps).sum(axis=1), rtol=1e-6, atol=1e-12)
    assert np.abs(poles(found.system)).max() < 1
    assert (found.order <= 2 * states).all() and (2 * found.order < length).all()
    # Residues that cancel would leave float32 hardware nothing.
    assert (np.abs(found.system.C).max(axis=(1, 2)) < 30 * scale).all()


@pytest.mark.parametrize(
    ("family", "states", "length", "step"),
    [
        ("lin", 32, 2047, 1e-3),
        ("lin", 32, 1000, 2e-3),
        ("lin", 64, 1000, 1e-3),
        ("lin", 32, 8192, 2e-4),
        ("inv", 32, 1000, 1e-2),
        ("lin", 8, 61, 1e-3),
    ],
)
def test_modes_that_a_window_hardly_tells_apart(family: str, states: int, length: int, step: float) -> None:
    """As many modes as waves fit into the window, or more: their own poles are lost in float32's rounding."""
    system = s4d(7, 1, states, (step, 1.001 * step), family)
    taps = kernel(system, length)[:, 0, 0].astype(np.float32).astype(np.float64)
    found = identify(taps)
    assert found.ok and found.system is not None and 2 * found.order[0] < length
    assert np.abs(poles(found.system)).max() < 1
    assert np.abs(kernel(found.system, length)[:, 0, 0] - taps).max() <= 1e-6 * np.abs(taps).max()
    assert np.abs(found.system.C).max() < 30 * np.abs(taps).max()


def legendre(states: int, length: int, step: float) -> np.ndarray:
    """A kernel of HiPPO-LegS (S4, arXiv 2111.00396, equation 2) by bilinear steps."""
    n = np.arange(states)
    root = np.sqrt(2 * n + 1)
    a = -(np.tril(root[:, None] * root) - np.diag(n))
    inverse = np.linalg.inv(np.eye(states) - step / 2 * a)
    dense = StateSpace(
        (inverse @ (np.eye(states) + step / 2 * a))[None],
        (inverse @ root * step)[None, :, None],
        np.random.default_rng(2).standard_normal((1, 1, states)),
        np.zeros((1, 1, 1)),
    )
    return np.asarray(kernel(dense, length)[:, 0, 0])


@pytest.mark.parametrize(("length", "step"), [(784, 1e-2), (1000, 1e-3), (4096, 1e-3)])
def test_legendre_memories_become_modes_or_stay_filters(length: int, step: float) -> None:
    taps = legendre(16, length, step)
    found = identify(taps)
    assert found.ok and found.system is not None and 2 * found.order[0] < length
    assert np.abs(kernel(found.system, length)[:, 0, 0] - taps).max() <= 1e-6 * np.abs(taps).max()
    short = identify(legendre(64, 257, 1e-2))  # no modes of half as many states do
    assert not short.ok and short.residual[0] < 1 and np.abs(poles(short.candidate)).max() < 1


def test_a_filter_that_ends_is_not_given_more_states_than_half_its_taps() -> None:
    taps = np.zeros((1, 4096))
    taps[0, :40] = np.random.default_rng(0).standard_normal(40)
    found = identify(taps)
    assert not found.ok and found.order[0] < 20


@given(seeds, st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_an_exact_system_is_found_again(seed: int, states: int) -> None:
    """Poles apart and alive: the order is the true one and the poles are the poles."""
    rng = np.random.default_rng(seed)
    angle = np.linspace(0.2, 2.9, states) + rng.uniform(-0.1, 0.1, states)
    a = rng.uniform(0.85, 0.97, states) * np.exp(1j * angle)
    c = rng.uniform(0.5, 2, (1, 1, states)) * np.exp(2j * np.pi * rng.random((1, 1, states)))
    system = StateSpace(a[None], np.ones((1, states, 1)), c, np.zeros((1, 1, 1)), halved=True)
    found = identify(kernel(system, 128)[:, 0, 0], tolerance=1e-9)
    assert found.system is not None and found.order.tolist() == [2 * states]
    np.testing.assert_allclose(np.sort_complex(found.system.A[0]), np.sort_complex(a), atol=1e-6)
    assert found.system.D.item() == 0
    longer = kernel(found.system, 400) - kernel(system, 400)  # beyond what was given
    assert np.abs(longer).max() < 1e-6 * np.abs(kernel(system, 128)).max()


@given(seeds, st.sampled_from(["noise", "growing", "delay", "chirp", "step", "sparse"]), st.integers(4, 90))
@settings(max_examples=60, deadline=None)
def test_any_kernel_gets_a_stable_answer_or_none(seed: int, kind: str, length: int) -> None:
    rng = np.random.default_rng(seed)
    k = np.arange(length)
    taps = {
        "noise": rng.standard_normal((2, length)),
        "growing": np.exp(0.1 * rng.random((2, 1)) * k),
        "delay": np.eye(length)[rng.integers(0, length, 2)],
        "chirp": np.sin(rng.random((2, 1)) * k**2),
        "step": 1.0 * (k < rng.integers(1, length, (2, 1))),
        "sparse": rng.standard_normal((2, length)) * (rng.random((2, length)) < 0.1),
    }[kind]
    found = identify(taps)
    assert np.abs(poles(found.candidate)).max() < 1
    missed = np.abs(kernel(found.candidate, length)[:, 0, 0] - taps).max(axis=1)
    scale = np.abs(taps).max(axis=1)
    np.testing.assert_array_equal(found.met, (missed <= 1e-6 * scale) & (2 * found.order < length))
    assert found.ok == found.met.all() == (found.system is not None)


def test_constant_and_empty_kernels_are_short() -> None:
    found = identify(np.stack([np.full(64, 3.0), np.zeros(64), np.eye(64)[0], 0.5 ** np.arange(64)]))
    assert found.order.tolist() == [1, 0, 0, 1]
    assert found.system is not None and not found.system.is_complex
    np.testing.assert_allclose(found.system.D.ravel(), [0, 0, 1, 0], atol=1e-6)


def test_a_full_rank_kernel_is_refused_and_says_how_near_it_came() -> None:
    found = identify(np.random.default_rng(0).standard_normal((1, 64)))
    assert not found.ok and found.system is None and found.residual[0] > 1e-3
    mixed = identify(np.stack([0.9 ** np.arange(64), np.random.default_rng(0).standard_normal(64)]))
    assert mixed.met.tolist() == [True, False] and mixed.system is None


def test_the_order_asked_for_is_kept() -> None:
    taps = kernel(s4d(0, 2, 16, (1e-3, 1e-1), "lin"), 512)[:, 0, 0]
    found = identify(taps, tolerance=1e-2, max_order=12)
    assert (found.order <= 12)[found.met].all()
    assert (identify(taps, tolerance=1e-2).order <= identify(taps).order).all()


@pytest.mark.parametrize("shape", [(2, 2, 4, 64), (3, 2, 6, 128), (1, 4, 8, 256), (4, 1, 3, 40), (2, 3, 4, 2048)])
def test_many_in_many_out_share_their_states(shape: tuple[int, int, int, int]) -> None:
    high, wide, states, length = shape
    rng = np.random.default_rng(1)
    step = 3.0 / length
    a = np.exp(step * (-rng.uniform(0.5, 3, (1, states)) + 1j * np.pi * np.arange(states)))
    c = rng.standard_normal((1, high, states)) + 1j * rng.standard_normal((1, high, states))
    system = StateSpace(a, rng.standard_normal((1, states, wide)), c, rng.standard_normal((1, high, wide)), halved=True)
    taps = kernel(system, length)[0].astype(np.float32).astype(np.float64)
    found = identify(taps)
    assert found.system is not None and found.system.groups == 1
    np.testing.assert_allclose(kernel(found.system, length)[0], taps, atol=1e-6 * np.abs(taps).max())
    assert found.order[0] <= 2 * states and np.abs(poles(found.system)).max() < 1


@given(seeds, st.booleans())
@settings(max_examples=30, deadline=None)
def test_residues_over_given_poles_are_exact(seed: int, complex_: bool) -> None:
    system = random_system(
        seed, dense=False, complex_=complex_, halved=True, read_before=False, radius=0.95, sizes=(3, 3, 1, 1)
    )
    taps = kernel(system, 60)[:, 0, 0]
    fitted = fit_residues(system.A, taps)
    assert fitted.halved == complex_
    np.testing.assert_allclose(kernel(fitted, 60)[:, 0, 0], taps, atol=1e-9 * max(1, np.abs(taps).max()))
    worse = fit_residues(system.A * 0.9, taps)
    gap = kernel(worse, 60)[:, 0, 0] - taps
    assert np.abs(gap[:, 0]).max() < 1e-9  # the first tap is the direct term's
    nudged = kernel(StateSpace(worse.A, worse.B, worse.C * 1.01, worse.D, halved=worse.halved), 60)[:, 0, 0] - taps
    assert ((nudged[:, 1:] ** 2).sum(axis=1) >= (gap[:, 1:] ** 2).sum(axis=1) * (1 - 1e-9)).all()


def test_it_is_fast_enough_to_be_a_compile_step() -> None:
    for seconds, taps in [
        (2.0, kernel(s4d(0, 64, 4, (1e-3, 1e-1), "lin"), 64)[:, 0, 0]),
        (3.0, kernel(s4d(0, 1, 16, (1e-3, 1e-2), "lin"), 16384)[:, 0, 0]),
        (2.0, kernel(s4d(0, 24, 32, (1e-3, 1e-1), "lin"), 16384)[:, 0, 0].astype(np.float32)),
    ]:
        start = time.process_time()
        assert identify(taps).ok
        assert time.process_time() - start < 3 * seconds  # room for slow machines
    start = time.process_time()
    assert not identify(np.random.default_rng(0).standard_normal((4, 16384))).ok
    assert time.process_time() - start < 3


def test_refusals() -> None:
    for bad in (np.zeros(3), np.zeros((2, 3)), np.zeros((2, 2, 2, 9)), np.zeros((1, 9), complex), np.zeros((0, 9))):
        with pytest.raises(StateSpaceError, match="kernel: expected real"):
            identify(bad)
    with pytest.raises(StateSpaceError, match=r"not finite at index \(0, 2\)"):
        identify(np.array([[1.0, 2.0, np.nan, 0.0]]))
    with pytest.raises(StateSpaceError, match="poles, kernel"):
        fit_residues(np.zeros(3), np.zeros((1, 9)))


@given(seeds, st.sampled_from([3001, 4096, 9000]), st.booleans())
@settings(max_examples=12, deadline=None)
def test_long_kernels_are_bounded_in_what_they_miss(seed: int, length: int, rounded: bool) -> None:
    """Every n-th tap and a sample of them tell the poles; the bound holds on the input that makes the error largest."""
    rng = np.random.default_rng(seed)
    states = int(rng.integers(1, 17))
    system = s4d(seed, 1, states, (3 / length, 1e-1), str(rng.choice(["lin", "inv", "real"])))
    taps = kernel(system, length)[0, 0]
    taps = taps.astype(np.float32).astype(np.float64) if rounded else taps
    found = identify(taps)
    assert found.ok and found.system is not None and found.order[0] <= 2 * states + 6
    assert np.abs(poles(found.system)).max() < 1
    missed = (taps - kernel(found.system, length)[0, 0])[0]
    u = np.sign(missed[::-1])
    y = np.convolve(taps[0], u)[:length]
    error = np.abs(simulate(found.system, u[None, :, None])[0][0, :, 0] - y)
    assert error[-1] >= 0.999 * found.l1_error[0] - 1e-9 * np.abs(taps).sum()
    assert error.max() <= found.l1_error[0] + 1e-9 * np.abs(taps).sum()


def test_fewer_states_than_the_hankel_matrix_needs_are_not_tried() -> None:
    """Noise all over a long kernel: its singular values together are more than the tolerance leaves."""
    rng = np.random.default_rng(0)
    taps = 0.999 ** np.arange(4096) * (1 + 1e-4 * rng.standard_normal(4096))
    found = identify(taps)
    assert not found.ok and found.order[0] == 0


@given(seeds, st.integers(1, 3), st.booleans(), st.booleans())
@settings(max_examples=25, deadline=None)
def test_poles_that_coincide_are_realised_with_their_multiplicity(
    seed: int, multiple: int, turning: bool, rounded: bool
) -> None:
    rng = np.random.default_rng(seed)
    k = np.arange(300)
    decay, angle = rng.uniform(0.85, 0.97), rng.uniform(0.3, 2.5) if turning else 0.0
    taps = (k / 10) ** (multiple - 1) * decay**k * np.cos(angle * k + 0.3)
    taps = taps.astype(np.float32).astype(np.float64) if rounded else taps
    found = realize(taps)
    assert found is not None and found.states == multiple * (2 if turning else 1)
    assert np.abs(np.linalg.eigvals(found.A)).max() < 1
    assert np.abs(kernel(found, 300)[0, 0, 0] - taps).max() <= 1e-6 * np.abs(taps).max()
    assert realize(taps, below=found.states) is None
    u = rng.standard_normal(300)
    y = simulate(found, u[None, :, None])[0][0, :, 0]
    np.testing.assert_allclose(y, np.convolve(taps, u)[:300], atol=1e-5 * np.abs(taps).sum())


def test_what_needs_many_states_is_not_realised() -> None:
    rng = np.random.default_rng(0)
    assert realize(rng.standard_normal(200)) is None and realize(np.zeros(64)) is None and realize(np.ones(4)) is None
    assert realize(np.where(np.arange(64) < 7, 0.8 ** np.arange(64), 0.0)) is None  # six states for seven taps
    one, two = realize(0.9 ** np.arange(64)), realize(np.arange(64) * 0.9 ** np.arange(64))
    assert one is not None and two is not None
    both = side_by_side([one, two])
    assert both.groups == 2 and both.states == 2
    np.testing.assert_allclose(kernel(both, 64)[0, 0, 0], 0.9 ** np.arange(64), atol=1e-6)
