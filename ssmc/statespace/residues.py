"""Sums of damped exponentials fitted to one kernel: amplitudes by least squares, poles by Gauss-Newton.

A pole with a positive imaginary part stands for itself and its conjugate: `h_k = 2 Re sum_n c_n a_n^k`, k >= 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ssmc.statespace.response import log_magnitude, powers
from ssmc.statespace.system import Array, Real, StateSpace, StateSpaceError
from ssmc.statespace.waves import Steps, Waves, consecutive

FASTEST = 6.0  # ours: a pole of e^-6 is gone after one tap; a faster one would only need a larger residue
NORMAL = 1e-7  # restraint^2 is then some 50 times the rounding of float64
_ROUNDS = 3  # of refinement
_PATIENCE = 3  # ours: rounds of Gauss-Newton before its pace is judged
_DAMPED = 1e-12  # the least damping of a Gauss-Newton step


@dataclass(frozen=True, eq=False)
class ModalFit:
    """Poles and residues of one kernel, and what they miss of it after the first tap."""

    poles: Array  # (P,) complex, imaginary part >= 0
    residues: Array  # (P,) complex; real where the pole is
    missed: Real  # (L - 1,) h_k - fit, k >= 1

    @property
    def worst(self) -> float:
        return float(np.abs(self.missed).max(initial=0.0))

    @property
    def order(self) -> int:
        return count_states(self.poles)


def count_states(poles: Array) -> int:
    """Real states needed: two for each complex pole, which stands for a pair."""
    return int(np.where(poles.imag != 0, 2, 1).sum())


def fit_residues(poles: ArrayLike, kernel: ArrayLike) -> StateSpace:
    """The system with these poles whose kernel is closest to the given one, in least squares.

    `poles` (G, N): a real pole is itself, a complex one also its conjugate; |pole| < 1 is not required. `kernel`
    (G, L) real: G groups of one input and one output. The residues fit taps 1 to L-1, with B = 1; `D` makes tap 0
    exact. The system is halved if a pole is complex, else real. Raises StateSpaceError for other shapes.
    """
    a, h = np.asarray(poles), np.asarray(kernel, dtype=np.float64)
    if a.ndim != 2 or h.ndim != 2 or a.shape[0] != h.shape[0] or h.shape[1] < 2:
        raise StateSpaceError(f"poles, kernel: expected (G, N) and (G, L >= 2), got {a.shape} and {h.shape}")
    fits = [least_squares(p.real + 1j * np.abs(p.imag), taps[1:]) for p, taps in zip(a, h, strict=True)]
    return assemble(fits, h[:, 0])


def assemble(fits: list[ModalFit], first: Real, negligible: float = 0.0) -> StateSpace:
    """One system of G fits, padded with silent states; `first` (G,) are the kernels' first taps.

    A direct term that is not above `negligible` is left out.
    """
    width = max(1, max(len(fit.poles) for fit in fits))
    a = np.stack([np.pad(fit.poles, (0, width - len(fit.poles))) for fit in fits])
    c = np.stack([np.pad(fit.residues, (0, width - len(fit.poles))) for fit in fits])
    b = np.stack([np.arange(width) < len(fit.poles) for fit in fits]).astype(float)
    direct = first - 2 * (c * b).sum(axis=1).real
    direct = np.where(np.abs(direct) <= negligible, 0.0, direct)[:, None, None]
    if (a.imag == 0).all():
        return StateSpace(a.real, b[:, :, None], 2 * c.real[:, None, :], direct)
    return StateSpace(a, b[:, :, None], c[:, None, :], direct, halved=True)


def least_squares(poles: Array, taps: Real, at: Array | Steps | None = None, restraint: float = 0.0) -> ModalFit:
    """The residues that bring `2 Re sum_n c_n a_n^k` closest to `taps` at the steps k, 1..L-1 unless given.

    `restraint` > 0 adds `restraint^2 ||c||^2`, c in units of a mode of unit energy: it keeps nearly equal poles
    from getting huge residues of opposite sign, which only float64 could add up again.
    """
    if not len(poles):
        return ModalFit(np.zeros(0, complex), np.zeros(0, complex), taps)
    if restraint >= NORMAL and count_states(poles) < len(taps) and not isinstance(at, np.ndarray):
        fit = _restrained(poles, taps, consecutive(len(taps)) if at is None else at, restraint)
        if fit is not None:
            return fit
    rows, size = _waves(poles, np.arange(1, len(taps) + 1) if at is None else at)
    if restraint:
        damped = np.concatenate([rows.T, restraint * np.eye(len(rows))])
        amplitude = np.asarray(np.linalg.lstsq(damped, np.pad(taps, (0, len(rows))), rcond=None)[0])
    else:
        amplitude = np.asarray(np.linalg.lstsq(rows.T, taps, rcond=1e-13)[0])
    return ModalFit(poles, _complex(amplitude / size, poles), taps - amplitude @ rows)


def _complex(amplitude: Real, poles: Array) -> Array:
    """Residues (P,) of the amplitudes of waves' real parts, then of the imaginary ones of complex poles."""
    residues = amplitude[: len(poles)].astype(complex)
    residues[poles.imag != 0] += 1j * amplitude[len(poles) :]
    return residues


