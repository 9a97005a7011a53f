"""Waves `a^k` at many steps: their inner products, and sums of them, without the waves themselves.

Steps that are all sums of a few far ones and a few near ones make a wave the outer product of two short ones, and inner
products of waves products of inner products: L steps cost as much as 2 sqrt(L) do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ssmc.statespace.response import powers
from ssmc.statespace.system import Array, Real


@dataclass(frozen=True, eq=False)
class Grid:
    """Steps `far + near`, every sum of the two, in that order."""

    far: Array  # (F,)
    near: Array  # (N,)


@dataclass(frozen=True, eq=False)
class Steps:
    """The steps of some grids, one after the other."""

    grids: tuple[Grid, ...]

    @cached_property
    def all(self) -> Array:
        return np.concatenate([np.add.outer(grid.far, grid.near).ravel() for grid in self.grids])


def consecutive(last: int) -> Steps:
    """The steps 1 to `last`."""
    near = math.isqrt(last)
    far = last // near
    whole = Grid(near * np.arange(far), 1 + np.arange(near))
    rest = Grid(np.array([near * far]), 1 + np.arange(last - near * far))
    return Steps((whole, rest) if len(rest.near) else (whole,))


def sampled(last: int, count: int) -> Steps:
    """Some `count` of the steps 1 to `last`, spread over all of them, at distances of every size."""
    if last <= count:
        return consecutive(last)
    side = int(np.sqrt(count))
    room = last // side
    near = np.random.default_rng(0).choice(room, min(side, room), replace=False)
    return Steps((Grid(1 + room * np.arange(side), np.sort(near)),))


class Waves:
    """`w_p = 2 a_p^k` of P poles at some steps: as rows, `Re w`, then `-Im w` of the poles that are complex."""

    def __init__(self, poles: Array, steps: Steps) -> None:
        self.turning = np.flatnonzero(poles.imag != 0)
        self.count = len(poles)
        a = poles.astype(complex)
        self.steps = steps
        self.grids = [(powers(a, grid.far), powers(a, grid.near)) for grid in steps.grids]
        self.rows = np.concatenate([np.arange(self.count), self.turning])  # whose each row is
        self.turns = np.concatenate([np.ones(self.count, complex), np.full(len(self.turning), 1j)])  # Re(turn w)

    def gram(self) -> Real:
        """Inner products of the rows (R, R)."""
        plain: Array = np.zeros((self.count, self.count), complex)  # sum a_p^k a_q^k
        mixed = plain.copy()  # sum a_p^k conj(a_q)^k
        for far, near in self.grids:
            plain += (far @ far.T) * (near @ near.T)
            mixed += (far @ far.conj().T) * (near @ near.conj().T)
        return self._inner(plain, self.turns, mixed, self.turns)

    def moved(self, factors: Array) -> tuple[Real, Real]:
        """Inner products of the rows `Re(factor k w)` with the rows (R, R), and with each other.

        `factors` (R,) complex: of every pole one, then another one of each that is complex.
        """
        shape = (self.count, self.count)
        plain, mixed, both, crossed = (np.zeros(shape, complex) for _ in range(4))
        for grid, (far, near) in zip(self.steps.grids, self.grids, strict=True):
            later, soon = grid.far * far, grid.near * near
            for total, square, f, n in ((plain, both, far, near), (mixed, crossed, far.conj(), near.conj())):
                fs, ns = later if f is far else later.conj(), soon if n is near else soon.conj()
                ff, nn, lf, sn = far @ f.T, near @ n.T, later @ f.T, soon @ n.T
                total += lf * nn + ff * sn
                square += (later @ fs.T) * nn + lf * (near @ ns.T) + (far @ fs.T) * sn + ff * (soon @ ns.T)
        return self._inner(plain, factors, mixed, self.turns), self._inner(both, factors, crossed, factors)

    def _inner(self, plain: Array, left: Array, mixed: Array, right: Array) -> Real:
        """`sum Re(left x_p) Re(right y_q)` of the rows p, q, from `sum x y / 4` and `sum x conj(y) / 4` of poles."""
        at = np.ix_(self.rows, self.rows)
        return np.asarray(2 * (left[:, None] * (right * plain[at] + right.conj() * mixed[at])).real)

    def onto(self, taps: Real) -> Real:
        """Inner products (R,) of the rows with what there is at the steps."""
        return np.asarray((2 * self.turns * self._along(taps)[self.rows]).real)

    def moved_onto(self, taps: Real, factors: Array) -> Real:
        """Inner products (R,) of the rows `Re(factor k w)` with what there is at the steps."""
        return np.asarray((2 * factors * self._along(self.steps.all * taps)[self.rows]).real)

    def _along(self, taps: Real) -> Array:
        """`sum a_p^k taps_k` (P,)."""
        total: Array = np.zeros(self.count, complex)
        start = 0
        for far, near in self.grids:
            part = taps[start : (start := start + far.shape[1] * near.shape[1])].reshape(far.shape[1], -1)
            inner = part @ np.concatenate([near.real, near.imag]).T
            total += (far * (inner[:, : self.count] + 1j * inner[:, self.count :]).T).sum(axis=1)
        return total

    def sum(self, amplitude: Real) -> Real:
        """The sum of the rows, each times its amplitude (R,), at all steps."""
        c = amplitude[: self.count].astype(complex)
        c[self.turning] += 1j * amplitude[self.count :]
        parts = []
        for far, near in self.grids:
            scaled = 2 * c[:, None] * far
            left = np.concatenate([scaled.real, -scaled.imag]).T
            parts.append((left @ np.concatenate([near.real, near.imag])).ravel())
        return np.concatenate(parts)
