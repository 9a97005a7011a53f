"""Steps of numbers that are each a rounded sum of others, of the same step or the one before: x = G(W (x', x) + v).

What is left of a linear step whose every node is rounded, by whatever grids and in whatever order: a state matrix,
parts that are rounded apart and then put together, what is scaled after it was rounded. A threshold is a grid of two
codes; what is reset or held by it is a term that counts only where the number of the threshold is not 0, its gate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmc.ir.op import Array, Attribute, Op, OpSpec
from ssmc.ir.ops.rounded import GRID, ROUNDINGS
from ssmc.ir.ops.temporal import READ_BEFORE, REVERSE
from ssmc.ir.tensor import Tensor
from ssmc.ir.types import SequenceType, StreamType, ValueType

TERM = ("number", "source", "weight")
GATED = (*TERM, "gate")
OPEN = -1  # the gate of a term that counts at every step
FREE = 0.0  # the scale of a number that lies on no grid


@dataclass(frozen=True, eq=False)
class Wave:
    """Numbers that need none of each other: their places, and the k-th terms of those that have so many."""

    places: Array  # (m,)
    terms: tuple[tuple[Array, Array, Array, Array], ...]  # rows of the wave, sources in (before, now), weights, gates


@dataclass(frozen=True, eq=False)
class Sums:
    """One step, ready to run: `grid` (5, n) in rows as in GRID, numbers in waves."""

    grid: Array
    rounding: str
    waves: tuple[Wave, ...]

    def step(self, x: Array, v: Array) -> tuple[Array, Array]:
        """(what each sum reaches, what is kept of it) from the numbers `x` of the step before and the drive `v`, both
        (batch, n)."""
        n = self.grid.shape[1]
        one = np.ones((len(v), 1))  # at the place OPEN
        values, reached = np.concatenate([x, np.empty_like(v), one], axis=1), np.empty_like(v)
        for wave in self.waves:
            total = np.zeros((len(v), len(wave.places)))
            for rows, sources, weights, gates in wave.terms:
                part = weights * values[:, sources]
                total[:, rows] += np.where(values[:, gates] != 0, part, 0.0) if len(gates) else part
            total += v[:, wave.places]
            reached[:, wave.places] = total
            values[:, n + wave.places] = kept(self.grid[:, wave.places], self.rounding, total)
        return reached, values[:, n:-1]


def kept(grid: Array, rounding: str, x: Array) -> Array:
    """The grid's values for x, and x itself where the scale is `FREE`."""
    scale, shift, zero, low, high = grid
    free = scale == FREE
    scale = np.where(free, 1.0, scale)
    found = scale * (np.clip(ROUNDINGS[rounding](x / scale + shift), low, high) - zero)
    return np.asarray(np.where(free, x, found))


def sums(grid: Array, terms: Array, rounding: str) -> Sums:
    """Of `grid` (5, n) and `terms` in rows as in GATED, with or without the last, by number; n + j is number j of the
    same step."""
    n = grid.shape[1]
    number, source, gate = _whole(terms)
    level = np.zeros(n, np.int64)
    for i, *read in zip(number, source, gate, strict=True):  # sources of a step stand before what is made of them
        level[i] = max(level[i], *(level[j - n] + 1 for j in read if j >= n), 0)
    first = np.searchsorted(number, np.arange(n))
    rank = np.arange(len(number)) - first[number]
    waves = []
    for wave in range(int(level.max(initial=0)) + 1):
        places = np.flatnonzero(level == wave)
        row = np.zeros(n, np.int64)
        row[places] = np.arange(len(places))
        own = level[number] == wave
        deepest = int(rank[own].max(initial=-1)) + 1
        chosen = [np.flatnonzero(own & (rank == k)) for k in range(deepest)]
        gates = [gate[t] if np.any(gate[t] != OPEN) else np.zeros(0, np.int64) for t in chosen]
        rows = [(row[number[t]], source[t], terms[2, t], g) for t, g in zip(chosen, gates, strict=True)]
        waves.append(Wave(places, tuple(rows)))
    return Sums(grid, rounding, tuple(waves))


def _whole(terms: Array) -> tuple[Array, Array, Array]:
    """(number, source, gate) of each term."""
    gate = terms[GATED.index("gate")] if len(terms) > len(TERM) else np.full(terms.shape[1], OPEN)
    return terms[0].astype(np.int64), terms[1].astype(np.int64), gate.astype(np.int64)


def sums_of(op: Op) -> Sums:
    """The sums of a `rounded_sums` op."""
    return sums(op["grid"].array, op["terms"].array, str(op["rounding"]))


