from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.statespace.channel import ChannelFits
from ssmc.statespace.hankel import sample
from ssmc.statespace.residues import ModalFit, least_squares
from ssmc.statespace.response import powers
from ssmc.statespace.waves import Steps, Waves, consecutive, sampled

from .strategies import seeds


def random_poles(rng: np.random.Generator, turning: int, real: int) -> np.ndarray:
    angle = np.concatenate([rng.uniform(0.01, 3.1, turning), rng.choice([0.0, np.pi], real)])
    radius = np.exp(-(10.0 ** rng.uniform(-4, 0.5, turning + real)))
    poles = radius * np.exp(1j * angle)
    poles[turning:] = poles[turning:].real
    return np.asarray(poles)


def rows_of(poles: np.ndarray, steps: Steps) -> np.ndarray:
    waves = 2 * powers(poles, steps.all)
    return np.concatenate([waves.real, -waves.imag[poles.imag != 0]])


@given(seeds, st.integers(0, 6), st.integers(0, 3), st.integers(1, 700), st.booleans())
@settings(max_examples=60, deadline=None)
def test_sums_over_waves_are_those_of_the_waves(seed: int, turning: int, real: int, last: int, some: bool) -> None:
    rng = np.random.default_rng(seed)
    poles = random_poles(rng, turning, real + (turning + real == 0))
    steps = sampled(last, 50) if some else consecutive(last)
    if not some:
        assert steps.all.tolist() == list(range(1, last + 1))
    rows, taps = rows_of(poles, steps), rng.standard_normal(len(steps.all))
    waves, amplitude = Waves(poles, steps), rng.standard_normal(len(rows))
    size = np.linalg.norm(rows, axis=1)
    near = 1e-12 * np.maximum(size[:, None] * size, 1e-280)
    assert (np.abs(waves.gram() - rows @ rows.T) <= near).all()
    np.testing.assert_allclose(waves.onto(taps), rows @ taps, rtol=0, atol=1e-12 * size.max() * np.linalg.norm(taps))
    np.testing.assert_allclose(waves.sum(amplitude), amplitude @ rows, rtol=0, atol=1e-11 * np.abs(rows).max())


@given(seeds, st.integers(0, 6), st.integers(1, 3), st.integers(40, 600))
@settings(max_examples=40, deadline=None)
def test_restrained_residues_are_those_of_plain_least_squares(seed: int, turning: int, real: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    poles, taps, restraint = random_poles(rng, turning, real), rng.standard_normal(length), 1e-3
    rows = rows_of(poles, consecutive(length))
    size = np.linalg.norm(2 * powers(poles, np.arange(1, length + 1)), axis=1)
    size = np.concatenate([size, size[poles.imag != 0]])
    damped = np.concatenate([(rows / size[:, None]).T, restraint * np.eye(len(rows))])
    amplitude, *_ = np.linalg.lstsq(damped, np.pad(taps, (0, len(rows))), rcond=None)
    found = least_squares(poles, taps, None, restraint)
    again = rows_of(poles, consecutive(length)).T @ _parts(found)
    np.testing.assert_allclose(found.missed, taps - (amplitude / size) @ rows, atol=1e-9 * float(np.linalg.norm(taps)))
    np.testing.assert_allclose(found.missed, taps - again, atol=1e-9)


def _parts(fit: ModalFit) -> np.ndarray:
    return np.concatenate([fit.residues.real, fit.residues.imag[fit.poles.imag != 0]])


def test_a_sample_sees_all_modes_of_a_kernel_that_is_soon_gone() -> None:
    """Among all taps those that matter are few: rows spread evenly over 16 384 hardly meet them."""
    rng = np.random.default_rng(0)
    k = np.arange(16383)
    for decay in (1e-3, 3e-3, 1e-2):
        poles = np.exp(-decay + 1j * np.pi / 33 * (1 + np.arange(32) + rng.uniform(-0.2, 0.2, 32)))
        taps = np.zeros(len(k))
        for pole, gain in zip(poles, np.exp(2j * np.pi * rng.random(32)), strict=True):
            taps += 2 * (gain * np.exp(k * np.log(pole))).real
        taps /= np.abs(taps).max()
        assert 55 <= sample(taps, 1e-6, 256).least_order(1e-6) <= 64
        found = ChannelFits(taps, 256, 1e-6).rough()
        assert found is not None and found.order == 64


@given(seeds, st.integers(0, 5), st.integers(0, 2), st.integers(30, 400))
@settings(max_examples=30, deadline=None)
def test_how_a_fit_moves_with_its_poles(seed: int, turning: int, real: int, length: int) -> None:
    """Inner products of all movements, residues projected out: those of the movements themselves."""
    rng = np.random.default_rng(seed)
    poles, taps = random_poles(rng, turning, real + (turning + real == 0)), rng.standard_normal(length)
    steps, restraint = consecutive(length), 1e-6
    fit = least_squares(poles, taps, None, restraint)
    rows, complex_ = rows_of(poles, steps), poles.imag != 0
    factors = np.concatenate([rng.uniform(0.5, 2, len(poles)) * fit.residues, 1j * fit.residues[complex_]])
    moves = 2 * powers(poles, steps.all) * steps.all
    moves = (np.concatenate([moves, moves[complex_]]) * factors[:, None]).real
    cross, squares = Waves(poles, steps).moved(factors)
    size, speed = np.linalg.norm(rows, axis=1), np.linalg.norm(moves, axis=1)
    assert (np.abs(squares - moves @ moves.T) <= 1e-11 * np.maximum(speed[:, None] * speed, 1e-280)).all()
    assert (np.abs(cross - moves @ rows.T) <= 1e-11 * np.maximum(speed[:, None] * size, 1e-280)).all()
    onto = Waves(poles, steps).moved_onto(taps, factors)
    np.testing.assert_allclose(onto, moves @ taps, rtol=0, atol=1e-11 * max(1e-280, speed.max()) * length)