def _restrained(poles: Array, taps: Real, at: Steps, restraint: float) -> ModalFit | None:
    """The fit by normal equations; None where they cannot be solved.

    The restraint keeps them solvable where it is well above the square root of their rounding; what forming them lost,
    refinement wins back (Bjorck, Numerical Methods for Least Squares Problems, 1996, section 6.6).
    """
    from scipy.linalg import cho_factor, cho_solve

    waves = Waves(poles, at)
    gram = waves.gram()
    size = np.sqrt(np.diag(gram)[: len(poles)] + np.bincount(waves.turning, np.diag(gram)[len(poles) :], len(poles)))
    size = np.where(size > 0, size, 1.0)
    size = np.concatenate([size, size[waves.turning]])
    try:
        damped = gram / (size[:, None] * size) + restraint**2 * np.eye(len(size))
        factor = cho_factor(damped, check_finite=False)
    except np.linalg.LinAlgError:
        return None
    x, missed = np.zeros(len(size)), taps
    for _ in range(_ROUNDS):
        x = x + cho_solve(factor, waves.onto(missed) / size - restraint**2 * x, check_finite=False)
        missed = taps - waves.sum(x / size)
    return ModalFit(poles, _complex(x / size, poles), missed)


def _waves(poles: Array, steps: Array | Steps) -> tuple[Real, Real]:
    """`2 Re a^k`, then `-2 Im a^k` of the complex poles, each over the length of `2 |a|^k`; and those lengths."""
    turning = poles.imag != 0
    waves = 2 * _powers(poles.astype(complex), steps)
    size = np.linalg.norm(waves, axis=1)
    size = np.where(size > 0, size, 1.0)
    waves /= size[:, None]
    return np.concatenate([waves.real, -waves.imag[turning]]), np.concatenate([size, size[turning]])


def _powers(a: Array, steps: Array | Steps) -> Array:
    if isinstance(steps, Steps):
        parts = [powers(a, grid.far)[:, :, None] * powers(a, grid.near)[:, None, :] for grid in steps.grids]
        return np.concatenate([part.reshape(len(a), -1) for part in parts], axis=1)
    return powers(a, steps)


def refine(
    fit: ModalFit, taps: Real, at: Array | Steps, goal: float, slowest: float, restraint: float = 0.0, rounds: int = 14
) -> ModalFit:
    """Move the poles too, by Gauss-Newton with the residues projected out, until the worst tap is below `goal`.

    Variable projection (Golub and Pereyra 1973) in Kaufman's form (BIT 15, 1975), on the taps at steps `at`. The
    unknowns are the logarithm of each decay, so that a pole stays inside the circle, no slower than `slowest` per
    step, and the angle of each complex pole. Steps are damped (Levenberg-Marquardt) and kept only if they help; it
    gives up when they stop to, or help too little to get there in so many `rounds`.
    """
    damping = 1e-3
    for done in range(rounds):
        before = float(np.linalg.norm(fit.missed))
        if fit.worst <= goal or not len(fit.poles):
            return fit
        decay = np.clip(-log_magnitude(fit.poles), slowest, FASTEST)
        gram, gradient = _slopes(fit, decay, at, restraint)
        size = np.sqrt(np.maximum(np.diag(gram), 0))
        size = np.where(size > 0, size, 1.0)
        values, turn = np.linalg.eigh(gram / (size[:, None] * size))  # damped far above what squaring loses
        aim = turn.T @ (gradient / size)
        for _ in range(5):
            step = turn @ (aim / (np.maximum(values, 0) + damping)) / size
            poles = _moved(fit.poles, decay, step, slowest)
            trial = least_squares(poles, taps, at, restraint)
            after = float(np.linalg.norm(trial.missed))
            if after < before:
                break
            damping *= 10
        else:
            return fit
        fit, damping = trial, max(damping / 5, _DAMPED)
        slow = done >= _PATIENCE and fit.worst * (after / before) ** (rounds - 1 - done) > goal
        if slow or after > 0.97 * before:
            return fit
    return fit


def _slopes(fit: ModalFit, decay: Real, at: Array | Steps, restraint: float) -> tuple[Real, Real]:
    """How the fit moves with the logarithm of each decay, then with each angle, residues projected out.

    The inner products of these movements, and those with what the fit misses.
    """
    turning = fit.poles.imag != 0
    factors = np.concatenate([-decay * fit.residues, 1j * fit.residues[turning]])
    if isinstance(at, Steps) and restraint >= NORMAL:
        from scipy.linalg import LinAlgError, cho_factor, cho_solve

        waves = Waves(fit.poles, at)
        gram, (cross, squares) = waves.gram(), waves.moved(factors)
        size = np.sqrt(np.maximum(np.diag(gram), 1e-300))
        try:
            factor = cho_factor(gram / (size[:, None] * size) + restraint**2 * np.eye(len(size)), check_finite=False)
        except LinAlgError:
            pass
        else:
            along = (cross / size).T  # of each wave, of each movement
            held = cho_solve(factor, along, check_finite=False)
            toward = waves.moved_onto(fit.missed, factors) - held.T @ (waves.onto(fit.missed) / size)
            return squares - along.T @ held, toward
    steps = at.all if isinstance(at, Steps) else at
    waves_ = steps[:, None] * (2 * _powers(fit.poles, at).T)
    moves = np.concatenate([waves_, waves_[:, turning]], axis=1) * factors
    basis, _ = np.linalg.qr(_waves(fit.poles, at)[0].T)
    slope = moves.real - basis @ (basis.T @ moves.real)
    return slope.T @ slope, slope.T @ fit.missed


def _moved(poles: Array, decay: Real, step: Real, slowest: float) -> Array:
    turning = poles.imag != 0
    moved = np.clip(decay * np.exp(np.clip(step[: len(decay)], -2, 2)), slowest, FASTEST)
    angle = np.angle(poles)
    angle[turning] = np.clip(angle[turning] + step[len(decay) :], 1e-12, np.pi - 1e-12)
    return np.where(turning, np.exp(-moved + 1j * angle), np.sign(poles.real) * np.exp(-moved))
