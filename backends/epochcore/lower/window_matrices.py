"""The matrices of a linear system over windows of T steps, a channel at a time (see `lower_windows`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.ir import Node
from ssmc.ir.op import Array

# What a kernel may leave out beyond its end: the sum of these taps, beside the largest one. Under half of float32's
# last digit.
TAIL = 2.0**-26
MOST_TAPS = 4096


@dataclass(frozen=True)
class System:
    """x <- a x + b u, y = Re(c x) + d u, by channels: a, b, c (channels, states), d (channels,). Before an update is
    `before`, from the end is `reverse`. `unit` (channels, states) is what a count of a fixed-point state is worth,
    where that is chosen."""

    a: Array
    b: Array
    c: Array
    d: Array
    before: bool
    reverse: bool
    unit: Array | None = None

    @property
    def channels(self) -> int:
        return len(self.a)

    @property
    def parts(self) -> int:
        """2 where states have an imaginary half."""
        return 2 if np.iscomplexobj(self.a) else 1

    def powers(self, span: int) -> Array:
        """a^0 .. a^span, (channels, span + 1, states)."""
        return np.asarray(self.a[:, None, :] ** np.arange(span + 1)[:, None])

    def kernel(self, length: int, powers: Array | None = None) -> Array:
        """What an impulse gives, (channels, length), of the decays' `powers` as far, where they are known."""
        late, powers = int(self.before), self.powers(length) if powers is None else powers
        taps = np.zeros((self.channels, length))
        taps[:, late:] = np.einsum("hn,hkn->hk", self.c * self.b, powers[:, : length - late]).real
        taps[:, 0] += self.d
        return taps

    def some(self, part: range) -> System:
        """A part of the channels."""
        cut = slice(part.start, part.stop)
        unit = None if self.unit is None else self.unit[cut]
        return replace(self, a=self.a[cut], b=self.b[cut], c=self.c[cut], d=self.d[cut], unit=unit)


@dataclass(frozen=True)
class Window:
    """The matrices of a system over a window of `span` steps; those of its states are computed once."""

    system: System
    span: int

    @cached_property
    def powers(self) -> Array:
        """a^0 .. a^span, (channels, span + 1, states)."""
        return self.system.powers(self.span)

    @cached_property
    def inward(self) -> Array:
        """A^{T-1-i} B, (channels, span, halves of the states)."""
        of = self.system
        drive = self.powers[:, : self.span][:, ::-1] * of.b[:, None]
        return turned(np.concatenate([drive.real, drive.imag][: of.parts], -1), of.reverse, False)

    @cached_property
    def outward(self) -> Array:
        """Re(C A^{j+1} x), (channels, halves of the states, span)."""
        of = self.system
        read = self.powers[:, 1 - of.before : self.span + 1 - of.before] * of.c[:, None]
        halves = np.concatenate([read.real, -read.imag][: of.parts], -1).swapaxes(1, 2)
        return turned(halves, False, of.reverse)

    def within(self) -> Array:
        """The impulse response as a Toeplitz matrix, (channels, span, span): y_j = sum_{i <= j} h_{j-i} u_i."""
        of, span = self.system, self.span
        return turned(band(of.kernel(span, self.powers), span)[:, span - 1 :], of.reverse, of.reverse)


def band(taps: Array, span: int) -> Array:
    """(channels, past + span, span): y_j = sum_m taps_m u_{j-m} for the last `span` steps of past + span."""
    channels, length = taps.shape
    rows, cols = np.arange(length - 1 + span)[:, None], np.arange(span)
    lag = cols + length - 1 - rows
    return np.where((lag >= 0) & (lag < length), taps[:, np.clip(lag, 0, length - 1)], 0.0).reshape(channels, -1, span)


def turned(stack: Array, inputs: bool, outputs: bool) -> Array:
    """Matrices by channel with the time of their rows, or of their columns, from the end."""
    stack = stack[:, ::-1] if inputs else stack
    return stack[:, :, ::-1] if outputs else stack


def system_of(node: Node) -> System:
    """The system of a `tile.ssm` (of a liquid one without what its drive does to its decay)."""
    b, c = common(node)
    way = node.op["read_before"], node.op["reverse"]
    return System(node.op["decay"].array, b, c, node.op["d"].array, *way, unit_of(node))


def unit_of(node: Node) -> Array | None:
    """What a count of each state is worth, where that is chosen."""
    return None if node.op["unit"] is None else np.asarray(node.op["unit"].array)


def side_by_side(units: Sequence[Array | None]) -> Array | None:
    """Units of the states of several systems; none where one of them has none."""
    known = [unit for unit in units if unit is not None]
    return np.concatenate(known) if len(known) == len(units) else None


def common(node: Node) -> tuple[Array, Array]:
    """b and c of a `tile.ssm` in the decay's element type. Raises UserError where b is complex and decay real."""
    decay, b, c = (node.op[name].array for name in ("decay", "b", "c"))
    if np.iscomplexobj(decay):
        return b.astype(np.complex128), c.astype(np.complex128)
    if np.any(np.imag(b)):
        raise UserError("states with a real decay have a complex drive", where=f"node '{node.name}'")
    return np.real(b), np.real(c)


def kernel_length(system: System) -> int | None:
    """Taps after which the sum of all others is under `TAIL` of the largest one; None for more than `MOST_TAPS`.

    The taps from k on sum up to at most sum_n |c_n b_n| |a_n|^k / (1 - |a_n|); each state has its share.
    """
    gain, size = np.abs(system.c * system.b), np.abs(system.a)
    lasting = (gain > 0) & (size > 0)
    if not lasting.any():
        return 1 + int(system.before)
    # no tap is larger than all shares in it, and what they give through: most kernels are told to be long by that
    largest = gain.sum(1, keepdims=True) + np.abs(system.d)[:, None]
    if (size[lasting] >= 1).any() or not _taps(largest, gain, size)[lasting].max() < MOST_TAPS - 2:
        return None
    taps = _taps(np.abs(system.kernel(64)).max(1, keepdims=True), gain, size)[lasting]
    if not taps.max() < MOST_TAPS - 2:
        return None
    return ceil(float(taps.max())) + 1 + int(system.before)


def _taps(largest: Array, gain: Array, size: Array) -> Array:
    """By state the taps after which its share of the others is small enough, of a kernel with such a `largest` tap."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = TAIL * largest / gain.shape[1] * (1 - size) / gain
        return np.where(share < 1, np.log(share) / np.log(size), 0.0)
