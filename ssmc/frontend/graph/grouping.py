"""A system given by sparse matrices, cut into groups that do not touch each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from ssmc.statespace import StateSpace

MAX_STATES = 4096  # of a system that is searched for copies of states
SAME = 1e-9  # ours: of what a state does, by which its copy may differ
ROUNDING = 4 * float(np.finfo(np.float64).eps)

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Grouped:
    """`inputs`, `states` and `outputs` say which old one stands at each new place."""

    system: StateSpace
    inputs: Index
    states: Index
    outputs: Index


def group_system(system: StateSpace, b: Any, c: Any, d: Any) -> Grouped:
    """The system of `system`'s states with input matrix b (n, I), output matrix c (O, n) and feedthrough d (O, I).

    Equal groups are found where the matrices have them, in the order of their first input; otherwise there is one.
    """
    n, inputs, outputs = b.shape[0], b.shape[1], c.shape[0]
    groups = _components(system, b, c, d)
    if groups is None:
        members = [(np.arange(n), np.arange(inputs), np.arange(outputs))]
    else:
        members = groups
    states, ins, outs = (np.concatenate([m[k] for m in members]).astype(np.int64) for k in range(3))
    fields: dict[str, Any] = {
        "A": _states(system, members),
        "B": _blocks(b, [m[0] for m in members], [m[1] for m in members]),
        "C": _blocks(c, [m[2] for m in members], [m[0] for m in members]),
        "D": np.real(_blocks(d, [m[2] for m in members], [m[1] for m in members])),
    }
    if system.x0 is not None:
        fields["x0"] = np.stack([system.x0.reshape(-1)[m[0]] for m in members])
    if system.delta is not None:
        delta = np.broadcast_to(system.delta, (system.groups, system.states)).reshape(-1)
        fields["delta"] = np.stack([delta[m[0]] for m in members])
        if np.ptp(delta) == 0:
            fields["delta"] = delta[:1].reshape(1, 1)
    return Grouped(replace(system, **fields), ins, states, outs)


def _blocks(matrix: Any, rows: list[Index], columns: list[Index]) -> Any:
    """The blocks (G, m, n) of a sparse matrix that the G sets of m rows and of n columns cut out of it."""
    entries = matrix.tocoo()
    entries.sum_duplicates()
    (group, row), (other, column) = (
        (places[0][k], places[1][k])
        for places, k in zip(
            (_places(rows, matrix.shape[0]), _places(columns, matrix.shape[1])), entries.coords, strict=True
        )
    )
    found = np.zeros((len(rows), len(rows[0]), len(columns[0])), entries.dtype)
    same = (group == other) & (group >= 0)
    found[group[same], row[same], column[same]] = entries.data[same]
    return found


def _places(members: list[Index], size: int) -> tuple[Index, Index]:
    """In which of some sets of one size each number stands (-1: in none), and where there."""
    group, place = np.full(size, -1), np.zeros(size, np.int64)
    every = np.stack(members)
    group[every], place[every] = np.arange(len(members))[:, None], np.arange(every.shape[1])
    return group, place


def _states(system: StateSpace, members: list[tuple[Index, Index, Index]]) -> Any:
    if system.diagonal:
        return np.stack([system.A.reshape(-1)[m[0]] for m in members])
    width = system.states
    states = np.arange(system.groups * width).reshape(-1, width)
    rows = np.broadcast_to(states[:, :, None], system.A.shape).reshape(-1)
    columns = np.broadcast_to(states[:, None, :], system.A.shape).reshape(-1)
    whole = sparse.coo_array((system.A.reshape(-1), (rows, columns)), shape=(states.size, states.size))
    places = [m[0] for m in members]
    return _blocks(whole, places, places)


def _components(system: StateSpace, b: Any, c: Any, d: Any) -> list[tuple[Index, Index, Index]] | None:
    """Connected parts of the states, inputs and outputs, if all are of the same size; else None."""
    n, inputs, outputs = b.shape[0], b.shape[1], c.shape[0]
    links = [(abs(b), 0, n), (abs(c), n + inputs, 0), (abs(d), n + inputs, n)]
    rows, columns = [], []
    for matrix, row, column in links:
        found = matrix.tocoo()
        kept = found.data != 0
        rows.append(found.coords[0][kept] + row)
        columns.append(found.coords[1][kept] + column)
    if not system.diagonal:
        rows.append(np.arange(n))
        columns.append(np.arange(n) // system.states * system.states)
    total = n + inputs + outputs
    r, k = np.concatenate(rows), np.concatenate(columns)
    count, label = connected_components(
        sparse.coo_array((np.ones(len(r)), (r, k)), shape=(total, total)), directed=False
    )
    order = np.argsort(label, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
    members = [(p[p < n], p[(p >= n) & (p < n + inputs)] - n, p[p >= n + inputs] - n - inputs) for p in parts]
    sizes = {tuple(len(x) for x in m) for m in members}
    if count < 2 or len(sizes) != 1 or min(next(iter(sizes))) == 0:
        return None
    return sorted(members, key=lambda m: int(m[1][0]))


def alike(one: Any, other: Any, continuous: bool = False) -> Any:
    """Which of two arrays of poles do the same over all time, but for `SAME` of it; of A where it is `continuous`.

    That is |a - a'| against the pole's distance from the circle: a slow state feels what a fast one does not.
    """
    room = np.abs(np.real(one)) if continuous else np.maximum(1.0 - np.abs(one), 0.0)
    return np.abs(one - other) <= SAME * room + ROUNDING


def without_copies(system: StateSpace, b: Any, c: Any) -> tuple[StateSpace, Any, Any]:
    """A diagonal system at rest without states that are multiples of others: equal poles, proportional rows of b.

    Real and imaginary parts read separately, or computed twice, come as such copies. Returns a system of one state
    a group, and its b and c; unchanged where there are none or the initial state is not zero.
    """
    n = b.shape[0]
    if system.x0 is not None or n > MAX_STATES or n < 2:
        return system, b, c
    a = system.A.reshape(-1)
    b = b.tocsr()
    b.sum_duplicates()
    kept: list[int] = []
    sources = np.arange(n)
    factors = np.ones(n, np.complex128)
    lead, scale = _leads(b)
    continuous = system.asynchronous or system.delta is not None
    cell = 2 * SAME * max(float(np.abs(a).max()), 1.0) + ROUNDING
    places = np.stack([lead, np.floor(a.real / cell), np.floor(a.imag / cell)], axis=1).astype(np.int64)
    rows: dict[int, dict[int, complex]] = {}  # of b, each with 1 as its first large entry
    cells: dict[tuple[int, int, int], list[int]] = {}  # of the states that are kept, by first large entry and pole
    lonely = _lonely(places)
    for i, (first, x, y) in enumerate(places.tolist()):
        if lonely[i] or first < 0:
            kept.append(i)
            continue
        columns, row = (part[b.indptr[i] : b.indptr[i + 1]] for part in (b.indices, b.data))
        rows[i] = dict(zip(columns.tolist(), (row / scale[i]).tolist(), strict=True))
        around = [k for dx in (-1, 0, 1) for dy in (-1, 0, 1) for k in cells.get((first, x + dx, y + dy), ())]
        near = (k for k in sorted(around) if alike(a[k], a[i], continuous))
        match = next((k for k in near if _apart(rows[k], rows[i]) <= SAME), None)
        if match is None:
            kept.append(i)
            cells.setdefault((first, x, y), []).append(i)
        else:
            sources[i], factors[i] = match, scale[i] / scale[match]
    if len(kept) == n:
        return system, b, c
    # x_i = factor_i x_source(i): each state is a multiple of one that stays, so the readers' columns add up.
    place = {k: j for j, k in enumerate(kept)}
    spread = sparse.csr_array((factors, (np.arange(n), [place[int(s)] for s in sources])), shape=(n, len(kept)))
    if not np.iscomplexobj(a) and not np.iscomplexobj(b.data):
        spread = spread.real
    return _alone(system, kept), b[kept], (c @ spread).tocsr()


def without_idle(system: StateSpace, b: Any, c: Any) -> tuple[StateSpace, Any, Any]:
    """A diagonal system at rest without states that nothing drives or nobody reads, as those of a head's keys in the
    sums of another head. Returns a system of one state a group, and its b and c; unchanged where there are none, or no
    others, or the initial state is not zero."""
    live = (abs(b).sum(axis=1) > 0) & (abs(c).sum(axis=0) > 0)
    if system.x0 is not None or live.all() or not live.any():
        return system, b, c
    kept = np.flatnonzero(live)
    return _alone(system, kept), b[kept], c[:, kept]


def _alone(system: StateSpace, kept: Any) -> StateSpace:
    """Some states of a diagonal system, one a group."""
    delta, one = None, np.ones((len(kept), 1, 1))
    if system.delta is not None:
        delta = np.broadcast_to(system.delta, (system.groups, system.states)).reshape(-1, 1)[kept]
    return replace(system, A=system.A.reshape(-1)[kept][:, None], B=one, C=one, D=0 * one, delta=delta)


def _leads(matrix: Any) -> tuple[Index, NDArray[np.complex128]]:
    """The column of each row's first entry that is as large as its largest, -1 in rows of zeros; and that entry."""
    size, counts = np.abs(matrix.data), np.diff(matrix.indptr)
    row = np.repeat(np.arange(len(counts)), counts)
    largest = np.zeros(len(counts))
    np.maximum.at(largest, row, size)
    good = np.flatnonzero((size >= 0.999 * largest[row]) & (size > 0))
    which, first = np.unique(row[good], return_index=True)
    lead, entry = np.full(len(counts), -1), np.ones(len(counts), np.complex128)
    lead[which], entry[which] = matrix.indices[good[first]], matrix.data[good[first]]
    return lead, entry


def _lonely(places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which places (n, 3) have no other with the same first number and none of the others more than one apart."""
    first, x, y = (places - places.min(axis=0)).T
    width, height = int(x.max()) + 3, int(y.max()) + 3
    code = (first * width + x + 1) * height + y + 1
    held, counts = np.unique(code, return_counts=True)
    around = [np.isin(code + dx * height + dy, held) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if dx or dy]
    return np.asarray(~(np.any(around, axis=0) | (counts[np.searchsorted(held, code)] > 1)))


def _apart(one: dict[int, complex], other: dict[int, complex]) -> float:
    """The largest difference between two rows of a sparse matrix."""
    return max((abs(one.get(k, 0.0) - other.get(k, 0.0)) for k in {**one, **other}), default=0.0)
