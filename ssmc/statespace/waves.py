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
        a = poles.astype(complex)
        self.grids = [(powers(a, grid.far), powers(a, grid.near)) for grid in steps.grids]
        self.count = len(poles)

    def gram(self) -> Real:
        """Inner products of the rows (R, R)."""
        plain: Array = np.zeros((self.count, self.count), complex)  # sum a_p^k a_q^k
        mixed = plain.copy()  # sum a_p^k conj(a_q)^k
        for far, near in self.grids:
            plain += (far @ far.T) * (near @ near.T)
            mixed += (far @ far.conj().T) * (near @ near.conj().T)
        cross = -2 * (plain.imag - mixed.imag)[:, self.turning]
        imaginary = 2 * (mixed.real - plain.real)[np.ix_(self.turning, self.turning)]
        return np.block([[2 * (plain.real + mixed.real), cross], [cross.T, imaginary]])

    def onto(self, taps: Real) -> Real:
        """Inner products (R,) of the rows with what there is at the steps."""
        total: Array = np.zeros(self.count, complex)
        start = 0
        for far, near in self.grids:
            part = taps[start : (start := start + far.shape[1] * near.shape[1])].reshape(far.shape[1], -1)
            inner = part @ np.concatenate([near.real, near.imag]).T
            total += (far * (inner[:, : self.count] + 1j * inner[:, self.count :]).T).sum(axis=1)
        return np.concatenate([2 * total.real, -2 * total.imag[self.turning]])

    def sum(self, amplitude: Real) -> Real:
        """The sum of the rows, each times its amplitude (R,), at all steps."""
        c = amplitude[: self.count].astype(complex)
        c[self.turning] += 1j * amplitude[self.count :]
        parts = []
        for far, near in self.grids:
            scaled = 2 * c[:, None] * far
            parts.append(
                (np.concatenate([scaled.real, -scaled.imag]).T @ np.concatenate([near.real, near.imag])).ravel()
            )
        return np.concatenate(parts)
