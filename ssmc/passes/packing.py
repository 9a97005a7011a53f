"""Rectangles of weights into arrays: maximal free rectangles, best fit (Jylanki, 'A thousand ways to pack the bin')."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

Free = tuple[int, int, int, int]  # row, column, height, width


@dataclass
class _Shelf:
    """One array: the maximal rectangles that are still free, which may overlap."""

    free: list[Free]

    def best(self, height: int, width: int) -> tuple[int, int, int] | None:
        """(what the tighter side leaves, row, column) of the best place."""
        fits = [(min(h - height, w - width), r, c) for r, c, h, w in self.free if h >= height and w >= width]
        return min(fits, default=None)

    def take(self, row: int, col: int, height: int, width: int) -> None:
        pieces: list[Free] = []
        for r, c, h, w in self.free:
            if row >= r + h or row + height <= r or col >= c + w or col + width <= c:
                pieces.append((r, c, h, w))
                continue
            pieces += [
                (r, c, row - r, w),
                (row + height, c, r + h - row - height, w),
                (r, c, h, col - c),
                (r, col + width, h, c + w - col - width),
            ]
        sound = list(dict.fromkeys(p for p in pieces if p[2] > 0 and p[3] > 0))
        self.free = [p for p in sound if not any(p != q and _within(p, q) for q in sound)]


def _within(p: Free, q: Free) -> bool:
    return p[0] >= q[0] and p[1] >= q[1] and p[0] + p[2] <= q[0] + q[2] and p[1] + p[3] <= q[1] + q[3]


@dataclass
class _Open:
    """Arrays that may have room for a piece of some size: one that had none never has again. `known` have been seen."""

    units: list[int] = field(default_factory=list)
    known: int = 0

    def of(self, shelves: list[_Shelf]) -> list[int]:
        self.units += [unit for unit in range(self.known, len(shelves)) if shelves[unit].free]
        self.known = len(shelves)
        return self.units


@dataclass
class Packing:
    """Arrays of `rows` x `cols` weights, filled as pieces come.

    Pieces share an array in disjoint rectangles: the gates of the rows that are not driven are shut, so that they add
    no current, and columns that are not read float (one transistor a cell).
    """

    rows: int
    cols: int
    shelves: list[_Shelf] = field(default_factory=list)
    _open: dict[tuple[int, int], _Open] = field(default_factory=dict)  # by height and width

    def add(self, height: int, width: int, most: int | None = None) -> tuple[int, int, int] | None:
        """(array, first row, first column): in the youngest array that has room, for its neighbours' sake; None where
        that would take more than `most` arrays."""
        units, found = self._open.setdefault((height, width), _Open()).of(self.shelves), None
        while units and (found := self.shelves[units[-1]].best(height, width)) is None:
            units.pop()
        if found is not None:
            unit = units[-1]
        else:
            if most is not None and len(self.shelves) >= most:
                return None
            unit, found = len(self.shelves), (0, 0, 0)
            self.shelves.append(_Shelf([(0, 0, self.rows, self.cols)]))
        _, row, col = found
        self.shelves[unit].take(row, col, height, width)
        return unit, row, col


def pack(groups: Iterable[list[tuple[int, int]]], rows: int, cols: int) -> tuple[list[list[tuple[int, int, int]]], int]:
    """Places of every group's (height, width), and how many arrays they take; groups in order, large pieces first."""
    packing = Packing(rows, cols)
    places = []
    for group in groups:
        found: dict[int, tuple[int, int, int]] = {}
        for i in sorted(range(len(group)), key=lambda i: (-group[i][0] * group[i][1], -max(group[i]))):
            place = packing.add(*group[i])
            assert place is not None
            found[i] = place
        places.append([found[i] for i in range(len(group))])
    return places, len(packing.shelves)
