"""Complex systems with real outputs: halved, whole, and written with real numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ssmc.statespace.system import Array, StateSpace, StateSpaceError, dense_matrix


@dataclass(frozen=True, eq=False)
class Halving:
    """Which states a halved system kept, and how the others follow: `x_mirror = scale conj(x_kept)`."""

    kept: NDArray[np.int64]  # (G, N') index of the old state, -1 where a group is padded
    mirror: NDArray[np.int64]  # (G, N') index of the state left out, -1 if none
    scale: Array  # (G, N')
    reason: str  # why nothing was done; empty if the system was halved

    def to_old(self, x: Array, states: int) -> Array:
        """States (..., G, N') of the halved system as the (..., G, N) it had before, N = `states`."""
        whole = np.zeros((*x.shape[:-1], states), np.complex128)
        for g, (kept, mirror, scale) in enumerate(zip(self.kept, self.mirror, self.scale, strict=True)):
            real, paired = kept >= 0, mirror >= 0
            whole[..., g, kept[real]] = x[..., g, real]
            whole[..., g, mirror[paired]] = scale[paired] * x[..., g, paired].conj()
        return whole


def halve(system: StateSpace, tolerance: float = 1e-12) -> tuple[StateSpace, Halving]:
    """Keep one state of each conjugate pair and read `2 Re(C x)` (S4D, arXiv 2206.11893, section 2.3).

    States i, j pair up when `A_j = conj(A_i)` and `B_j = s conj(B_i)` (and so `x0`) for a number s, within
    `tolerance` relative: then `x_j = s conj(x_i)`, and since the output is real
    `Re(C_i x_i + C_j x_j) = 2 Re((C_i + conj(s C_j))/2 x_i)`, exactly. A state without a partner stays, with
    `C/2`. Groups are padded with silent states to a common width. If no group gets shorter, or the output is
    complex, the system comes back unchanged and the report says why.
    """
    reason = _why_not(system)
    pairs = [] if reason else [_pairs(system, g, tolerance) for g in range(system.groups)]
    width = max((len(group) for group in pairs), default=system.states)
    if not reason and width == system.states:
        reason = "no conjugate pairs: some group has none that match within the tolerance"
    kept = np.full((system.groups, width), -1)
    mirror = np.full((system.groups, width), -1)
    scale = np.ones((system.groups, width), np.complex128)
    if reason:
        kept[:] = np.arange(width)
        return system, Halving(kept, mirror, scale, reason)
    for g, group in enumerate(pairs):
        for n, (i, j, s) in enumerate(group):
            kept[g, n], mirror[g, n], scale[g, n] = i, j, s

    def pick(states: Array, index: NDArray[np.int64], axis: int) -> Array:
        """`states` at `index` along the state axis, zero where the index is -1."""
        shape = [system.groups, 1, 1][: states.ndim]
        shape[axis] = width
        where = index.reshape(shape)
        return np.where(where >= 0, np.take_along_axis(states, np.maximum(where, 0), axis), 0)

    c = (pick(system.C, kept, 2) + (scale[:, None, :] * pick(system.C, mirror, 2)).conj()) / 2
    delta = system.delta
    if delta is not None and delta.shape[1] != 1:
        whole = np.broadcast_to(delta, system.A.shape)
        delta = np.take_along_axis(whole, np.maximum(kept, 0), 1)
    x0 = None if system.x0 is None else pick(system.x0, kept, 1)
    a, b = pick(system.A, kept, 1), pick(system.B, kept, 1)
    return replace(system, A=a, B=b, C=c, delta=delta, x0=x0, halved=True), Halving(kept, mirror, scale, "")


def _why_not(system: StateSpace) -> str:
    if system.halved:
        return "the system is halved already"
    if not system.diagonal:
        return "A is dense; diagonalize first"
    if not system.is_complex:
        return "the states are real"
    if not system.real_output:
        return "the output is complex"
    return ""


def _pairs(system: StateSpace, g: int, tolerance: float) -> list[tuple[int, int, complex]]:
    """(kept, mirror or -1, scale) for each state that stays; the kept one has the positive imaginary part."""
    a = system.A[g]
    driven = system.B[g] if system.x0 is None else np.column_stack([system.B[g], system.x0[g]])
    step = np.ones(1) if system.delta is None else np.broadcast_to(system.delta, system.A.shape)[g]
    step = np.broadcast_to(step, a.shape)
    free = a.imag < 0
    near = (np.abs(a - np.conj(a)[:, None]) <= tolerance * np.abs(a)[:, None]) & free & (step == step[:, None])
    some = near.any(axis=1)
    found = []
    for i in np.flatnonzero(~free):
        partner, scale = -1, 1.0 + 0j
        for j in np.flatnonzero(near[i] & free) if some[i] else ():
            s = _multiple(driven[i].conj(), driven[j], tolerance)
            if s is not None:
                partner, scale = int(j), s
                free[j] = False
                break
        found.append((int(i), partner, scale))
    return found + [(int(j), -1, 1.0 + 0j) for j in np.flatnonzero(free)]


def _multiple(base: Array, other: Array, tolerance: float) -> complex | None:
    """The number s with `other = s base`, or None."""
    size = np.linalg.norm(other)
    if size == 0:
        return 0j
    power = np.vdot(base, base).real
    if power == 0:
        return None
    s = complex(np.vdot(base, other) / power)
    return s if np.linalg.norm(other - s * base) <= tolerance * size else None


def unhalve(system: StateSpace) -> StateSpace:
    """The same outputs without taking a real part: states `x` and `conj(x)`, read with `C` and `conj(C)`.

    `f Re(C x) = (f/2) (C x + conj(C) conj(x))`, f = 2 for a halved system. A system that is real, or has a complex
    output, is that form already and comes back as it is. The result is `real_output` and holds exact pairs.
    """
    if not system.real_output or not (system.is_complex or np.iscomplexobj(system.C)):
        return system
    if system.diagonal:
        a = np.concatenate([system.A, system.A.conj()], axis=1)
    else:
        zero = np.zeros_like(system.A)
        a = np.block([[system.A, zero], [zero, system.A.conj()]])
    c = np.concatenate([system.C, system.C.conj()], axis=2) * (system.gain / 2)
    return _doubled(system, a, c, np.asarray, np.conj)


def to_real(system: StateSpace) -> StateSpace:
    """The same system in real numbers: states `Re x`, `Im x`, dense `A = [[Re A, -Im A], [Im A, Re A]]`.

    Raises StateSpaceError if the output is complex.
    """
    if not system.real_output:
        raise StateSpaceError("to_real: the output is complex")
    dense = dense_matrix(system)
    if not (system.is_complex or np.iscomplexobj(system.C)):
        return replace(system, A=dense)
    a = np.block([[dense.real, -dense.imag], [dense.imag, dense.real]])
    c = np.concatenate([system.C.real, -system.C.imag], axis=2) * system.gain
    return _doubled(system, a, c, np.real, np.imag)


def _doubled(
    system: StateSpace, a: Array, c: Array, first: Callable[[Array], Array], second: Callable[[Array], Array]
) -> StateSpace:
    """Two states for each, `first(x)` then `second(x)`, of a real input."""
    b = np.concatenate([first(system.B), second(system.B)], axis=1)
    x0 = None if system.x0 is None else np.concatenate([first(system.x0), second(system.x0)], axis=1)
    delta = system.delta
    if delta is not None and delta.shape[1] != 1:
        delta = np.concatenate([delta, delta], axis=1)
    return replace(system, A=a, B=b, C=c, delta=delta, x0=x0, halved=False)
