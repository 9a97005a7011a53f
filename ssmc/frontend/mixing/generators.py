"""The poles of a kernel: from tables in the file that generate it, or from the kernel itself where it is one mode.

A model that computes its kernel holds, among the constants that the kernel is made of, a table with the powers of
its poles along time: exp(a l), cos(w l), Re(c a^l). Such a row satisfies x[l+1] = p x[l] + q x[l-1], whose roots
are the pole (a real one, or a conjugate pair).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ssmc.frontend.graph.flow import Known
from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.statics import Index, Table
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

LARGE = 1 << 21  # entries of a table that is not looked at whole
CLOSE = 1e-11  # of a row, where polishing ends
GROWTH = 20.0  # nepers over the whole table, of poles that rounding has put outside the unit circle
ROUNDING = 3e-5  # of tables that were computed in float32, where the phase of the last step has lost that much
UNITS = 16  # ours: roundings of float32 that a recurrence along a table may be off by


@dataclass(frozen=True, eq=False)
class Generator:
    """Poles (channels, modes), imaginary part >= 0, and how far float32 put the table's rows from powers of them.

    `rows` (channels, modes, K) is the table itself at the steps `at` (K,), some or all of them: where its modes add up
    to the kernel, each tells its residue.
    """

    poles: Array
    rounding: float
    rows: Array | None = None
    at: Array | None = None


def row_poles(rows: Array) -> tuple[Array, Array]:
    """The pole of each row of a table, and the row's largest deviation from a mode of it, relative.

    `rows` (R, L), or (R, K, L) where each row consists of K signals that share a pole.
    """
    rows = rows[:, None] if rows.ndim == 2 else rows
    now, before, after = rows[..., 1:-1], rows[..., :-2], rows[..., 2:]

    def inner(x: Array, y: Array) -> Array:
        return np.asarray((x * y).sum(axis=(1, 2)))

    def worst(x: Array) -> Array:
        return np.asarray(np.abs(x).max(axis=(1, 2), initial=0.0))

    nn, nb, bb, na, ba = (
        inner(x, y) for x, y in ((now, now), (now, before), (before, before), (now, after), (before, after))
    )
    scale = np.maximum(worst(rows), 1e-300)
    with np.errstate(all="ignore"):
        ratio = np.where(nn > 0, na / nn, 0.0)
        lone = worst(after - ratio[:, None, None] * now) / scale
        # Least squares by Gram-Schmidt: a pole next to the real axis makes `now` and `before` almost parallel.
        here, there = nb / bb, ba / bb
        part = now - here[:, None, None] * before
        p = inner(part, after - there[:, None, None] * before) / inner(part, part)
        q = there - p * here
        paired = worst(after - p[:, None, None] * now - q[:, None, None] * before) / scale
        square = p**2 + 4 * q
        pole = p / 2 + 0.5j * np.sqrt(np.maximum(-square, 0.0))
    usable = np.isfinite(paired) & (square < 0) & (paired < 0.1 * lone)
    return np.where(usable, pole, ratio), np.where(usable, paired, lone)


def explained(poles: Array, deviation: Array, length: int) -> Array:
    """How much of each row's deviation from its mode computing `exp(l log a)` in float32 explains.

    The exponent is rounded too: by l |log a| of its last places at step l, where the mode has fallen to |a|^l. Two
    modes that are close deviate from one by more: a kernel of theirs is not one mode to within its rounding.
    """
    exponent = np.log(np.where(poles == 0, 1e-300, poles).astype(np.complex128))
    fall = np.maximum(-exponent.real, 1e-300)
    at = np.minimum(1.0 / fall, length)  # where l |a|^l is largest
    lost = 2.0**-24 * (1.0 + np.abs(exponent) * at * np.exp(-fall * at))
    return np.asarray(np.minimum(deviation, UNITS * lost))


def polished(rows: Array, steps: Array, poles: Array) -> tuple[Array, Array]:
    """Each row's pole and amplitude in `x[l] = Re(c a^l)`, by Gauss-Newton over the whole row: (poles, amplitudes).

    `rows` (R, K) at `steps` (K,), `poles` (R,) a start within a fraction of a turn over the row. Real poles stay real,
    and a pole inside the unit circle stays there. At most 512 points of a row are used.
    """
    chosen = _spread(rows.shape[-1], 512)
    at, x = steps[chosen], rows[:, chosen].astype(np.float64)
    z = np.where(poles == 0, 1e-300, poles).astype(np.complex128)
    turning = (z.imag != 0)[:, None]
    bound, height = np.maximum(np.abs(z), 1.0), np.abs(x).max(axis=1, initial=0.0)
    best, least = z.copy(), np.full(len(z), np.inf)
    amplitude: Array = np.zeros(len(z), np.complex128)
    for _ in range(6):
        wave = np.exp(np.log(z)[:, None] * at)
        basis = np.stack([wave.real, np.where(turning, -wave.imag, 0.0)], axis=-1)
        c = (np.linalg.pinv(basis) @ x[..., None])[..., 0] @ np.array([1, 1j])
        fitted = c[:, None] * wave
        missed = x - fitted.real
        size = np.abs(missed).max(axis=1, initial=0.0)
        better = size < least
        best, amplitude, least = (np.where(better, new, old) for new, old in ((z, best), (c, amplitude), (size, least)))
        if (least <= CLOSE * height).all():
            break
        slopes = np.stack([at * fitted.real, np.where(turning, -at * fitted.imag, 0.0)], axis=-1)
        scale = np.maximum(np.abs(slopes).max(axis=1, keepdims=True), 1e-300)
        step = (np.linalg.pinv(np.concatenate([basis, slopes / scale], axis=-1)) @ missed[..., None])[..., 0]
        z = z * np.exp(np.clip(step[:, 2:] / scale[:, 0], -1, 1) @ np.array([1, 1j]))
        z = z * np.minimum(bound / np.abs(z), 1.0)
    below = best.imag < 0
    return np.where(below, best.conj(), best), np.where(below, amplitude.conj(), amplitude)


def generators(translator: Translator, region: Region, channels: int, length: int) -> Iterator[Generator]:
    """Poles for each of a region's channels that tables in the file speak of, the tables nearest the kernel first."""
    seen: set[Value] = set()
    for value, table in _tables(translator, region):
        if value in seen or table.size < length:
            continue
        seen.add(value)
        for axis in range(len(table.shape)):
            if table.shape[axis] == length:
                for backward in (True, False):
                    found = _from_table(table, axis, channels, backward)
                    if found is not None:
                        yield found


