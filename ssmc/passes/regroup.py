"""Groups of a system put together: those whose outputs are added, with what is done to inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from ssmc.ir import Graph, StreamType, Value
from ssmc.ir.op import Array
from ssmc.passes.linear_maps import Matrix, itself, terms_of, words
from ssmc.passes.rewrite import constant_of
from ssmc.statespace import StateSpace
from ssmc.statespace.system import dense_matrix

LEAST_DECAY = 1e-3  # of a state from which the one before it is computed
MOST = 1 << 24  # entries of a matrix of the new system


@dataclass(frozen=True)
class Drive:
    """A system's inputs: the word `index` of `source` times `scale` each; `silent`: all zero, as long as `source`."""

    source: Value
    index: Array
    scale: Array
    silent: bool = False


@dataclass(frozen=True)
class Regrouped:
    """The new system, with real outputs. `columns`: the words of the drive that are its inputs; `order`: which state
    of the old one (group by group) each of its states is; `place`: where each row of the readout is in its outputs."""

    system: StateSpace
    columns: Array
    order: Array
    place: Array


def drive_of(graph: Graph, u: Value) -> Drive:
    """Follow inputs back through what takes, orders and scales words, to where there are fewest of them."""
    count = words(graph, u)
    here = best = Drive(u, np.arange(count), np.ones(count))
    while True:
        node = graph.node(here.source.node)
        if node.op.name == "spread" and here.source.index == 0:
            value = constant_of(graph, graph.operand(node.name, 0))
            if value is not None and not value.any():
                like = graph.operand(node.name, 1)
                return Drive(like, here.index, here.scale, silent=True)
        beside = _beside_zeros(graph, here) if node.op.name == "concat" else None
        if beside is not None:
            here = beside
            if words(graph, here.source) <= words(graph, best.source):
                best = here
            continue
        terms = terms_of(graph, node, lambda value: itself(graph, value)) if here.source.index == 0 else None
        if terms is None or len(terms) != 1:
            return best
        ((source, part),) = terms.items()
        matrix = sparse.csr_matrix(part.re)
        matrix.eliminate_zeros()
        if part.im is not None or matrix.shape[1] != words(graph, source) or (np.diff(matrix.indptr) != 1).any():
            return best
        here = Drive(source, matrix.indices[here.index], here.scale * matrix.data[here.index])
        if words(graph, source) <= words(graph, best.source):
            best = here


def _beside_zeros(graph: Graph, here: Drive) -> Drive | None:
    """The words of the one operand of a join that is no constant zeros; None where there is no such, or several."""
    node = graph.node(here.source.node)
    operands = [value for value in graph.operands(node.name) if value is not None]
    constants = [constant_of(graph, value) for value in operands]
    moving = [n for n, constant in enumerate(constants) if constant is None]
    kinds: list[Any] = [graph.type(value) for value in operands]
    if len(moving) != 1 or any(constant is not None and constant.any() for constant in constants):
        return None
    (which,) = moving
    if not isinstance(kinds[which], StreamType) or any(len(kind.shape) != 1 for kind in kinds):
        return None
    first, count = sum(words(graph, value) for value in operands[:which]), words(graph, operands[which])
    index = here.index - first
    inside = (index >= 0) & (index < count)
    return Drive(operands[which], np.where(inside, index, 0), here.scale * inside)


@dataclass(frozen=True)
class _Grouping:
    """New groups of one size, each of old groups (`members`, count x size) and of `height` rows of the readout."""

    members: Array
    label: Array  # the new group of each old one,
    inside: Array  # and its number among the members
    place: Array  # of each row among the outputs of all new groups
    height: int


def _grouping(row: Array, group: Array, shape: tuple[int, int]) -> _Grouping | None:
    """Groups that meet in a row of the readout (its entries lie at `row` and `group`; `shape`: how many there are of
    each) are one. None where these differ in size, or where most rows do not read most of their groups."""
    touched = sparse.csr_matrix((np.ones(group.size), (row, group)), shape)
    touched.sum_duplicates()
    _, label = connected_components(touched.T @ touched, directed=False)
    if (np.diff(touched.indptr) == 0).any():
        return None
    owner = label[touched.indices[touched.indptr[:-1]]]  # the new group of each row
    sizes, heights = np.bincount(label), np.bincount(owner, minlength=label.max() + 1)
    count, size, height = len(sizes), int(sizes[0]), int(heights[0])
    if (sizes != size).any() or (heights != height).any() or 2 * touched.nnz < count * height * size:
        return None
    members = np.argsort(label, kind="stable").reshape(count, size)
    inside, place = np.empty(shape[1], np.int64), np.empty(shape[0], np.int64)
    inside[members] = np.arange(size)
    by_owner = np.argsort(owner, kind="stable").reshape(count, height)
    place[by_owner] = np.arange(by_owner.size).reshape(by_owner.shape)
    return _Grouping(members, label, inside, place, height)


