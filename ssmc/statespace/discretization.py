"""From continuous to discrete time."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias, get_args

import numpy as np

from ssmc.statespace.system import Array, StateSpace, StateSpaceError, rates

Method: TypeAlias = Literal["zoh", "bilinear", "dirac", "euler", "async", "async-dirac"]


def discretize(system: StateSpace, method: Method) -> StateSpace:
    """The discrete system of a continuous one, with `z = delta A` (elementwise, or the matrix).

    =========== ======================= ======================== =============================
    method      Abar                    Bbar                     source
    =========== ======================= ======================== =============================
    zoh         exp(z)                  phi(z) delta B           S4D, arXiv 2206.11893
    bilinear    (1 - z/2)^-1 (1 + z/2)  (1 - z/2)^-1 delta B     S4, arXiv 2111.00396, eq. 3
    dirac       exp(z)                  B                        Event-SSM, arXiv 2404.18508
    euler       1 + z                   delta B                  forward Euler
    async       exp(z dt_k) at run time phi(z) delta B           Event-SSM, arXiv 2404.18508
    async-dirac exp(z dt_k) at run time B                        the same, unit impulses
    =========== ======================= ======================== =============================

    `phi(z) = (e^z - 1)/z` and `phi(0) = 1`, so integrators are exact, dense singular ones too (Van Loan
    1978). The asynchronous forms keep A and delta.

    Raises StateSpaceError if the system is discrete already, the method is unknown, or it meets a pole at
    2/delta.
    """
    if system.discrete or system.asynchronous:
        raise StateSpaceError("discretize: the system is discrete already")
    if system.delta is None:
        raise StateSpaceError("delta: a continuous system needs its step")
    z = rates(system)
    driven = system.B * system.delta[:, :, None]  # delta B
    match method:
        case "zoh":
            abar, bbar = exponential(z), _held(z, driven)
        case "bilinear":
            abar, bbar = _bilinear(z, driven)
        case "dirac":
            abar, bbar = exponential(z), system.B
        case "euler":
            abar, bbar = (1 + z if system.diagonal else np.eye(system.states) + z), driven
        case "async":
            return replace(system, B=_held(z, driven), asynchronous=True)
        case "async-dirac":
            return replace(system, asynchronous=True)
        case _:
            raise StateSpaceError(f"method: {method!r} is not one of {', '.join(get_args(Method))}")
    return replace(system, A=abar, B=bbar, delta=None)


def at_step(system: StateSpace, dt: float = 1.0) -> StateSpace:
    """The discrete system an asynchronous one is when events come every `dt`: `Abar = exp(delta A dt)`.

    A discrete system is returned as it is. Raises StateSpaceError for a continuous one.
    """
    if system.discrete:
        return system
    if not system.asynchronous:
        raise StateSpaceError("at_step: the system is continuous; call discretize first")
    return replace(system, A=exponential(rates(system) * dt), delta=None, asynchronous=False)


def exponential(z: Array) -> Array:
    """`exp(z)`: elementwise for a diagonal (G, N), of each matrix for a dense (G, N, N)."""
    if z.ndim == 2:
        return np.asarray(np.exp(z))
    from scipy.linalg import expm

    return np.asarray(expm(z))


def _held(z: Array, driven: Array) -> Array:
    """`phi(z) driven`, the input held over the step; phi(z) = (e^z - 1)/z with phi(0) = 1."""
    if z.ndim == 2:
        zero = z == 0
        phi = np.where(zero, 1.0, np.expm1(z) / np.where(zero, 1.0, z))
        return np.asarray(phi[:, :, None] * driven)
    groups, states, wide = driven.shape
    # Van Loan: exp([[z, b], [0, 0]]) = [[exp(z), phi(z) b], [0, 1]]; needs no inverse of z.
    augmented = np.zeros((groups, states + wide, states + wide), np.result_type(z, driven))
    augmented[:, :states, :states] = z
    augmented[:, :states, states:] = driven
    return exponential(augmented)[:, :states, states:]


def _bilinear(z: Array, driven: Array) -> tuple[Array, Array]:
    if z.ndim == 2:
        if (z == 2).any():
            raise StateSpaceError("bilinear: a pole lies at 2/delta, where the transform is infinite")
        return (1 + z / 2) / (1 - z / 2), driven / (1 - z / 2)[:, :, None]
    eye = np.eye(z.shape[1])
    try:
        solved = np.linalg.solve(eye - z / 2, np.concatenate([eye + z / 2, driven], axis=2))
    except np.linalg.LinAlgError:
        raise StateSpaceError("bilinear: a pole lies at 2/delta, where the transform is infinite") from None
    return solved[:, :, : z.shape[1]], solved[:, :, z.shape[1] :]
