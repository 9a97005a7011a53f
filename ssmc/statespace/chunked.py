"""The recurrence of many small systems over long sequences, a chunk of steps at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ssmc.statespace.recurrence import simulate
from ssmc.statespace.response import kernel, powers
from ssmc.statespace.system import Array, Real, StateSpace

_CHUNK = 64  # steps
_LEAST = 8 * _CHUNK  # steps for which it is worth it
_AT_ONCE = 1 << 18  # numbers of all states between the chunks that are held at once: more are new memory each time


def simulate_in_chunks(
    system: StateSpace, u: ArrayLike, x0: ArrayLike | None = None, dt: ArrayLike | None = None
) -> tuple[Array, Array]:
    """What `simulate` gives, but for rounding.

    Within a chunk of M steps outputs are a product with a matrix of taps and one with `C A^k`; the states go from chunk
    to chunk by `A^M`. So it is done for diagonal systems of one input and one output a group; others, short sequences,
    times between events and numbers that are not finite are left to `simulate`. Raises StateSpaceError as that does.
    """
    inputs = np.asarray(u)
    single = system.B.shape[2] == 1 and system.C.shape[1] == 1 and system.discrete
    fits = single and system.diagonal and system.real_output and not system.asynchronous and dt is None
    shaped = inputs.ndim == 3 and inputs.shape[1] >= _LEAST and inputs.shape[2] == system.inputs
    if not (fits and shaped and inputs.dtype.kind in "biuf" and np.isfinite(inputs).all()):
        return simulate(system, u, x0, dt)
    whole = inputs.shape[1] // _CHUNK * _CHUNK
    with np.errstate(over="ignore", invalid="ignore"):
        _, x = simulate(system, inputs[:, :0], x0)  # where it starts
        y = np.empty(inputs.shape)
        some = max(1, _AT_ONCE // max(1, len(inputs) * (whole // _CHUNK) * system.states))
        for start in range(0, system.groups, some):
            now = slice(start, start + some)
            part = StateSpace(
                system.A[now], system.B[now], system.C[now], system.D[now],
                halved=system.halved, real_output=system.real_output, read_before=system.read_before,
            )  # fmt: skip
            y[:, :whole, now], x[:, now] = _chunks(part, inputs[:, :whole, now].astype(np.float64), x[:, now])
    if not (np.isfinite(y[:, :whole]).all() and np.isfinite(x).all()):
        return simulate(system, u, x0)
    y[:, whole:], last = simulate(system, inputs[:, whole:], x)
    return y, last


def _chunks(system: StateSpace, u: Real, x: Array) -> tuple[Real, Array]:
    """Outputs (batch, K, G) and last states (batch, G, N), K a multiple of the chunk."""
    batch, time, groups = u.shape
    chunks = time // _CHUNK
    columns = u.reshape(batch, chunks, _CHUNK, groups).transpose(3, 2, 0, 1).reshape(groups, _CHUNK, -1)
    steps = np.arange(_CHUNK + 1)
    power = powers(system.A, steps)  # g n k
    reach = power[:, :, _CHUNK - 1 :: -1] * system.B  # of the input at each step, in the state after the chunk
    driven = _times(reach, columns).reshape(groups, -1, batch, chunks)
    states = np.empty((chunks, groups, system.states, batch), np.result_type(driven, x))
    here, step = x.transpose(1, 2, 0), power[:, :, _CHUNK, None]
    for k in range(chunks):
        states[k] = here
        here = step * here + driven[..., k]
    seen = (system.C.swapaxes(1, 2) * (power[:, :, :-1] if system.read_before else power[:, :, 1:])).swapaxes(1, 2)
    lags = np.subtract.outer(steps[:-1], steps[:-1])
    taps = kernel(system, _CHUNK)[:, 0, 0].real
    y = np.where(lags >= 0, taps[:, np.abs(lags)], 0.0) @ columns
    y += _real_of_product(system.gain * seen, states.transpose(1, 2, 3, 0))
    y = y.reshape(groups, _CHUNK, batch, chunks).transpose(2, 3, 1, 0).reshape(batch, time, groups)
    return y, here.transpose(2, 0, 1)


def _times(matrix: Array, real: Real) -> Array:
    """The product of a matrix, which may be complex, with a real one."""
    if not np.iscomplexobj(matrix):
        return np.asarray(matrix @ real)
    both = np.concatenate([matrix.real, matrix.imag], axis=1) @ real
    found = np.empty((len(both), matrix.shape[1], both.shape[2]), np.complex128)
    found.real, found.imag = both[:, : matrix.shape[1]], both[:, matrix.shape[1] :]
    return found


def _real_of_product(a: Array, b: Array) -> Real:
    """The real part of a product (G, M, K) of (G, M, N) and (G, N, ...), the last axes as one."""
    if not (np.iscomplexobj(a) or np.iscomplexobj(b)):
        return np.asarray(a @ b.reshape(*b.shape[:2], -1))
    parts = np.empty((b.shape[0], 2, *b.shape[1:]))  # copied once: there are many
    parts[:, 0], parts[:, 1] = b.real, np.imag(b)
    return np.asarray(np.concatenate([a.real, -np.imag(a)], axis=2) @ parts.reshape(len(b), 2 * b.shape[1], -1))