def islands(n: int, terms: Array) -> list[Array]:
    """The numbers in sets that do not depend on each other, each ascending, those with the smallest number first."""
    import networkx as nx

    links: nx.Graph[int] = nx.Graph()
    links.add_nodes_from(range(n))
    number, source, gate = _whole(terms)
    links.add_edges_from(zip(number.tolist(), (source % n).tolist(), strict=True))
    gated = gate != OPEN
    links.add_edges_from(zip(number[gated].tolist(), (gate[gated] % n).tolist(), strict=True))
    return sorted((np.array(sorted(part)) for part in nx.connected_components(links)), key=lambda part: int(part[0]))


def part_of(n: int, terms: Array, places: Array) -> Array:
    """The terms of some of the n numbers, which no others feed, counted among themselves."""
    at = np.full(n, -1)
    at[places] = np.arange(len(places))
    number, source, gate = _whole(terms)
    own = at[number] >= 0
    moved, moved_gate = (at[read % n] + np.where(read >= n, len(places), 0) for read in (source, gate))
    gates = [np.where(gate == OPEN, OPEN, moved_gate)] if len(terms) > len(TERM) else []
    found = np.stack([at[number], moved, terms[2], *gates])[:, own]
    return np.asarray(found[:, np.argsort(found[0], kind="stable")])


def steps(op: Op, v: Array, x0: Any) -> Iterator[tuple[int, Array, Array, Array]]:
    """(step, numbers before, what sums reach, numbers after) over v (batch, steps, n), in the op's direction."""
    step = sums_of(op).step
    start = 0.0 if x0 is None else np.asarray(x0, np.float64).reshape(-1, v.shape[2])
    x = np.array(np.broadcast_to(start, (len(v), v.shape[2])), np.float64)
    order = range(v.shape[1])
    for k in reversed(order) if op["reverse"] else order:
        reached, following = step(x, v[:, k])
        yield k, x, reached, following
        x = following


def _type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    v, x0 = kinds
    if not isinstance(v, StreamType) or v.element != "real" or len(v.shape) != 1:
        raise ValueError("'v' must be a stream of vectors of real numbers")
    n, (rows, count) = v.shape[0], op["terms"].shape
    if op["grid"].shape != (len(GRID), n):
        raise ValueError(f"'grid' has the shape {op['grid'].shape}, the drive {v.shape}")
    if op["rounding"] not in ROUNDINGS:
        raise ValueError(f"'rounding' is one of {', '.join(ROUNDINGS)}")
    if rows not in (len(TERM), len(GATED)) or count == 0:
        raise ValueError(f"'terms' has the shape {op['terms'].shape}, not ({len(TERM)}, terms), or with gates one more")
    number, source, gate = _whole(op["terms"].array)
    outside = (number < 0) | (number >= n) | (source < 0) | (gate < OPEN) | (np.maximum(source, gate) >= n + number)
    if np.any(np.diff(number) < 0) or np.any(outside):
        raise ValueError("'terms' stand by number, and take numbers of the step before or earlier ones of the same")
    if x0 is not None and x0.shape != v.shape:
        raise ValueError(f"'x0' has the shape {x0.shape}, the drive {v.shape}")
    return (v, SequenceType(v.shape))


def _meaning(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    v, x0 = (*arrays, None)[:2]
    y, last = np.empty(v.shape), np.zeros((len(v), v.shape[2]))
    if x0 is not None:
        last[...] = x0
    for k, x, reached, following in steps(op, v, x0):
        y[:, k] = x if op["read_before"] else reached if op["reached"] else following
        last = following
    return (y, np.array(last))


SPECS = (
    OpSpec(
        "rounded_sums",
        "ssm",
        ("v", "x0?"),
        ("x", "last"),
        (
            Attribute("grid", Tensor, "rows scale, shift, zero, low, high, a number for each sum; scale 0: no grid"),
            Attribute(
                "terms",
                Tensor,
                "rows number, source, weight, perhaps gate, by number; n + j: number j of the step",
            ),
            Attribute("rounding", str, ", ".join(ROUNDINGS), "nearest"),
            Attribute("reached", bool, "x_k is what sums reach, before they are rounded", False),
            REVERSE,
            READ_BEFORE,
        ),
        _type,
        _meaning,
        "A step whose every sum is rounded: number i of step k is G_i(sum_t weight_t source_t + v_k,i), where sources "
        "are numbers of the step before, or earlier ones of the same. A term counts only where its gate, a number like "
        "its source, is not 0; a gate of -1 is none. G is as in `rounded`, scale (clip(round(x / scale + shift), low, "
        "high) - zero), terms are added in their order, the drive last.",
    ),
)
