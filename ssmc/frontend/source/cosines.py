"""Tables of cosines that a file stores in few digits, as what they were meant to be.

Exporters without a Fourier transform write it as products with matrices of cos(2 pi m t / n) and sin(2 pi m t / n). A
table that was worked out in float32 is off by as much as its angles were rounded, a radian's last digits at angle 1000;
then nothing behind it is the same at every step, though the model was. Known by its numbers: every row, or every
column, is a wave that fits into n steps a whole number of times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ssmc.ir.graph import Graph
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor

DIGITS = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-9}
ROUNDINGS = 4.0  # of an angle, on the way to it (ours)
ANGLES = 2.0**-24  # float32's: nobody works out angles in less
MOST = 1e-3  # by which a table may be off, but for the last digit of its format
SHORTEST = 8  # steps
FEWEST = 3  # different waves
LARGEST = 1 << 25  # numbers of a table
PROBED = 9  # waves that are looked at before all are
STRETCH = 64  # steps of these that are looked at first
WHOLE = 1e-4  # relative: an amplitude that is 1/n, 2/n, 1/sqrt(n) ...


@dataclass(frozen=True, eq=False)
class Exact:
    """A table as it was meant, and by how much of its largest number the file's own is off."""

    array: Array
    off: float


def exact_cosines(graph: Graph) -> dict[str, Exact]:
    """The constants of a graph that are tables of cosines, exact, by the names of their nodes."""
    found = {}
    for node in graph.nodes("constant"):
        digits, array = DIGITS.get(getattr(node.types[0], "dtype", "?")), node.op["value"].stored
        if digits is None or array.ndim < 2 or not SHORTEST**2 <= array.size <= LARGEST:
            continue
        exact = _exact(array, digits)
        if exact is not None and 0 < exact.off <= max(MOST, 2 * digits):
            found[node.name] = exact
    return found


def with_exact(graph: Graph, tables: Mapping[str, Exact]) -> Graph:
    """The graph with these in place of its own tables."""
    found = graph.copy()
    for name, table in tables.items():
        found.set_op(name, found.op(name).with_attrs(value=Tensor(table.array)))
    return found


def _exact(array: Array, digits: float) -> Exact | None:
    if array.ndim > 4:
        return None
    for shape, axis in _arrangements(array.shape):
        waves = np.moveaxis(array.reshape(shape), axis, 0)
        if waves[0].size < FEWEST or not _wavy(_some(waves[:STRETCH]), digits):
            continue
        scale = float(np.abs(array).max())
        rows, some = waves.reshape(len(waves), -1), _some(waves)
        if not np.isfinite(scale) or not _wavy(some, digits):
            continue
        for n in _periods(*rows.shape):
            if _fitted(some, n, digits, scale, 1) is None:
                continue
            fit = _fitted(rows.astype(np.float64), n, digits, scale)
            if fit is not None:
                whole = np.moveaxis(fit.reshape(waves.shape), 0, axis).reshape(array.shape)
                return Exact(whole, float(np.abs(whole - array).max()) / scale)
    return None


