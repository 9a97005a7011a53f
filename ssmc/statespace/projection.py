"""Few decays for the kernels of many channels: oscillations, decays and outputs fitted together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ssmc.statespace.response import kernel
from ssmc.statespace.system import Array, Real, StateSpace, StateSpaceError

_TURN = 0.1  # rad; the farthest that a step moves an oscillation
_FACTOR = 0.2  # the farthest that a step moves the logarithm of a decay
_NORM = 8  # p of the norm that stands for the largest weight
_WITHIN = 10  # steps towards its least, each 1 / (p - 1) of the reweighted one's: longer ones swing
_SWAPS = 3  # rounds from one swap of oscillations to the next
_SETTLING = 2  # steps that a swap is given before it is judged
_GRID = 64  # oscillations that are tried on each decay, at the most
_APART = 1e-9  # of its power: how far a new oscillation must be from what the others can do
_TINY = 1e-12  # of the largest on a diagonal, so that a state that stays zero has a solution


@dataclass(frozen=True, eq=False)
class Wanted:
    """What single-input, single-output groups shall do: `|root (h - taps)|^2` of a kernel h is to be small.

    `taps` (G, L) are without D; `root` (G, L, L) is upper triangular, None for white inputs of power 1. `rest` (G,) is
    what no kernel can make good.
    """

    taps: Real
    root: Real | None
    rest: Real

    def weigh(self, columns: Real) -> Real:
        """`root` times columns (G, L, M)."""
        return columns if self.root is None else np.asarray(self.root @ columns)


@dataclass(frozen=True, eq=False)
class Coordinates:
    """What a penalty is made from. The real numbers that a channel reads are `Re x` and `-Im x`, side by side
    (G, 2N): `weights` reads them, `gram` (G, 2N, 2N) are their mean products on the wanted inputs, `drift` (G, 2N)
    their mean squared change by a change of the logarithm of each one's time constant."""

    weights: Real
    gram: Real
    drift: Real


@dataclass(frozen=True, eq=False)
class Toll:
    """What weights theta of a channel cost: `theta^T form theta + largest max_n theta_n^2`; (G, 2N, 2N) and (G,).

    The maximum is met from above by the p-norm, p = 8.
    """

    form: Real
    largest: Real


@dataclass(frozen=True, eq=False)
class Projected:
    """A system on shared decays `rates` (K,), `-ln |Abar|`. `missed` (G,) is the mean squared error on the wanted
    inputs, `toll` (G,) what its weights cost."""

    system: StateSpace
    rates: Real
    missed: Real
    toll: Real


def projectable(system: StateSpace) -> bool:
    """Whether the groups are single-input, single-output oscillators that start from zero, at regular steps."""
    return (
        system.discrete
        and system.diagonal
        and bool(np.iscomplexobj(system.A))
        and system.real_output
        and not system.read_before
        and system.x0 is None
        and system.B.shape[2] == system.C.shape[1] == 1
    )


def wanted_kernel(system: StateSpace, length: int) -> Wanted:
    """The system's own first taps, for white inputs of power 1."""
    return Wanted(_taps(system, length), None, np.zeros(system.groups))


def wanted_response(system: StateSpace, u: ArrayLike, target: ArrayLike, length: int, share: float) -> Wanted:
    """The kernel whose response to `u` (batch, time, G) from rest is closest to `target`, plus `share` times the
    distance from the system's own kernel for white inputs of the same power: directions that the data never excites
    keep what they had. D stays. Means over samples and steps."""
    inputs = np.asarray(u, dtype=np.float64)
    batch, steps, groups = inputs.shape
    direct = inputs * system.D[:, 0, 0]
    missing = np.asarray(target, dtype=np.float64) - direct
    padded = np.concatenate([np.zeros((batch, length - 1, groups)), inputs], axis=1)
    count = batch * steps
    power = np.square(inputs).mean((0, 1))
    own, floor = _taps(system, length), share * power
    roots, taps, rest = np.empty((groups, length, length)), np.empty((groups, length)), np.empty(groups)
    for g in range(groups):
        seen = np.lib.stride_tricks.sliding_window_view(padded[:, :, g], length, axis=1)[:, :, ::-1]
        past = np.ascontiguousarray(seen).reshape(count, length)
        metric = past.T @ past / count
        metric[np.diag_indices(length)] += floor[g] + _TINY * max(float(metric.max(initial=0.0)), 1e-300)
        pull = past.T @ missing[:, :, g].ravel() / count + floor[g] * own[g]
        taps[g] = np.linalg.solve(metric, pull)
        roots[g] = np.linalg.cholesky(metric).T
        whole = np.square(missing[:, :, g]).mean() + floor[g] * float(own[g] @ own[g])
        rest[g] = max(whole - float(taps[g] @ pull), 0.0)
    return Wanted(taps, roots, rest)


