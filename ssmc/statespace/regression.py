"""The output matrix that fits given data best: what is lost by changing A is won back where the inputs really are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from ssmc.statespace.recurrence import simulate
from ssmc.statespace.system import Array, StateSpace, StateSpaceError


def regress_output(
    system: StateSpace,
    u: ArrayLike,
    target: ArrayLike,
    *,
    dt: ArrayLike | None = None,
    x0: ArrayLike | None = None,
    ridge: float = 1e-3,
) -> StateSpace:
    """`system` with the C' whose outputs come closest to `target` on the inputs `u`; A, B, D stay.

    Ridge regression towards the C that the system has (Hoerl and Kennard, Technometrics 12, 1970, with a prior mean):
    of each group, `sum |target - D u - C' x|^2 + ridge sum_n |x_n|^2 |C'_n - C_n|^2` is least, so that directions the
    data never excites keep what they had. `u` (batch, time, G*I), `target` (batch, time, G*O), `dt` and `x0` as in
    `simulate`. Raises StateSpaceError as that does, and where `target` has another shape or `ridge` is not positive.
    """
    wanted = np.asarray(target)
    if ridge <= 0:
        raise StateSpaceError(f"ridge: expected a positive number, got {ridge}")
    y, _, states = simulate(system, u, x0, dt, return_states=True)
    if wanted.shape != y.shape:
        raise StateSpaceError(f"target: expected shape {y.shape}, got {wanted.shape}")
    seen = _read_at(system, states, x0) if system.read_before else states
    groups, high = system.C.shape[:2]
    missing = (wanted - y).reshape(-1, groups, high).transpose(1, 0, 2)  # g k o
    x = seen.reshape(-1, groups, system.states).transpose(1, 0, 2)  # g k n
    parts = _parts(system, x)
    gram = parts.conj().swapaxes(1, 2) @ parts
    size = np.einsum("gnn->gn", gram).real
    damped = gram + ridge * (np.where(size > 0, size, 1)[:, :, None] * np.eye(gram.shape[1]))
    change = np.linalg.solve(damped, parts.conj().swapaxes(1, 2) @ missing).swapaxes(1, 2)  # g o n
    if parts.shape[2] != system.states:
        change = change[:, :, : system.states] + 1j * change[:, :, system.states :]
    return replace(system, C=system.C + change)


def _parts(system: StateSpace, x: Array) -> Array:
    """What the outputs are linear in: real and imaginary parts where only the real part of `C x` is read."""
    if not system.real_output:
        return x
    if not (np.iscomplexobj(x) or np.iscomplexobj(system.C)):
        return x
    return np.concatenate([system.gain * x.real, -system.gain * x.imag], axis=2)


def _read_at(system: StateSpace, states: Array, x0: ArrayLike | None) -> Array:
    """The states that a system sees which reads before it updates: each step's predecessor."""
    start = system.x0 if x0 is None else np.asarray(x0)
    first = np.zeros(states.shape[2:]) if start is None else start
    first = np.broadcast_to(first, (states.shape[0], *states.shape[2:]))
    return np.concatenate([first[:, None], states[:, :-1]], axis=1)
