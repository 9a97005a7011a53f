"""Diagonalisation, with the condition of the change of basis in view."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ssmc.statespace.system import Array, Real, StateSpace, rates


@dataclass(frozen=True, eq=False)
class ChangeOfBasis:
    """`x = T x'`, per group, and how well it is conditioned."""

    T: Array  # (G, N, N)
    inverse: Array  # (G, N, N)
    condition: Real  # (G,) 2-norm condition of T, columns of unit length
    residual: Real  # (G,) max |T A' T^-1 - A| / max |A|
    reasons: tuple[str, ...]  # (G,) why a group could not be made diagonal; empty where it could

    @property
    def diagonal(self) -> bool:
        """Whether every group became diagonal."""
        return not any(self.reasons)

    def to_new(self, x: Array) -> Array:
        """States (..., G, N) of the old basis in the new one."""
        return np.asarray(np.einsum("gnm,...gm->...gn", self.inverse, x))

    def to_old(self, x: Array) -> Array:
        """States (..., G, N) of the new basis in the old one."""
        return np.asarray(np.einsum("gnm,...gm->...gn", self.T, x))


def diagonalize(
    system: StateSpace, max_condition: float = 1e6, tolerance: float = 1e-9
) -> tuple[StateSpace, ChangeOfBasis]:
    """Dense `A = T Lambda T^-1`; the system in the basis `x = T x'`: `Lambda, T^-1 B, C T`.

    A group whose eigenvectors are worse conditioned than `max_condition` (a defective A has none at all; the
    HiPPO matrices have them at 2^(4N/3), S4, arXiv 2111.00396, lemma 3.2), or whose reconstruction misses A by
    more than `tolerance`, is not diagonalised: it goes to Schur form (orthogonal T, A' quasi-triangular and
    real if A is), the others of the system to diagonal or, if real, 2 x 2 block form, and the whole stays dense.
    The report says why. A step per state is folded into A (and B) first.
    """
    groups, states = system.groups, system.states
    if system.diagonal:
        eye = np.broadcast_to(np.eye(states), (groups, states, states))
        return system, ChangeOfBasis(eye, eye, np.ones(groups), np.zeros(groups), ("",) * groups)
    system = _fold_steps(system)
    bases = [_eigenbasis(a) for a in system.A]
    reasons = []
    condition, residual = np.empty(groups), np.empty(groups)
    for g, (a, (values, basis, inverse)) in enumerate(zip(system.A, bases, strict=True)):
        condition[g], residual[g] = _quality(a, np.diag(values), basis, inverse)
        reasons.append(_objection(condition[g], residual[g], max_condition, tolerance))
    if not any(reasons):
        diagonals, bases_, inverses = (np.stack(part) for part in zip(*bases, strict=True))
    else:
        forms = [
            _schur(a) if reason else _blocks(a, *basis)
            for a, basis, reason in zip(system.A, bases, reasons, strict=True)
        ]
        diagonals, bases_, inverses = (np.stack(part) for part in zip(*forms, strict=True))
        for g, (a, form) in enumerate(zip(system.A, forms, strict=True)):
            _, residual[g] = _quality(a, *form)
    report = ChangeOfBasis(bases_, inverses, condition, residual, tuple(reasons))
    x0 = None if system.x0 is None else report.to_new(system.x0)
    return replace(system, A=diagonals, B=inverses @ system.B, C=system.C @ bases_, x0=x0), report


def _fold_steps(system: StateSpace) -> StateSpace:
    """A change of basis mixes states, so a step per state must be part of A before it."""
    if system.delta is None or system.delta.shape[1] == 1:
        return system
    driven = system.B if system.asynchronous else system.B * system.delta[:, :, None]
    return replace(system, A=rates(system), B=driven, delta=np.ones((1, 1)))


def _eigenbasis(a: Array) -> tuple[Array, Array, Array]:
    """Eigenvalues, eigenvectors of unit length and their inverse (NaN if there is none)."""
    if np.array_equal(a, a.conj().T):
        values, vectors = np.linalg.eigh(a)
        return values, vectors, vectors.conj().T
    values, vectors = np.linalg.eig(a)
    try:
        if np.iscomplexobj(a) or not np.iscomplexobj(values):
            return values, vectors, np.linalg.inv(vectors)
        # v c + conj(v) conj(c) = Re(v) 2 Re(c) - Im(v) 2 Im(c): the inverse by real numbers, conjugate rows exact.
        rows = np.linalg.inv(_real_columns(values, vectors)).astype(complex)
    except np.linalg.LinAlgError:
        return values, vectors, np.full(a.shape, np.nan)
    first = np.flatnonzero(values.imag > 0)
    rows[first], rows[first + 1] = (
        (rows[first] - 1j * rows[first + 1]) / 2,
        (rows[first] + 1j * rows[first + 1]) / 2,
    )
    return values, vectors, rows


def _real_columns(values: Array, vectors: Array) -> Array:
    """Re v, Im v in place of each pair v, conj(v), which LAPACK keeps together, positive imaginary part first."""
    columns = vectors.real.copy()
    columns[:, values.imag < 0] = vectors[:, values.imag > 0].imag
    return columns


def _quality(a: Array, form: Array, basis: Array, inverse: Array) -> tuple[float, float]:
    if not np.isfinite(inverse).all():
        return np.inf, np.inf
    scale = np.abs(a).max(initial=0.0) or 1.0
    return float(np.linalg.cond(basis)), float(np.abs(basis @ form @ inverse - a).max() / scale)


def _objection(condition: float, residual: float, max_condition: float, tolerance: float) -> str:
    if not np.isfinite(condition):
        return "A is defective: it has no basis of eigenvectors"
    if condition > max_condition:
        return f"the eigenvectors of A have condition {condition:.1e}, above {max_condition:.1e}"
    if residual > tolerance:
        return f"the eigenvectors of A rebuild it only to {residual:.1e}, not {tolerance:.1e}"
    return ""


def _schur(a: Array) -> tuple[Array, Array, Array]:
    from scipy.linalg import schur

    form, basis = schur(a, output="complex" if np.iscomplexobj(a) else "real")
    return form, basis, basis.conj().T


def _blocks(a: Array, values: Array, vectors: Array, inverse: Array) -> tuple[Array, Array, Array]:
    """An eigenbasis kept dense: real 2 x 2 blocks [[re, im], [-im, re]] if A is real."""
    if np.iscomplexobj(a) or not np.iscomplexobj(values):
        return np.diag(values), vectors, inverse
    columns = _real_columns(values, vectors)
    rows = inverse.real.copy()
    first = np.flatnonzero(values.imag > 0)
    rows[first], rows[first + 1] = 2 * inverse[first].real, -2 * inverse[first].imag
    form = np.diag(values.real)
    form[first, first + 1], form[first + 1, first] = values[first].imag, -values[first].imag
    return form, columns, rows