def project(
    system: StateSpace,
    wanted: Wanted,
    rates: Real,
    assignment: NDArray[np.int64],
    toll: Callable[[Coordinates], Toll],
    *,
    move_decays: bool,
    rounds: int,
) -> Projected:
    """`system` on the decays `rates` (K,), each state's as `assignment` (G, N) says, its B as one.

    `|root (h - taps)|^2` plus the weights' toll is made small. For given poles the best weights are a convex problem
    (iteratively reweighted least squares); a step of Gauss, Newton, Levenberg and Marquardt moves the oscillations of
    each channel, and the shared decays, on what is left: variable projection (Golub and Pereyra, SIAM J. Numer. Anal.
    10, 1973, with Kaufman's derivative, BIT 15, 1975). Such steps end in the nearest least; with `move_decays`
    oscillations are exchanged for others as well (see `_exchange`). What does not help is not taken. `toll` may follow
    the weights: it is asked again in every round, and the mean of its answers is used.

    Raises StateSpaceError where the system is not `projectable`.
    """
    if not projectable(system):
        raise StateSpaceError("project: expected single-input, single-output oscillators at regular steps")
    groups, states = system.A.shape
    fit = _Fit(wanted, assignment, np.log(rates), np.angle(system.A))
    start = np.zeros((groups, 2 * states))
    nothing = Toll(np.zeros((groups, 2 * states, 2 * states)), np.zeros(groups))
    gram = fit.solved(nothing, start).gram
    modest = replace(nothing, form=1e-2 * _diagonal(gram).mean(1)[:, None, None] * np.eye(2 * states))
    at, used = fit.solved(modest, start), modest
    damping, slower = np.full(groups, 1e-2), 1e-2
    for k in range(rounds):
        now, share = toll(at.coordinates()), 1.0 if k == 0 else 0.5
        used = Toll(used.form + share * (now.form - used.form), used.largest + share * (now.largest - used.largest))
        at = fit.solved(used, at.weights)
        fit, at, damping = _turned(fit, at, used, damping)
        if move_decays:
            fit, at, slower = _shifted(fit, at, used, slower)
            if k % _SWAPS == _SWAPS - 1:
                fit, at = _swapped(fit, at, used)
    cost = fit.solved(toll(at.coordinates()), at.weights, still=True).cost
    c = (at.weights[:, :states] + 1j * at.weights[:, states:]) / system.gain
    found = np.exp(fit.log_rates)
    made = replace(
        system, A=np.exp(-found[fit.assignment] + 1j * fit.angles), B=np.ones_like(system.B), C=c[:, None, :]
    )
    missed = np.square(at.residual).sum(1)
    return Projected(made, found, missed + wanted.rest, cost - missed)


@dataclass(frozen=True, eq=False)
class _Solved:
    """The best weights for given poles: `columns` (G, L, 2N) and what is left (G, L) are weighed by the root. `damped`
    is the normal matrix at the end, `cost` (G,) the error with the toll."""

    weights: Real
    residual: Real
    cost: Real
    columns: Real
    gram: Real
    damped: Real
    plain: Real  # (G, L, 2N), not weighed
    slope: Real  # (G, L, 2N): by the logarithm of the time constant, not weighed
    weigh: Callable[[Real], Real]

    def coordinates(self) -> Coordinates:
        return Coordinates(self.weights, self.gram, np.square(self.weigh(self.slope)).sum(1))

    def beyond(self, columns: Real) -> Real:
        """The part of weighed columns that the weights cannot follow."""
        return np.asarray(columns - self.columns @ np.linalg.solve(self.damped, _t(self.columns) @ columns))


