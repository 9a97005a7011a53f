"""Changes of basis: outputs stay, states map back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.statespace import StateSpace, diagonalize, discretize, halve, simulate, to_real, unhalve

from .strategies import random_system, seeds, systems


def run(system: StateSpace, seed: int, x0: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    u = np.random.default_rng(seed).standard_normal((2, 9, system.inputs))
    return simulate(system, u, x0)


@given(systems(dense=True), seeds)
@settings(max_examples=60, deadline=None)
def test_diagonalize_keeps_outputs_and_maps_states(system: StateSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x0 = rng.standard_normal((system.groups, system.states))
    diagonal, basis = diagonalize(replace(system, x0=x0))
    assert diagonal.diagonal == basis.diagonal
    y, last = run(replace(system, x0=x0), seed)
    new, new_last = run(diagonal, seed)
    np.testing.assert_allclose(new, y, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(basis.to_old(new_last), last, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(basis.to_new(last), new_last, rtol=1e-7, atol=1e-7)


@given(seeds, st.booleans())
@settings(max_examples=40, deadline=None)
def test_real_matrices_give_exact_pairs_that_halve(seed: int, read_before: bool) -> None:
    system = random_system(seed, dense=True, complex_=False, read_before=read_before, sizes=(2, 5, 2, 2))
    diagonal, basis = diagonalize(system)
    if not basis.diagonal:
        return
    short, halving = halve(diagonal)
    pairs = int((diagonal.A.imag > 0).sum(axis=1).min())
    assert short.states == system.states - pairs
    assert bool(halving.reason) == (pairs == 0)
    np.testing.assert_allclose(run(short, seed)[0], run(system, seed)[0], rtol=1e-8, atol=1e-8)
    if short.halved:
        whole = halving.to_old(run(short, seed)[1], system.states)
        np.testing.assert_allclose(whole, run(diagonal, seed)[1], rtol=1e-8, atol=1e-8)


def test_steps_per_state_are_folded_before_a_change_of_basis() -> None:
    rng = np.random.default_rng(8)
    a = rng.standard_normal((2, 3, 3)) - 2 * np.eye(3)
    b, c, d = rng.standard_normal((2, 3, 1)), rng.standard_normal((2, 1, 3)), np.zeros((2, 1, 1))
    for shape in [(1, 1), (2, 1), (2, 3)]:
        system = StateSpace(a, b, c, d, rng.uniform(0.1, 0.4, shape))
        diagonal, basis = diagonalize(system)
        assert basis.diagonal
        want, _ = run(discretize(system, "zoh"), 1)
        np.testing.assert_allclose(run(discretize(diagonal, "zoh"), 1)[0], want, atol=1e-11)
        u, dt = rng.standard_normal((1, 6, 2)), rng.exponential(1.0, 6)
        events = discretize(system, "async")
        moved, _ = diagonalize(events)
        np.testing.assert_allclose(simulate(moved, u, dt=dt)[0], simulate(events, u, dt=dt)[0], atol=1e-11)


def test_defective_matrix_falls_back_to_a_real_form_and_says_so() -> None:
    jordan = np.array([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [0.0, 0.0, 0.5]])
    turn = 0.9 * np.array([[0.1, -1.0, 0.3], [1.0, 0.1, 0.0], [0.0, 0.0, 0.5]])
    basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))
    a = np.stack([basis @ jordan @ basis.T, turn])
    system = StateSpace(a, np.ones((2, 3, 1)), np.ones((2, 1, 3)), np.zeros((2, 1, 1)))
    form, report = diagonalize(system)
    assert not report.diagonal and not form.diagonal and not form.is_complex
    assert "condition" in report.reasons[0] or "defective" in report.reasons[0]
    assert report.reasons[1] == ""
    assert report.residual.max() < 1e-12
    np.testing.assert_allclose(run(form, 0)[0], run(system, 0)[0], atol=1e-11)
    np.testing.assert_allclose(form.A[1][np.abs(form.A[1]) < 1e-12], 0)  # 2 x 2 blocks, not just any matrix
    assert (np.abs(form.A[1]) > 1e-12).sum() == 5


def test_hippo_is_refused_and_its_normal_part_is_taken() -> None:
    n = np.arange(24)
    legs = -np.where(n[:, None] > n, np.sqrt(2 * n[:, None] + 1) * np.sqrt(2 * n + 1), np.diag(n + 1))
    rank_one = np.sqrt(n + 0.5)
    normal = legs + np.outer(rank_one, rank_one)
    b, c, d = np.ones((1, 24, 1)), np.ones((1, 1, 24)), np.zeros((1, 1, 1))
    _, report = diagonalize(StateSpace(legs[None], b, c, d, np.array(0.01)))
    assert not report.diagonal and report.condition[0] > 1e6
    diagonal, report = diagonalize(StateSpace(normal[None], b, c, d, np.array(0.01)))
    assert report.diagonal and report.condition[0] < 10
    np.testing.assert_allclose(diagonal.A.real, -0.5, atol=1e-10)
    assert halve(diagonal)[0].states == 12


@given(systems(dense=False, complex_=True), seeds)
@settings(max_examples=40, deadline=None)
def test_whole_and_real_forms_have_the_same_outputs(system: StateSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (system.groups, system.states)
    system = replace(system, x0=rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    y, _ = run(system, seed)
    whole, real = unhalve(system), to_real(system)
    assert not whole.halved and not real.is_complex
    plain = replace(whole, real_output=False)
    np.testing.assert_allclose(run(plain, seed)[0].imag, 0, atol=1e-10)
    for form in (whole, plain, real):
        np.testing.assert_allclose(run(form, seed)[0].real, y, rtol=1e-10, atol=1e-10)


@given(systems(dense=False, complex_=True, halved=True), seeds)
@settings(max_examples=40, deadline=None)
def test_halve_undoes_unhalve_in_any_order_and_scale(system: StateSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = unhalve(system)
    order = np.argsort(rng.random(whole.A.shape), axis=1)
    scale = rng.standard_normal(whole.A.shape) + 1j * rng.standard_normal(whole.A.shape)
    shuffled = replace(
        whole,
        A=np.take_along_axis(whole.A, order, 1),
        B=np.take_along_axis(whole.B * scale[:, :, None], order[:, :, None], 1),
        C=np.take_along_axis(whole.C / scale[:, None, :], order[:, None, :], 2),
    )
    short, halving = halve(shuffled, 1e-9)
    assert halving.reason == "" and short.states == system.states
    np.testing.assert_allclose(run(short, seed)[0], run(system, seed)[0], rtol=1e-8, atol=1e-8)


def test_halve_leaves_what_it_cannot_halve() -> None:
    real = random_system(0, dense=False, complex_=False)
    dense = random_system(0, dense=True)
    lone = random_system(0, dense=False, complex_=True, halved=False)
    for system, reason in [(real, "real"), (dense, "dense"), (lone, "pairs"), (unhalve(lone), "")]:
        out, report = halve(system)
        assert reason in report.reason
        assert (out is system) == bool(report.reason)
    complex_output = replace(unhalve(lone), real_output=False)
    assert "complex" in halve(complex_output)[1].reason


def test_groups_with_different_numbers_of_pairs_are_padded() -> None:
    a = np.array([[0.5 + 0.1j, 0.5 - 0.1j, 0.3], [0.2 + 0.7j, 0.2 - 0.7j, 0.1j]])
    a[1, 2] = 0.9
    b = np.array([[1 + 1j, 1 - 1j, 2], [1j, -1j, 1]])[:, :, None]
    c = np.array([[2j, -2j, 1], [1 + 1j, 1 - 1j, 3]])[:, None, :]
    mixed = StateSpace(
        np.concatenate([a, a.conj()], axis=1)[:, :4], np.concatenate([b, b], axis=1)[:, :4],
        np.concatenate([c, c], axis=2)[:, :, :4], np.zeros((2, 1, 1)),
    )  # fmt: skip
    short, report = halve(mixed)
    assert short.states == 3 and (report.kept[:, -1] >= -1).all()
    np.testing.assert_allclose(run(short, 2)[0], run(mixed, 2)[0], atol=1e-12)
