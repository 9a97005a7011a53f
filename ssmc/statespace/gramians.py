"""Gramians of discrete systems, and the H2 norm they give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ssmc.statespace.conjugates import unhalve
from ssmc.statespace.response import log_magnitude, poles, powers
from ssmc.statespace.system import Array, Real, StateSpace, StateSpaceError, dense_matrix, require_discrete


def controllability_gramian(system: StateSpace, length: int | None = None) -> Array:
    """`W = sum_k Abar^k B B* Abar*^k` (G, N, N), the solution of `W = Abar W Abar* + B B*`.

    Over the first `length` terms, or all. These are the Gramians of the states as stored; for those of a halved
    system's real form, take `to_real` or `unhalve` first. Raises StateSpaceError unless discrete, and stable if the
    sum is infinite.
    """
    require_discrete(system, "controllability_gramian")
    return cross_gramian(system, system, length)


def observability_gramian(system: StateSpace, length: int | None = None) -> Array:
    """`W = sum_k Abar*^k C* C Abar^k` (G, N, N), likewise."""
    require_discrete(system, "observability_gramian")
    dual = _dual(system)
    return cross_gramian(dual, dual, length)


def cross_gramian(left: StateSpace, right: StateSpace, length: int | None = None) -> Array:
    """`X = sum_k A^k B B'* A'*^k` (G, N, N'), `left` being A, B and `right` A', B'; first `length` terms or all.

    Diagonal: `X_nm = (B B'*)_nm (1 - z^length)/(1 - z)` with `z = a_n conj(a'_m)`.
    """
    if length is None:
        for system in (left, right):
            require_stable(system, "gramian")
    driven = left.B @ right.B.conj().swapaxes(1, 2)
    if left.diagonal and right.diagonal:
        return driven * geometric_sum(left.A[:, :, None] * right.A[:, None, :].conj(), length)
    a, other = dense_matrix(left), dense_matrix(right)
    if length is not None:
        return _partial_sum(a, driven, other, length)
    from scipy.linalg import solve_discrete_lyapunov

    # One Lyapunov equation of both systems together; the corner is the cross term.
    states = a.shape[1]
    sums = []
    for g in range(left.groups):
        joint: Array = np.zeros((states + other.shape[1],) * 2, np.result_type(a, other))
        joint[:states, :states], joint[states:, states:] = a[g], other[g]
        b = np.concatenate([left.B[g], right.B[g]])
        sums.append(solve_discrete_lyapunov(joint, b @ b.conj().T)[:states, states:])
    return np.stack(sums)


def h2_norm(system: StateSpace, length: int | None = None) -> Real:
    """`sqrt(sum_k ||h_k||_F^2)` (G,): the response's energy; of the first `length` taps if given.

    With white input of unit variance it is the root mean square of a group's outputs together. Raises
    StateSpaceError unless the system is discrete and (for the infinite sum) stable.
    """
    require_discrete(system, "h2_norm")
    plain = unhalve(system)
    if length is not None and length < 1:
        raise StateSpaceError(f"length: expected at least 1, got {length}")
    first = plain.D
    if plain.read_before:
        rest, taps = plain, length
    else:  # h_0 = D + C B; what follows is that of the system started at A B
        first = first + plain.C @ plain.B
        moved = plain.A[:, :, None] * plain.B if plain.diagonal else plain.A @ plain.B
        rest, taps = replace(plain, B=moved), length
    tail = energy(rest, None if taps is None else taps - 1)
    return np.asarray(np.sqrt((np.abs(first) ** 2).sum(axis=(1, 2)) + np.maximum(tail, 0)))


def energy(plain: StateSpace, length: int | None = None) -> Real:
    """`sum_k ||C Abar^k B||_F^2` (G,), D left out; `plain` as `unhalve` returns it."""
    if length == 0:
        return np.zeros(plain.groups)
    gramian = cross_gramian(plain, plain, length)
    return np.asarray(np.einsum("gon,gnm,gom->g", plain.C, gramian, plain.C.conj(), optimize=True).real)


def require_stable(system: StateSpace, what: str) -> None:
    """Raise StateSpaceError unless every |Abar| < 1."""
    radius = np.abs(poles(system)).max(axis=1, initial=0.0)
    worst = int(radius.argmax())
    if radius[worst] >= 1:
        raise StateSpaceError(f"{what}: the system is not stable: |Abar| = {radius[worst]:.9g} in group {worst}")


def _dual(system: StateSpace) -> StateSpace:
    a = system.A if system.diagonal else system.A.swapaxes(1, 2)
    b, c, d = (array.conj().swapaxes(1, 2) for array in (system.C, system.B, system.D))
    return replace(system, A=a.conj(), B=b, C=c, D=d.real if system.real_output else d, x0=None)


def geometric_sum(z: Array, length: int | None) -> Array:
    """`1 + z + ... + z^(length-1)`, or of all powers."""
    one = z == 1
    below = np.where(one, 1.0, 1 - z)
    if length is None:
        return np.asarray(1 / below)
    # 1 - z^L through expm1, so that slow decays lose no digits.
    log_z: Array = log_magnitude(z) * length
    if np.iscomplexobj(z):
        log_z = log_z + 1j * np.angle(z) * length
        return np.asarray(np.where(one, length, -_expm1(log_z) / below))
    top = np.where(z < 0, 1 - powers(z, np.array([length]))[..., 0], -np.expm1(log_z))
    return np.asarray(np.where(one, length, top / below))


def _expm1(z: Array) -> Array:
    """`e^z - 1`, and -1 at real part -inf whatever the angle."""
    gone = np.isneginf(z.real)
    return np.where(gone, -1.0, np.expm1(np.where(gone, 0, z)))


def _partial_sum(a: Array, driven: Array, other: Array, length: int) -> Array:
    """`sum_{k<length} a^k driven other*^k` by doubling along the bits of length."""
    total: Array = np.zeros_like(driven)
    left: Array = np.eye(a.shape[1])
    right: Array = np.eye(other.shape[1])
    for bit in bin(length)[2:]:
        # From n terms to 2n, then to 2n + 1.
        total = total + left @ total @ right.conj().swapaxes(-1, -2)
        left, right = left @ left, right @ right
        if bit == "1":
            total = driven + a @ total @ other.conj().swapaxes(-1, -2)
            left, right = left @ a, right @ other
    return total