@dataclass(frozen=True, eq=False)
class _Fit:
    wanted: Wanted
    assignment: NDArray[np.int64]
    log_rates: Real
    angles: Real

    def solved(self, toll: Toll, weights: Real, *, still: bool = False) -> _Solved:
        """From `weights` on, which matter where the largest one costs; `still`: with them as they are."""
        k = np.arange(self.wanted.taps.shape[1])[None, :, None]
        fall = k * np.exp(self.log_rates)[self.assignment][:, None, :]
        size, phase = np.exp(-fall), k * self.angles[:, None, :]
        plain = np.concatenate([size * np.cos(phase), -size * np.sin(phase)], axis=2)
        columns = self.wanted.weigh(plain)
        aim = self.wanted.weigh(self.wanted.taps[:, :, None])
        gram, pull = _t(columns) @ columns, _t(columns) @ aim
        eye, floor = np.eye(gram.shape[1]), _TINY * _diagonal(gram).max(1, keepdims=True)
        damped, there = gram, weights
        steps = 0 if still else _WITHIN if toll.largest.any() else 1
        for step in range(steps):
            diagonal = floor + toll.largest[:, None] * _largest(weights)[1]
            damped = gram + toll.form + diagonal[:, :, None] * eye
            there = np.linalg.solve(damped, pull)[..., 0]
            first = steps == 1 or (step == 0 and not weights.any())
            weights = there if first else weights + (there - weights) / (_NORM - 1)
        residual = aim[..., 0] - (columns @ weights[:, :, None])[..., 0]
        taken = np.einsum("gn,gnm,gm->g", weights, toll.form, weights) + toll.largest * _largest(weights)[0]
        cost = np.square(residual).sum(1) + taken
        slope = np.concatenate([fall, fall], axis=2) * plain
        return _Solved(weights, residual, cost, columns, gram, damped, plain, slope, self.wanted.weigh)


def _largest(weights: Real) -> tuple[Real, Real]:
    """The square of the p-norm (G,), and omega (G, M) with `sum_n omega_n weights_n^2` equal to it."""
    size = np.abs(weights)
    top = size.max(axis=1, keepdims=True, initial=0.0)
    share = size / np.where(top > 0, top, 1.0)
    whole = (share**_NORM).sum(axis=1, keepdims=True) ** (1 / _NORM)
    omega = np.where(top > 0, (share / np.where(whole > 0, whole, 1.0)) ** (_NORM - 2), 1.0)
    return np.asarray(np.square(whole * top)[:, 0]), omega


