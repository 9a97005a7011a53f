"""What a discrete system does: impulse response, frequency response, poles."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ssmc.statespace.conjugates import unhalve
from ssmc.statespace.discretization import at_step
from ssmc.statespace.system import Array, Real, StateSpace, StateSpaceError, rates, require_discrete


def kernel(system: StateSpace, length: int) -> Array:
    """Impulse response (G, O, I, length): `h_0 = C B + D`, `h_k = C Abar^k B`; the initial state plays no part.

    A system that reads before it updates has `h_0 = D`, `h_k = C Abar^(k-1) B`. Each tap is one product of
    `C Abar^(M q)` and `Abar^p B`, k = M q + p, so that no error builds up from tap to tap.

    Raises StateSpaceError unless the system is discrete and `length` at least 1.
    """
    require_discrete(system, "kernel")
    if length < 1:
        raise StateSpaceError(f"length: expected at least 1, got {length}")
    near = math.isqrt(length - 1) + 1
    far = -(-length // near)
    if system.diagonal:
        reached = powers(system.A, np.arange(near))[:, :, :, None] * system.B[:, :, None, :]  # g n p i
        seen = system.C[:, :, None, :] * powers(system.A, near * np.arange(far)).swapaxes(1, 2)[:, None]  # g o q n
    else:
        stride = np.linalg.matrix_power(system.A, near)
        reached = _krylov(system.A, system.B, near)
        seen = _krylov(stride.swapaxes(1, 2), system.C.swapaxes(1, 2), far).transpose(0, 3, 2, 1)
    groups, high, wide = system.D.shape
    left, right = seen.reshape(groups, -1, system.states), reached.reshape(groups, system.states, -1)
    product = _real_product(left, right) * system.gain if system.real_output else left @ right
    taps = product.reshape(groups, high, far, near, wide).transpose(0, 1, 4, 2, 3)
    taps = taps.reshape(groups, high, wide, far * near)[..., :length].copy()
    if system.read_before:
        taps[..., 1:] = taps[..., :-1].copy()
        taps[..., 0] = 0
    if np.iscomplexobj(system.D) and not np.iscomplexobj(taps):
        taps = taps.astype(np.complex128)
    taps[..., 0] += system.D
    return taps


def powers(a: Array, exponents: Array) -> Array:
    """`a^k` (..., K) for each a and each integer k >= 0, with `0^0 = 1`, through an accurate `log |a|`."""
    with np.errstate(invalid="ignore"):
        decay = np.exp(np.where(exponents == 0, 0.0, log_magnitude(a)[..., None] * exponents))
    if np.iscomplexobj(a):
        return np.asarray(decay * np.exp(1j * np.angle(a)[..., None] * exponents))
    return np.where((a[..., None] < 0) & (exponents % 2 == 1), -decay, decay)


def log_magnitude(a: Array) -> Real:
    """`log |a|`, accurate near |a| = 1 too, where slow decays live; -inf at 0."""
    re, im = np.abs(np.real(a)), np.abs(np.imag(a))
    big, small = np.maximum(re, im), np.minimum(re, im)
    with np.errstate(divide="ignore"):
        plain = np.log(np.abs(a))
    slow = (big - 1) * (big + 1) + small**2  # |a|^2 - 1 without cancellation
    return np.where(np.abs(slow) < 0.5, 0.5 * np.log1p(np.maximum(slow, -0.5)), plain)


def _krylov(a: Array, b: Array, length: int) -> Array:
    """`a^p b` for p < length, (G, N, length, I), by doubling."""
    columns, factor = b[:, :, None, :], a
    while columns.shape[2] < length:
        groups, states, have, wide = columns.shape
        more = (factor @ columns.reshape(groups, states, -1)).reshape(groups, states, have, wide)
        columns, factor = np.concatenate([columns, more], axis=2), factor @ factor
    return columns[:, :, :length]


def _real_product(left: Array, right: Array) -> Real:
    """Re(left @ right), without computing the imaginary part."""
    if not (np.iscomplexobj(left) and np.iscomplexobj(right)):
        return np.asarray(left.real @ right.real)
    split = np.concatenate([left.real, -left.imag], axis=-1)
    return np.asarray(split @ np.concatenate([right.real, right.imag], axis=-2))


def frequency_response(system: StateSpace, w: ArrayLike) -> Array:
    """`H(e^iw) = C (1 - Abar e^-iw)^-1 B + D` (G, O, I, W) at the angles w (W,), radians per step.

    A system that reads before it updates has one more delay, `e^-iw`. Raises StateSpaceError unless discrete.
    """
    require_discrete(system, "frequency_response")
    plain = unhalve(system)
    delay = np.exp(-1j * np.atleast_1d(np.asarray(w, dtype=np.float64)))
    states = state_response(plain, delay)  # g w n i
    response = plain.C[:, None] @ states
    if plain.read_before:
        response = response * delay[:, None, None]
    return np.asarray((response + plain.D[:, None]).transpose(0, 2, 3, 1))


def state_response(system: StateSpace, delay: Array) -> Array:
    """`(1 - Abar delay)^-1 B` (G, W, N, I) at each of the delays `e^-iw` (W,)."""
    if system.diagonal:
        return np.asarray(system.B[:, None] / (1 - system.A[:, None, :] * delay[:, None])[..., None])
    matrix = np.eye(system.states) - system.A[:, None] * delay[:, None, None]
    return np.asarray(
        np.linalg.solve(matrix, np.broadcast_to(system.B[:, None], (*matrix.shape[:3], system.B.shape[2])))
    )


def poles(system: StateSpace) -> Array:
    """Eigenvalues of Abar (G, N), as stored: a halved system lists one of each pair.

    An asynchronous system gives those of a unit step. Raises StateSpaceError for a continuous system.
    """
    abar = at_step(system).A
    return abar if system.diagonal else np.asarray(np.linalg.eigvals(abar))


def time_constants(system: StateSpace, step: float = 1.0) -> Real:
    """`-step / ln |Abar|` (G, N), in the unit of `step`: how long a state takes to fall to 1/e.

    Infinite for a state that does not decay (or grows), 0 for one that forgets at once. A continuous or an
    asynchronous system gives `-step / Re(delta A)`, `step` being the length of a unit of its time.
    """
    rate = log_decays(system)
    with np.errstate(divide="ignore"):
        return np.where(rate < 0, -step / np.where(rate < 0, rate, -1.0), np.inf)


def log_decays(system: StateSpace) -> Real:
    """`ln |Abar|`, or `Re(delta A)` of a system with a step, (G, N)."""
    if system.discrete:
        return log_magnitude(poles(system))
    z = rates(system)
    return np.asarray(np.real(z if system.diagonal else np.linalg.eigvals(z)))


def frequencies(system: StateSpace, step: float = 1.0) -> Real:
    """Oscillations of the states (G, N) in cycles per unit of `step`: `angle(Abar) / (2 pi step)`, signed."""
    if system.discrete:
        return np.asarray(np.angle(poles(system)) / (2 * np.pi * step))
    z = rates(system)
    return np.asarray(np.imag(z if system.diagonal else np.linalg.eigvals(z)) / (2 * np.pi * step))
