"""Norms of discrete systems, and what they promise about outputs.

`max_k |y_k| <= l1_norm max_k |u_k|` and `||y||_2 <= hinf_norm ||u||_2`, for every input, from a zero state.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ssmc.statespace.conjugates import to_real, unhalve
from ssmc.statespace.gramians import cross_gramian, require_stable
from ssmc.statespace.response import frequency_response, kernel, log_magnitude, poles, powers
from ssmc.statespace.system import Array, Real, StateSpace, StateSpaceError, dense_matrix, require_discrete

_BUDGET = 1 << 28  # multiplications spent on taps before the rest is bounded


def l1_norm(system: StateSpace, tolerance: float = 1e-6, length: int | None = None, budget: int = _BUDGET) -> Real:
    """`sum_i sum_k |h_k|` (G, O), from above: each output stays below it times the largest input.

    The first taps are summed; the tail is bounded (see `_tail`) and added. Taps are taken until the tail is below
    `tolerance` relative, or `budget` multiplications are spent; the result is an upper bound either way, up to
    rounding. With `length`, exactly the first taps, no tail. Raises StateSpaceError unless discrete and, without
    `length`, stable.
    """
    require_discrete(system, "l1_norm")
    if length is not None:
        return np.asarray(np.abs(kernel(system, length)).sum(axis=(2, 3)))
    require_stable(system, "l1_norm")
    plain = unhalve(system)
    work = plain.A.size * plain.D.shape[1] * plain.D.shape[2]
    most = max(64, min(1 << 20, budget // max(1, work)))
    taps = min(most, _taps_for(plain, tolerance * 1e-2))
    while True:
        head = np.abs(kernel(system, taps)).sum(axis=(2, 3))
        tail = _tail(plain, taps)
        if taps >= most or (tail <= tolerance * head).all():
            return np.asarray(head + tail)
        taps = min(most, 2 * taps)


def l1_distance(
    one: StateSpace, other: StateSpace, tolerance: float = 1e-6, length: int | None = None, budget: int = _BUDGET
) -> Real:
    """`||h - h'||_1` (G, O), from above: `max |y - y'| <= ||h - h'||_1 max |u|` for every input."""
    return l1_norm(difference(one, other), tolerance, length, budget)


def difference(one: StateSpace, other: StateSpace) -> StateSpace:
    """The system whose output is that of `one` less that of `other`, driven alike; states side by side.

    Raises StateSpaceError unless both are discrete, with the same groups, inputs, outputs and order of reading.
    """
    for system in (one, other):
        require_discrete(system, "difference")
    if one.D.shape != other.D.shape or one.read_before != other.read_before:
        raise StateSpaceError(
            f"difference: (G, O, I) {one.D.shape} and {other.D.shape}, read_before {one.read_before} and "
            f"{other.read_before}; they must agree"
        )
    if one.real_output != other.real_output:
        raise StateSpaceError("difference: one output is real, the other complex")
    left, right = unhalve(one), unhalve(other)
    if left.diagonal and right.diagonal:
        a = np.concatenate([left.A, right.A], axis=1)
    else:
        corner = np.zeros((one.groups, left.states, right.states))
        a = np.block([[dense_matrix(left), corner], [corner.swapaxes(1, 2), dense_matrix(right)]])
    x0 = None
    if left.x0 is not None or right.x0 is not None:
        x0 = np.concatenate([np.zeros(s.A.shape[:2]) if s.x0 is None else s.x0 for s in (left, right)], axis=1)
    b = np.concatenate([left.B, right.B], axis=1)
    c = np.concatenate([left.C, -right.C], axis=2)
    return replace(left, A=a, B=b, C=c, D=left.D - right.D, x0=x0)


def _taps_for(plain: StateSpace, tolerance: float) -> int:
    """After how many taps the slowest state has fallen to `tolerance`."""
    slowest = float(log_magnitude(poles(plain)).max(initial=-np.inf))
    return 64 if slowest < np.log(tolerance) / 64 else int(np.log(tolerance) / slowest) + 1


def _tail(plain: StateSpace, start: int) -> Real:
    """At least `sum_i sum_{k>=start} |h_k|` (G, O)."""
    start = start - 1 if plain.read_before else start  # h_k = C A^(k-1) B there
    if not plain.diagonal:
        return _norm_tail(plain, start)
    return np.minimum(_mode_tail(plain, start), _energy_tail(plain, start))


def _mode_tail(plain: StateSpace, start: int) -> Real:
    """`sum_n |C_n B_n| |a_n|^start / (1 - |a_n|)`: as if no two modes ever cancelled."""
    size = np.abs(plain.A)
    left = powers(size, np.array([start]))[..., 0] / -np.expm1(log_magnitude(plain.A))
    return np.asarray(np.einsum("gon,gn,gni->go", np.abs(plain.C), left, np.abs(plain.B), optimize=True))


def _energy_tail(plain: StateSpace, start: int) -> Real:
    """`sum |h_k| <= sqrt(m I sum h_k^2)` over m taps of I inputs (Cauchy-Schwarz), energies from the Gramian.

    Stretches grow by a quarter, which costs little of the square root; when the slowest state has fallen by
    1e-9, the modes bound what is left.
    """
    gramian = cross_gramian(plain, plain)
    wide = plain.B.shape[2]
    end = start + _taps_for(plain, 1e-9)
    total = np.zeros(plain.C.shape[:2])
    energy = _energy_after(plain, gramian, start)
    while start < end:
        stop = start + max(32, start // 4)
        after = _energy_after(plain, gramian, stop)
        spent = np.maximum(energy - after, 0) + 1e-14 * energy  # the difference of two rounded numbers
        total += np.sqrt((stop - start) * wide * spent)
        start, energy = stop, after
    return np.asarray(total + _mode_tail(plain, start))


def _energy_after(plain: StateSpace, gramian: Array, start: int) -> Real:
    """`sum_{k>=start} sum_i |h_k|^2` (G, O)."""
    c = plain.C * powers(plain.A, np.array([start]))[:, None, :, 0]
    return np.asarray(np.maximum(np.einsum("gon,gon->go", c @ gramian, c.conj()).real, 0))


def _norm_tail(plain: StateSpace, start: int) -> Real:
    """`2 ||C A^start|| sqrt(m I tr W)` where `||A^m|| <= 1/2`: m taps at a time, each at most half the last."""
    stride, reach = plain.A, 1
    while np.linalg.norm(stride, 2, axis=(1, 2)).max() > 0.5:
        stride, reach = stride @ stride, 2 * reach
    seen = np.linalg.norm(plain.C @ np.linalg.matrix_power(plain.A, start), axis=2)
    power = np.trace(cross_gramian(plain, plain), axis1=1, axis2=2).real
    return np.asarray(2 * seen * np.sqrt(reach * plain.B.shape[2] * power)[:, None])


def hinf_norm(system: StateSpace, tolerance: float = 1e-6) -> Real:
    """`max_w sigma_max(H(e^iw))` (G,): the largest gain in energy; from below, within `tolerance` relative.

    A grid around the poles finds the peak; then Bruinsma and Steinbuch's test (Systems & Control Letters 14,
    1990), on the continuous system of equal norm, `z = (1 + s)/(1 - s)`, shows that nothing exceeds it or where:
    `sigma_max(H) = g` at w exactly if a Hamiltonian matrix has an eigenvalue `i tan(w/2)`.
    Raises StateSpaceError unless discrete, stable, and real in its output.
    """
    require_discrete(system, "hinf_norm")
    require_stable(system, "hinf_norm")
    real = to_real(system)
    return np.array([_peak(_group(system, g), _group(real, g), tolerance) for g in range(system.groups)])


def _peak(system: StateSpace, real: StateSpace, tolerance: float) -> float:
    a = poles(system)[0]
    spread = np.minimum(-log_magnitude(a), np.pi)[:, None] * np.array([-4, -2, -1, -0.4, 0, 0.4, 1, 2, 4])
    w = np.concatenate([np.linspace(0, np.pi, 65), (np.abs(np.angle(a))[:, None] + spread).ravel()])
    best = _gain(system, w)
    continuous = _continuous(real)
    for _ in range(50):
        level = best * (1 + tolerance)
        w = _crossings(continuous, level)
        if level == 0 or not len(w):
            return best
        w = np.unique(np.concatenate([w, (w[1:] + w[:-1]) / 2]))
        found = _gain(system, w)
        if found <= level:
            return max(best, found)
        best = found
    raise StateSpaceError("hinf_norm: no convergence")  # each round gains at least `tolerance`


def _gain(system: StateSpace, w: Real) -> float:
    response = frequency_response(system, w)[0].transpose(2, 0, 1)
    return float(np.linalg.norm(response, 2, axis=(1, 2)).max())


def _continuous(real: StateSpace) -> tuple[Real, Real, Real, Real]:
    """(A, B, C, D) of the continuous system with the same gains, `z = (1 + s)/(1 - s)`."""
    a, b, c, d = real.A[0], real.B[0], real.C[0], real.D[0]
    if not real.read_before:
        c, d = c @ a, d + c @ b
    inverse = np.linalg.inv(a + np.eye(len(a)))
    return (
        inverse @ (a - np.eye(len(a))),
        np.sqrt(2) * inverse @ b,
        np.sqrt(2) * c @ inverse,
        d - c @ inverse @ b,
    )


def _crossings(continuous: tuple[Real, Real, Real, Real], level: float) -> Real:
    """Angles in [0, pi] where a singular value of the response may equal `level`, and both ends."""
    a, b, c, d = continuous
    r = level**2 * np.eye(d.shape[1]) - d.T @ d
    inner = a + b @ np.linalg.solve(r, d.T @ c)
    outer = c.T @ (c + d @ np.linalg.solve(r, d.T @ c))
    values = np.linalg.eigvals(np.block([[inner, b @ np.linalg.solve(r, b.T)], [-outer, -inner.T]]))
    # Taking in some that are not quite imaginary costs an evaluation each; leaving one out would cost the proof.
    near = values[np.abs(values.real) <= 1e-5 * np.abs(values) + 1e-12]
    return np.concatenate([[0.0], np.sort(2 * np.arctan(np.abs(near.imag))), [np.pi]]) if len(near) else near.real


def _group(system: StateSpace, g: int) -> StateSpace:
    one = slice(g, g + 1)
    return replace(system, A=system.A[one], B=system.B[one], C=system.C[one], D=system.D[one], x0=None)