def _mixed(fit: _Fit, at: _Solved, tried: _Fit, found: _Solved) -> tuple[_Fit, _Solved, NDArray[np.bool_]]:
    """Channel by channel whichever costs less, and where that is `tried`."""
    better = found.cost < at.cost

    def pick(new: Any, old: Any) -> Any:
        return np.where(better.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    fields = {name: pick(getattr(tried, name), getattr(fit, name)) for name in ("angles", "assignment")}
    names = ("weights", "residual", "cost", "columns", "gram", "damped", "plain", "slope")
    return (
        replace(fit, **fields),
        replace(at, **{name: pick(getattr(found, name), getattr(at, name)) for name in names}),
        better,
    )


def _swapped(fit: _Fit, at: _Solved, toll: Toll) -> tuple[_Fit, _Solved]:
    """One oscillation of every channel is exchanged (see `_exchange`), and stays so where that helps the channel once
    it has settled."""
    out, angles, levels = _exchange(fit, at)
    where = np.arange(len(out)), out
    turned, moved = fit.angles.copy(), fit.assignment.copy()
    turned[where], moved[where] = angles, levels
    tried = replace(fit, angles=turned, assignment=moved)
    found, damping = tried.solved(toll, at.weights), np.full(len(out), 1e-2)
    for _ in range(_SETTLING):
        tried, found, damping = _turned(tried, found, toll, damping)
    return _mixed(fit, at, tried, found)[:2]


def _exchange(fit: _Fit, at: _Solved) -> tuple[NDArray[np.int64], Real, NDArray[np.int64]]:
    """The state of each channel (G,) to give up for another, and that one's angle and decay: the pair with the least
    error, the other states' weights being the best for it. Angles are those of a grid; the toll of the new state is
    taken for that of the old one."""
    groups, half = fit.angles.shape
    length, levels = fit.wanted.taps.shape[1], len(fit.log_rates)
    count = min(length, _GRID)
    angles, level = np.tile((np.arange(count) + 0.5) * np.pi / count, levels), np.repeat(np.arange(levels), count)
    k = np.arange(length)[:, None]
    size = np.exp(-k * np.exp(fit.log_rates)[level])
    plain = np.concatenate([size * np.cos(k * angles), -size * np.sin(k * angles)], axis=1)
    waves = fit.wanted.weigh(np.broadcast_to(plain, (groups, *plain.shape)))
    aim = fit.wanted.weigh(fit.wanted.taps[:, :, None])
    cross, drawn, pull = _t(at.columns) @ waves, (_t(aim) @ waves)[:, 0], _t(at.columns) @ aim
    power, both = np.square(waves).sum(1), (waves[:, :, : len(level)] * waves[:, :, len(level) :]).sum(1)
    added = _diagonal(at.damped) - np.square(at.columns).sum(1)
    least, out, chosen = np.full(groups, np.inf), np.zeros(groups, np.int64), np.zeros(groups, np.int64)
    for n in range(half):
        kept = np.delete(np.arange(2 * half), [n, n + half])
        others, own = cross[:, kept], pull[:, kept]
        inverse = np.linalg.inv(at.damped[:, kept[:, None], kept])
        solved = inverse @ others
        # What is left of the waves and of the aim when the others have done what they can.
        x, y = np.split(drawn - (_t(own) @ solved)[:, 0], 2, axis=1)
        xx, yy = np.split(power - (others * solved).sum(1), 2, axis=1)
        xy = both - (others[:, :, : len(level)] * solved[:, :, len(level) :]).sum(1)
        xx, yy = xx + added[:, n, None], yy + added[:, n + half, None]
        size = xx * yy - xy**2
        new = size > _APART * power[:, : len(level)] * power[:, len(level) :]
        gain = np.where(new, (yy * x**2 - 2 * xy * x * y + xx * y**2) / np.where(new, size, 1.0), 0.0)
        cost = -(own * (inverse @ own)).sum((1, 2)) - gain.max(1)
        better = cost < least
        least, out = np.where(better, cost, least), np.where(better, n, out)
        chosen = np.where(better, gain.argmax(1), chosen)
    return out, angles[chosen], level[chosen]


def _turned(fit: _Fit, at: _Solved, toll: Toll, damping: Real) -> tuple[_Fit, _Solved, Real]:
    """A step of every channel's oscillations, where it helps that channel."""
    half = fit.angles.shape[1]
    k = np.arange(fit.wanted.taps.shape[1])[None, :, None]
    cosine, sine = at.plain[:, :, :half], at.plain[:, :, half:]
    theta = at.weights[:, None, :]
    moved = at.beyond(fit.wanted.weigh(k * (theta[..., :half] * sine - theta[..., half:] * cosine)))
    step = _step(_t(moved) @ moved, _t(moved) @ at.residual[..., None], damping)
    angles = fit.angles + np.clip(step, -_TURN, _TURN)
    tried = replace(fit, angles=(angles + np.pi) % (2 * np.pi) - np.pi)
    fit, at, better = _mixed(fit, at, tried, tried.solved(toll, at.weights))
    return fit, at, np.where(better, damping / 3, damping * 4)


def _shifted(fit: _Fit, at: _Solved, toll: Toll, damping: float) -> tuple[_Fit, _Solved, float]:
    """A step of the shared decays, where it helps the channels together."""
    half = fit.angles.shape[1]
    theta = at.weights[:, None, :] * -at.slope
    each = theta[..., :half] + theta[..., half:]  # (G, L, N): the kernel by the logarithm of each state's own decay
    member = (fit.assignment[:, :, None] == np.arange(len(fit.log_rates))).astype(np.float64)
    moved = at.beyond(fit.wanted.weigh(each @ member))
    square = (_t(moved) @ moved).sum(0)
    pull = (_t(moved) @ at.residual[..., None]).sum(0)
    step = _step(square[None], pull[None], np.array([damping]))[0]
    tried = replace(fit, log_rates=fit.log_rates + np.clip(step, -_FACTOR, _FACTOR))
    found = tried.solved(toll, at.weights)
    if found.cost.sum() < at.cost.sum():
        return tried, found, damping / 3
    return fit, at, damping * 4


def _step(square: Real, pull: Real, damping: Real) -> Real:
    """(G, M): Marquardt's step, the normal equations with a damped diagonal."""
    size = _diagonal(square)
    added = damping[:, None] * size + _TINY * size.max(1, keepdims=True) + 1e-300
    return np.asarray(np.linalg.solve(square + added[:, :, None] * np.eye(square.shape[1]), pull)[..., 0])


def _taps(system: StateSpace, length: int) -> Real:
    """(G, L): the kernels without D."""
    found = kernel(system, length).reshape(system.groups, length).copy()
    found[:, 0] -= system.D[:, 0, 0]
    return found


def _diagonal(a: Array) -> Real:
    return np.asarray(np.einsum("gnn->gn", a))


def _t(a: Array) -> Array:
    return a.swapaxes(1, 2)
