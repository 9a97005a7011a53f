"""The recurrence itself, in float64: what a system means."""

from __future__ import annotations

from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from ssmc.statespace.system import Array, StateSpace, StateSpaceError, rates

_BLOCK_ELEMENTS = 1 << 16  # states held at once: 1 MB of complex numbers, which stay in the cache


@overload
def simulate(
    system: StateSpace,
    u: ArrayLike,
    x0: ArrayLike | None = None,
    dt: ArrayLike | None = None,
    *,
    return_states: Literal[False] = False,
) -> tuple[Array, Array]: ...


@overload
def simulate(
    system: StateSpace,
    u: ArrayLike,
    x0: ArrayLike | None = None,
    dt: ArrayLike | None = None,
    *,
    return_states: Literal[True],
) -> tuple[Array, Array, Array]: ...


def simulate(
    system: StateSpace,
    u: ArrayLike,
    x0: ArrayLike | None = None,
    dt: ArrayLike | None = None,
    *,
    return_states: bool = False,
) -> tuple[Array, Array] | tuple[Array, Array, Array]:
    """Run `x_k = Abar x_{k-1} + Bbar u_k`, `y_k = C x_k + D u_k` step by step.

    `u` (batch, time, G*I) real, group-major; `x0` (batch, G, N) or (G, N), else the system's own, else zero;
    `dt` (batch, time) or (time,), the time elapsed before each event of an asynchronous system, which decays
    by `exp(A delta dt_k)`. Returns `y` (batch, time, G*O), the last state (batch, G, N) and, if asked, the
    states x_k (batch, time, G, N).

    Raises StateSpaceError for a continuous system, wrong shapes, `dt` missing, negative or not wanted.
    """
    inputs = np.asarray(u)
    if inputs.ndim != 3 or inputs.shape[2] != system.inputs or inputs.dtype.kind not in "biuf":
        raise StateSpaceError(f"u: expected real (batch, time, {system.inputs}), got {inputs.dtype} {inputs.shape}")
    batch, time = inputs.shape[:2]
    groups, states = system.groups, system.states
    inputs = inputs.astype(np.float64).reshape(batch, time, groups, system.B.shape[2])  # b k g i
    gaps = _elapsed(system, dt, batch, time)
    x = _initial(system, x0, batch)

    y = np.empty((batch, time, groups, system.C.shape[1]), np.float64 if system.real_output else np.complex128)
    every = np.empty((batch, time, groups, states), x.dtype) if return_states else None
    block = max(1, _BLOCK_ELEMENTS // max(1, batch * groups * states))
    for start in range(0, time, block):
        now = slice(start, min(start + block, time))
        decay = _decay(system, None if gaps is None else gaps[:, now])
        # trajectory[k] is the state before step start + k; the last one is the state after the block.
        trajectory = np.empty((now.stop - start + 1, *x.shape), x.dtype)
        trajectory[0] = x
        trajectory[1:] = _grouped(system.B, inputs[:, now]).swapaxes(0, 1)  # k b g n
        for k in range(1, len(trajectory)):
            a, last = decay if gaps is None else decay[k - 1], trajectory[k - 1]
            trajectory[k] += a * last if system.diagonal else (a @ last[..., None])[..., 0]
        x = trajectory[-1]
        seen = (trajectory[:-1] if system.read_before else trajectory[1:]).swapaxes(0, 1)  # b k g n
        read = _grouped(system.C, seen)
        y[:, now] = system.gain * read.real if system.real_output else read
        y[:, now] += _grouped(system.D, inputs[:, now])
        if every is not None:
            every[:, now] = trajectory[1:].swapaxes(0, 1)
    flat = y.reshape(batch, time, system.outputs)
    return (flat, x.copy()) if every is None else (flat, x.copy(), every)


def _grouped(matrix: Array, signal: Array) -> Array:
    """`matrix` (G, M, K) applied to `signal` (batch, time, G, K): (batch, time, G, M)."""
    batch, time, groups, width = signal.shape
    flat = signal.transpose(2, 0, 1, 3).reshape(groups, batch * time, width)
    out: Array = (flat @ matrix.swapaxes(1, 2)).reshape(groups, batch, time, matrix.shape[1])
    return out.transpose(1, 2, 0, 3)


def _decay(system: StateSpace, gaps: Array | None) -> Array:
    """Abar: as stored, or one per step and sample, (time, batch, G, N[, N])."""
    if gaps is None:
        return system.A
    rate = rates(system)
    elapsed = gaps.T.reshape(gaps.shape[::-1] + (1,) * rate.ndim)
    if system.diagonal:
        decay: Array = np.exp(rate * elapsed)
        return decay
    from scipy.linalg import expm

    return np.asarray(expm(rate * elapsed))


def _elapsed(system: StateSpace, dt: ArrayLike | None, batch: int, time: int) -> Array | None:
    if not system.asynchronous:
        if not system.discrete:
            raise StateSpaceError("simulate: the system is continuous; call discretize first")
        if dt is not None:
            raise StateSpaceError("dt: elapsed times were given, but the system is not asynchronous")
        return None
    if dt is None:
        raise StateSpaceError("dt: an asynchronous system needs the elapsed time of every event, (batch, time)")
    gaps = np.asarray(dt, dtype=np.float64)
    if gaps.shape not in ((batch, time), (time,)):
        raise StateSpaceError(f"dt: expected shape {(batch, time)} or {(time,)}, got {gaps.shape}")
    if not (gaps >= 0).all():
        raise StateSpaceError("dt: elapsed times are zero or positive, and time order is the order of the events")
    return np.broadcast_to(gaps, (batch, time))


def _initial(system: StateSpace, x0: ArrayLike | None, batch: int) -> Array:
    shape = (batch, system.groups, system.states)
    value = system.x0 if x0 is None else np.asarray(x0)
    if value is None:
        value = np.zeros(shape[1:])
    if value.shape not in (shape, shape[1:]):
        raise StateSpaceError(f"x0: expected shape {shape} or {shape[1:]}, got {value.shape}")
    dtype = np.complex128 if system.is_complex or np.iscomplexobj(value) else np.float64
    return np.broadcast_to(value, shape).astype(dtype)
