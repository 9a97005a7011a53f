"""The poles of a kernel: from tables in the file that generate it, or from the kernel itself where it is one mode.

A model that computes its kernel holds, among the constants that the kernel is made of, a table with the powers of
its poles along time: exp(a l), cos(w l), Re(c a^l). Such a row satisfies x[l+1] = p x[l] + q x[l-1], whose roots
are the pole (a real one, or a conjugate pair).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ssmc.frontend.flow import Known, Raw
from ssmc.frontend.regions import Region
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

ROUNDING = 3e-5  # of tables that were computed in float32, where the phase of the last step has lost that much


@dataclass(frozen=True, eq=False)
class Generator:
    """Poles (channels, modes), imaginary part >= 0, and how far the table's rows are from powers of them."""

    poles: Array
    rounding: float


def row_poles(rows: Array) -> tuple[Array, Array]:
    """The pole of each row (R, L) of a table, and the row's largest deviation from a mode of it, relative."""
    now, before, after = rows[:, 1:-1], rows[:, :-2], rows[:, 2:]
    nn, nb, bb = (now * now).sum(1), (now * before).sum(1), (before * before).sum(1)
    na, ba = (now * after).sum(1), (before * after).sum(1)
    scale = np.maximum(np.abs(rows).max(axis=1, initial=0.0), 1e-300)
    with np.errstate(all="ignore"):
        ratio = np.where(nn > 0, na / nn, 0.0)
        lone = np.abs(after - ratio[:, None] * now).max(axis=1, initial=0.0) / scale
        determinant = nn * bb - nb**2
        p = (na * bb - ba * nb) / determinant
        q = (nn * ba - nb * na) / determinant
        paired = np.abs(after - p[:, None] * now - q[:, None] * before).max(axis=1, initial=0.0) / scale
        square = p**2 + 4 * q
        pole = p / 2 + 0.5j * np.sqrt(np.maximum(-square, 0.0))
    usable = np.isfinite(paired) & (square < 0) & (paired < 0.1 * lone)
    return np.where(usable, pole, ratio), np.where(usable, paired, lone)


def generators(translator: Translator, region: Region, channels: int, length: int) -> Iterator[Generator]:
    """Poles for each of a region's channels that tables in the file speak of, the tables nearest the kernel first."""
    seen: set[Value] = set()
    for value, array in _tables(translator, region):
        if value in seen or array.dtype.kind != "f" or array.size < length or array.size > 1 << 27:
            continue
        seen.add(value)
        for axis in range(array.ndim):
            if array.shape[axis] == length:
                found = _from_table(np.moveaxis(array, axis, -1), channels)
                if found is not None:
                    yield found


def _tables(translator: Translator, region: Region) -> Iterator[tuple[Value, Array]]:
    """Constant arrays that a region is made of, the nearest first."""
    waiting = [v for call in reversed(region.calls) for v in call.operands if v is not None]
    seen = set()
    while waiting:
        value = waiting.pop(0)
        if value in seen:
            continue
        seen.add(value)
        item = translator.lookup(value)
        if isinstance(item, Raw) or not isinstance(item, Known):
            continue
        if isinstance(item.array, np.ndarray):
            yield value, item.array
        call = translator.listing.producer.get(value)
        if call is not None:
            waiting += [v for v in call.operands if v is not None]


def _from_table(table: Array, channels: int) -> Generator | None:
    """A table (..., L) as poles (channels, modes): one of its axes is the channels', the rest are modes."""
    rows = table.reshape(-1, table.shape[-1]).astype(np.float64)
    if len(rows) < channels or len(rows) % channels or not np.isfinite(rows).all():
        return None
    live = np.abs(rows).max(axis=1) > 0
    if not live.any():
        return None
    poles, deviation = row_poles(rows)
    rounding = float(deviation[live].max())
    if rounding > ROUNDING or np.abs(poles).max() > 1.0 + 1e-3:
        return None
    shape = table.shape[:-1]
    for axis in range(len(shape)):
        if shape[axis] == channels:
            return Generator(np.moveaxis(poles.reshape(shape), axis, 0).reshape(channels, -1), rounding)
    return None


def shared_mode(kernels: Array) -> Array | None:
    """The pole (channels,) of kernels (channels, width, L) that are each one mode after their first tap, or None."""
    tail = kernels[:, :, 1:]
    strongest = np.argmax((tail**2).sum(axis=2), axis=1)
    rows = tail[np.arange(len(tail)), strongest]
    poles, deviation = row_poles(rows)
    return poles if float(deviation.max(initial=0.0)) < 1e-9 else None


def distinct(poles: Sequence[complex]) -> Array:
    """Poles without repetitions, which would make the residues undetermined."""
    kept: list[complex] = []
    for pole in poles:
        if all(abs(pole - other) > 1e-12 for other in kept):
            kept.append(pole)
    return np.asarray(kept)
