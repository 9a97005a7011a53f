"""To which grid a value is rounded, found by evaluating what stands around the rounding: a scale, a range of codes.

However it is written (QuantizeLinear and DequantizeLinear; a quotient, Round, Clip and a product; with or without what
is left of a straight-through estimator), the rounding sees a x + b of a value x, and what comes out is linear in its
result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssmc.frontend.states.transition import Map
from ssmc.ir.op import Array
from ssmc.ir.ops.rounded import on_grid

TOLERANCE = 1e-9
DIGITS = 1e-12  # that float64 keeps of a difference of codes
STORED = 1e-6  # scale and its inverse, where a file stores both in float32
LINE = 1e-7
FAR = 2.0**24  # codes: beyond any range, and few enough for x + (Q(x) - x) to keep its digits
NEAR = 2.0**-20  # a step that stays within a range
UNBOUNDED = 2.0**53  # codes: what stands for no bound
INSIDE = {"nearest": 0.0, "floor": 0.5, "ceil": -0.5}  # from a code to the middle of what is rounded to it
EDGE = {"nearest": 0.5, "floor": 0.0, "ceil": 0.0}
KINDS = {"QuantizeLinear": "nearest", "Round": "nearest", "Floor": "floor", "Ceil": "ceil"}


@dataclass(frozen=True, eq=False)
class Grid:
    """`rows` (5, n) as those of the op `rounded`."""

    rows: Array
    rounding: str

    def apply(self, x: Array) -> Array:
        return on_grid(self.rows, self.rounding, x)

    def is_near_edge(self, x: Array, room: float = 1e-3) -> Array:
        """Is x within `room` codes of where the next code begins?"""
        scale, shift = self.rows[:2]
        place = x / scale + shift - EDGE[self.rounding]
        return np.asarray(np.abs(place - np.rint(place)) < room)


def find_grid(values: Sequence[Map], places: Sequence[Map], rounding: str, batch: int, n: int) -> Grid | None:
    """The grid of maps that round, one for each sample of the data, `places` what the rounding itself sees.

    None where what they do is not the same for all samples, or is not to round to a grid.
    """
    line = _line(places, batch, n)
    if line is None:
        return None
    slope, shift = line
    scale = as_stored(1.0 / slope)
    codes, at = np.zeros(n), _same([_at(f, np.zeros(n), batch) for f in values])
    ends = [_end(values, sign * FAR * scale, batch) for sign in (-1.0, 1.0)]
    if at is None or any(end is None for end in ends):
        return None
    lowest, highest = (np.asarray(end) for end in ends)
    inside = np.clip(0.0, lowest, highest)
    codes = np.rint(inside * slope + shift)
    value = _same([_at(f, (codes + INSIDE[rounding] - shift) * scale, batch) for f in values])
    if value is None:
        return None
    zero = _whole(codes - value / scale)
    low = np.where(np.isfinite(lowest), codes + np.rint((lowest - value) / scale), -UNBOUNDED)
    high = np.where(np.isfinite(highest), codes + np.rint((highest - value) / scale), UNBOUNDED)
    step = _step(values, (low, high), zero, scale, (shift, INSIDE[rounding]), batch)
    if step is None or np.abs(step / scale - 1.0).max(initial=0.0) > STORED:
        return None
    scale = np.where(np.abs(step / scale - 1.0) > DIGITS, as_stored(step), scale)
    found = Grid(np.stack([scale, shift, zero, low, high]), rounding)
    return found if _error(found, values, batch, n) <= STORED else None


def _line(places: Sequence[Map], batch: int, n: int) -> tuple[Array, Array] | None:
    """Slope and offset (n,) of what the rounding sees around zero; None where samples differ, or where it is no growing
    line there, clipped or not."""
    rng = np.random.default_rng(13)
    offset = _same([_at(f, np.zeros(n), batch) for f in places])
    if offset is None:
        return None
    for reach in (1.0, NEAR):  # within the range, and with the most digits
        slope = _same([_at(f, np.full(n, reach), batch) - offset for f in places])
        if slope is None or not (slope > 0).all():
            return None
        slope = slope / reach
        ends = [_same([_at(f, sign * FAR / slope, batch) for f in places]) for sign in (-1.0, 1.0)]
        if ends[0] is None or ends[1] is None:
            return None
        if all(_is_line(f, slope, offset, (ends[0], ends[1]), rng, batch) for f in places):
            return slope, _whole(offset)
    return None


def _is_line(
    f: Map, slope: Array, offset: Array, ends: tuple[Array, Array], rng: np.random.Generator, batch: int
) -> bool:
    for codes in (1.0, 30.0, 1000.0):
        x = codes * rng.standard_normal((batch, len(slope))) / slope
        expected = np.clip(slope * x + offset, *ends)
        if np.abs(f(x) - expected).max(initial=0.0) > LINE * max(codes, float(np.abs(offset).max(initial=0.0))):
            return False
    return True


def _step(
    values: Sequence[Map],
    codes: tuple[Array, Array],
    zero: Array,
    scale: Array,
    shift: tuple[Array, float],
    batch: int,
) -> Array | None:
    """(n,) from one value to the next, over as many of them as there are."""
    low, high = (np.clip(code, zero - 2048, zero + 2048) for code in codes)
    if not (high > low).all():
        return None
    found = [_same([_at(f, (code + shift[1] - shift[0]) * scale, batch) for f in values]) for code in (low, high)]
    if found[0] is None or found[1] is None:
        return None
    return np.asarray((found[1] - found[0]) / (high - low))


def _end(values: Sequence[Map], x: Array, batch: int) -> Array | None:
    """(n,) the value far out, infinite where there is no last one; None where samples differ."""
    near, far = (_same([_at(f, k * x, batch) for f in values]) for k in (1.0, 2.0))
    if near is None or far is None:
        return None
    return np.where(np.abs(far - near) > STORED * np.abs(near), np.sign(x) * np.inf, near)


def _error(found: Grid, values: Sequence[Map], batch: int, n: int) -> float:
    """Largest error at random places that are not on an edge, relative to the value or to a step of the grid."""
    rng, worst = np.random.default_rng(29), 0.0
    scale, _, zero, low, high = found.rows
    low, high = np.clip(low, zero - 4096, zero + 4096), np.clip(high, zero - 4096, zero + 4096)
    for f in values:
        for span in ((low - 3, high + 3), (zero - 6, zero + 6)):
            x = scale * (rng.uniform(*span, (batch, n)) - zero)
            expected = f(x)
            error = np.abs(found.apply(x) - expected) / np.maximum(np.abs(expected), scale)
            worst = max(worst, float(np.where(found.is_near_edge(x), 0.0, error).max(initial=0.0)))
    return worst


def _at(f: Map, row: Array, batch: int) -> Array:
    return f(np.broadcast_to(row, (batch, len(row))))


def _same(rows: Sequence[Array]) -> Array | None:
    """The one row (n,) that all samples share, to the last digits."""
    stacked = np.concatenate(rows)
    if not np.isfinite(stacked).all():
        return None
    if np.ptp(stacked, axis=0).max(initial=0.0) > TOLERANCE * max(1e-300, float(np.abs(stacked).max(initial=0.0))):
        return None
    return np.asarray(stacked[0])


def as_stored(values: Array) -> Array:
    """Numbers as a file has them, in float32, where they are that but for rounding in float64."""
    narrow = values.astype(np.float32).astype(np.float64)
    return np.where(np.abs(narrow - values) <= DIGITS * np.abs(values), narrow, values)


def _whole(values: Array) -> Array:
    whole = np.rint(values)
    return np.where(np.abs(values - whole) < STORED, whole, values)