def _tables(translator: Translator, region: Region) -> Iterator[tuple[Value, Array | Table]]:
    """Constant arrays that a region is made of, the nearest first."""
    waiting = deque(v for call in reversed(region.calls) for v in call.operands if v is not None)
    listing = translator.listing
    seen = set()
    while waiting:
        value = waiting.popleft()
        if value in seen:
            continue
        seen.add(value)
        if value in listing.tables:
            yield value, listing.tables[value]
        else:
            item = translator.lookup(value)
            if item is None and value in listing.folded:
                item = Known(evaluate(listing, {}, [value])[value])
            if not isinstance(item, Known):
                continue
            if isinstance(item.array, np.ndarray) and item.array.dtype.kind == "f":
                yield value, item.array
        call = listing.producer.get(value)
        if call is not None:
            waiting += [v for v in call.operands if v is not None]


def _spread(count: int, most: int) -> Array:
    """At most so many of `count` places, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _from_table(table: Array | Table, axis: int, channels: int, backward: bool) -> Generator | None:
    """A table with time along `axis` as poles (channels, modes): another axis is the channels', the rest are modes.

    Of a large one the first steps give the poles, and some of all steps go with the answer. `backward` asks for a table
    whose last step is the kernel's first, as where the kernel is made ready for a convolution: one that grows.
    """
    length, count = table.shape[axis], table.size // table.shape[axis]
    if count < channels or count % channels:
        return None
    whole = table.size <= LARGE
    first = length if whole else min(length, max(512, LARGE // count))
    near = _steps(table, axis, slice(length - first, length) if backward else slice(0, first))
    near = near[..., ::-1] if backward else near
    if backward and not _grows(near):
        return None
    rows = near.reshape(count, first)
    if not np.isfinite(rows).all():
        return None
    live = np.abs(rows).max(axis=1) > 0
    if not live.any():
        return None
    poles, deviation = row_poles(rows)
    rounding = float(deviation[live].max())
    growth = float(np.abs(poles).max())
    if rounding > ROUNDING or growth > 1.0 + 1e-3 or length * np.log(max(growth, 1.0)) > GROWTH:
        return None
    at = np.arange(length) if whole else _spread(length, 512)
    seen = near if whole else _steps(table, axis, length - 1 - at if backward else at)
    shape = near.shape[:-1]
    for k in range(len(shape)):
        if shape[k] == channels:
            ordered = np.moveaxis(seen, k, 0).reshape(channels, -1, len(at))
            told = float(explained(poles, deviation, length)[live].max())
            return Generator(np.moveaxis(poles.reshape(shape), k, 0).reshape(channels, -1), told, ordered, at)
    return None


def _grows(turned: Array) -> bool:
    """Is most of a table, here turned around in time, at its end?"""
    half = turned.shape[-1] // 2
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.linalg.norm(turned[..., :half]) > np.linalg.norm(turned[..., half:]))


def _steps(table: Array | Table, axis: int, index: Index) -> Array:
    """Some steps of a table in float64, time as the last axis."""
    part = table.part(axis, index) if isinstance(table, Table) else table[(slice(None),) * axis + (index,)]
    return np.moveaxis(part, axis, -1).astype(np.float64)


def shared_mode(kernels: Array) -> Generator | None:
    """The pole of each of the kernels (channels, width, L), if each is one mode after its first tap."""
    tail = kernels[:, :, 1:]
    poles, deviation = row_poles(tail)
    if kernels.shape[1] == 2:  # one complex number, given as two inputs: its powers are geometric, which is sharper
        z = tail[:, 0] - 1j * tail[:, 1]
        with np.errstate(all="ignore"):
            ratio = (z[:, :-1].conj() * z[:, 1:]).sum(axis=1) / (np.abs(z[:, :-1]) ** 2).sum(axis=1)
            missed = np.abs(z[:, 1:] - ratio[:, None] * z[:, :-1]).max(axis=1, initial=0.0) / np.abs(z).max(axis=1)
        sharper = missed <= np.maximum(deviation, 1e-9)
        poles, deviation = np.where(sharper, ratio, poles), np.where(sharper, missed, deviation)
    rounding = float(deviation.max(initial=0.0))
    if rounding > ROUNDING:
        return None
    return Generator(poles[:, None], float(explained(poles, deviation, kernels.shape[2]).max(initial=0.0)))