def regrouped(system: StateSpace, rows: Matrix, drive: Drive) -> Regrouped | None:
    """The system whose outputs are `rows` times those of the old one; None where that would be mostly zeros, or of
    groups of different sizes. Columns of `rows` are real outputs, then imaginary ones where outputs are complex."""
    groups, high, states = system.C.shape
    wide = system.B.shape[2]
    entries = sparse.coo_matrix(rows)
    group = entries.col % (groups * high) // high
    new = _grouping(entries.row, group, (rows.shape[0], groups))
    taken = None if new is None else _columns(drive, new.members, wide)
    if new is None or taken is None:
        return None
    (count, size), members = new.members.shape, new.members
    columns, column, width = taken
    if count * size * states * max(new.height, width, 1 if system.diagonal else size * states) > MOST:
        return None
    # how a row weighs the outputs of its groups: Re(w y) for complex ones
    weigh = np.zeros((count, new.height, size, high), np.float64 if system.real_output else np.complex128)
    imaginary = entries.col >= groups * high
    factor = np.where(imaginary, -1j, 1) if not system.real_output else np.ones(group.size)
    at = new.label[group], new.place[entries.row] % new.height, new.inside[group], entries.col % high
    np.add.at(weigh, at, entries.data * factor)
    inputs = np.zeros((count, size, wide, width))
    scale = (drive.scale * (not drive.silent)).reshape(groups, wide)[members]
    np.put_along_axis(inputs, column[..., None], scale[..., None], 3)
    # products of two, as BLAS does them: wide systems of many inputs take minutes in one einsum of three
    b = (system.B[members] @ inputs).reshape(count, size * states, width)
    c = (weigh.swapaxes(1, 2) @ system.C[members]).swapaxes(1, 2).reshape(count, new.height, size * states)
    d = (weigh.swapaxes(1, 2) @ (system.D[members] @ inputs)).sum(1).real
    if 2 * np.count_nonzero(b) < b.size and size > 1 and not drive.silent:
        return None
    order = _states_of(np.arange(groups * states).reshape(groups, states), members).ravel()
    return Regrouped(_with(system, members, b, c, d), columns, order, new.place)


def _with(system: StateSpace, members: Array, b: Array, c: Array, d: Array) -> StateSpace:
    """The system in new groups, with other B, C and D."""
    delta, steps = system.delta, (system.groups, system.states)
    return StateSpace(
        _joined(system, members),
        b,
        c,
        d,
        delta=None if delta is None else _states_of(np.broadcast_to(delta, steps), members),
        halved=system.halved,
        read_before=system.read_before,
        x0=None if system.x0 is None else _states_of(system.x0, members),
        asynchronous=system.asynchronous,
    )


def _columns(drive: Drive, members: Array, wide: int) -> tuple[Array, Array, int] | None:
    """Words of the drive that the new groups read, one group's after the other's; for each input of each old group its
    column; and columns of a group. None where groups read different numbers of words."""
    count, size = members.shape
    if drive.silent:
        return np.zeros(count, np.int64), np.zeros((count, size, wide), np.int64), 1
    read = drive.index.reshape(-1, wide)[members].reshape(count, -1)
    zero = drive.scale.reshape(-1, wide)[members].reshape(count, -1) == 0
    if zero.any() and not zero.all(1).any():  # what is zero may be any word that its group reads
        read = np.where(zero, read[np.arange(count), np.argmin(zero, 1)][:, None], read)
    distinct = [np.unique(row) for row in read]
    width = len(distinct[0])
    if any(len(row) != width for row in distinct):
        return None
    column = np.array([np.searchsorted(own, row) for own, row in zip(distinct, read, strict=True)])
    return np.concatenate(distinct), column.reshape(count, size, wide), width


def _states_of(array: Array, members: Array) -> Array:
    """(G, N) by new groups."""
    return array[members].reshape(len(members), -1)


def _joined(system: StateSpace, members: Array) -> Array:
    if system.diagonal:
        return _states_of(system.A, members)
    count, size = members.shape
    states = system.states
    a = np.zeros((count, size, states, size, states), system.A.dtype)
    for k in range(size):
        a[:, k, :, k] = dense_matrix(system)[members[:, k]]
    return a.reshape(count, size * states, size * states)


def at_end(system: StateSpace, rows: Matrix) -> tuple[Matrix, Matrix]:
    """What `rows` of the outputs are after the last step: matrices of the states after it (of which the real part
    counts) and of its inputs.

    With x_{L-1} = A^{-1} (x_L - B u_L) where the system reads before it updates.
    """
    groups, high, _ = system.C.shape
    if not system.real_output:
        half = groups * high
        rows = rows[:, :half] - 1j * rows[:, half:]
    c, d = system.C * system.gain, system.D
    if system.read_before:
        c = c / system.A[:, None, :]
        through = c @ system.B
        d = d - (through.real if system.real_output else through)
    return rows @ _blocks(c), (rows @ _blocks(d)).real


def _blocks(stack: Array) -> Matrix:
    return sparse.block_diag(list(stack), "csr")