def _arrangements(shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Shapes to read a table in, and the axis along which its waves go; halves of an axis may be parts re|im."""
    for axis, size in enumerate(shape):
        if size >= SHORTEST:
            yield shape, axis
        if size >= 2 * SHORTEST and size % 2 == 0:
            yield (*shape[:axis], 2, size // 2, *shape[axis + 1 :]), axis + 1
            yield (*shape[:axis], size // 2, 2, *shape[axis + 1 :]), axis


def _some(waves: Array) -> Array:
    """A few of the waves (steps, ...), spread over all of them, as (steps, waves)."""
    chosen = np.unique(np.linspace(0, waves[0].size - 1, PROBED).astype(int))
    places = np.unravel_index(chosen, waves.shape[1:])
    return np.asarray(np.moveaxis(waves, 0, -1)[places].T, np.float64)


def _wavy(some: Array, digits: float) -> bool:
    """Are a few columns of (steps, waves) solutions of x[t + 1] + x[t - 1] = 2 cos(w) x[t], of different w?

    Ramps and columns that are all alike, as layers of weights may be, are solutions of one w.
    """
    scale, cosines = np.abs(some).max(), _cosines(some)
    missed = some[2:] + some[:-2] - 2 * cosines * some[1:-1]
    off = digits + min(digits, ANGLES) * np.pi * len(some)
    if not np.abs(missed).max(initial=0.0) <= 4 * ROUNDINGS * off * scale:
        return False
    return bool(np.ptp(cosines) > digits)


def _cosines(rows: Array) -> Array:
    """cos(w) of each wave, by least squares."""
    energy = (rows[1:-1] ** 2).sum(axis=0)
    shared = (rows[1:-1] * (rows[2:] + rows[:-2])).sum(axis=0)
    return np.asarray(np.clip(shared / np.where(energy > 0, 2 * energy, 1.0), -1, 1))


def _periods(steps: int, waves: int) -> list[int]:
    """Lengths that a transform with so many steps and waves may have: of each the whole, half a spectrum, and with
    real and imaginary parts side by side."""
    sizes = [
        n for size in (steps, waves, waves // 2) for n in (size, 2 * size, 2 * (size - 1), 2 * size - 1, size // 2)
    ]
    return [n for n in dict.fromkeys(sizes) if n >= SHORTEST // 2]


def _fitted(rows: Array, n: int, digits: float, scale: float, fewest: int = FEWEST) -> Array | None:
    """The waves (steps, waves) of n steps that these are but for rounding; None where they are not."""
    angles = min(digits, ANGLES)
    quiet = np.abs(rows).max(axis=0) <= ROUNDINGS * (2 * digits + angles * np.pi * len(rows)) * scale  # sin(pi t)
    rows = np.where(quiet, 0.0, rows)
    steps, at = len(rows), np.arange(len(rows))
    circle = 2 * np.pi * np.arange(n) / n
    cosine, sine = np.cos(circle), np.sin(circle)
    # the quarters exactly: what is no number of the table is to be none
    cosine, sine = (np.where(np.abs(x) < 1e-15, 0.0, x) for x in (cosine, sine))
    guess = np.rint(np.arccos(_cosines(rows)) * n / (2 * np.pi)).astype(np.int64)
    best, missed = np.zeros_like(rows), np.full(rows.shape[1], np.inf)
    times, amplitudes = np.zeros(rows.shape[1], np.int64), np.zeros((2, rows.shape[1]))
    for step in (0, -1, 1):
        m = np.clip(guess + step, 0, n // 2)
        angle = np.outer(at, m) % n
        found = _amplitudes(rows, cosine[angle], sine[angle], digits + angles * 2 * np.pi * m * steps / n)
        wave = found[0] * cosine[angle] + found[1] * sine[angle]
        off = np.abs(wave - rows).max(axis=0)
        better = off < missed
        best[:, better], missed[better], times[better] = wave[:, better], off[better], m[better]
        amplitudes[:, better] = found[:, better]
    size = np.abs(amplitudes).max(axis=0)
    if (np.abs(amplitudes) > 0).all(axis=0).any() or len(np.unique(times)) < fewest:
        return None
    best *= np.where(size > 0, _whole(size, n, WHOLE + 2 * digits) / np.where(size > 0, size, 1.0), 0.0)
    # the largest angles say how well an amplitude is known
    angle_at = 2 * np.pi * times * (at[:, None] + steps / 16) / n
    allowed = ROUNDINGS * size * (2 * digits + angles * angle_at)
    return None if (np.abs(best - rows) > allowed).any() else best


def _amplitudes(rows: Array, cosine: Array, sine: Array, off: Array) -> Array:
    """(2, waves) of cosine and sine, by least squares; one that is no more than rounded angles leave is none."""
    cc, ss, cs = ((x * y).sum(axis=0) for x, y in ((cosine, cosine), (sine, sine), (cosine, sine)))
    a, b = (cosine * rows).sum(axis=0), (sine * rows).sum(axis=0)
    det = cc * ss - cs**2
    alone = det <= 1e-9 * cc * cc
    safe = np.where(alone, 1.0, det)
    found = np.stack(
        [
            np.where(alone, a / np.where(cc > 0, cc, 1.0), (a * ss - b * cs) / safe),
            np.where(alone, 0.0, (b * cc - a * cs) / safe),
        ]
    )
    largest = np.abs(found).max(axis=0)
    for which, (product, norm) in enumerate(((a, cc), (b, ss))):
        other = np.abs(found[1 - which]) <= ROUNDINGS * off * largest
        found[which] = np.where(other & (norm > 0), product / np.where(norm > 0, norm, 1.0), found[which])
        found[1 - which] = np.where(other, 0.0, found[1 - which])
    return found


def _whole(size: Array, n: int, near: float) -> Array:
    """Amplitudes, those exact that are (`near`, relatively) a small number over n or over the root of n."""
    exact = np.array(size)
    for unit in (1.0, 1.0 / n, 1.0 / np.sqrt(n), np.sqrt(2.0 / n)):
        count = np.rint(size / unit)
        small = (count >= 1) & (count <= 4) & (np.abs(size - count * unit) <= near * size)
        exact = np.where(small, count * unit, exact)
    return exact
