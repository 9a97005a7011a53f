"""Matrices that change with the data and have the same eigenvectors, as where a mask holds the states of a recurrence:
in the basis of these vectors each number has a decay of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ssmc.frontend.graph.builder import Builder, Operand
from ssmc.frontend.states.transition import TOLERANCE, Transition
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor
from ssmc.statespace import StateSpace, diagonalize

CONDITION = 1e7  # of the eigenvectors: beyond it float64 leaves less than the digits of float32


@dataclass(frozen=True, eq=False)
class Basis:
    """`x = Re(vectors z)`, `z = rows x` for the states of each block; of conjugate vectors one is there, doubled.

    Blocks that keep fewer vectors than others have zeros for the rest.
    """

    index: NDArray[np.int64]  # (blocks, width): the states of a block
    vectors: Array  # (blocks, width, kept)
    rows: Array  # (blocks, kept, width)
    direction: Array  # (n,) what the matrices are multiplied by to tell their eigenvalues,
    tell: Array  # (blocks, kept, width) by which the product is multiplied for that

    def entering(self, builder: Builder, x: Operand) -> Operand:
        """The coordinates z of vectors of all states."""
        return self._inside(builder, x, self.rows)

    def decays(self, builder: Builder, moved: Operand) -> Operand:
        """The eigenvalues of the matrix that made `moved` of the direction."""
        return self._inside(builder, moved, self.tell)

    def _inside(self, builder: Builder, x: Operand, matrices: Array) -> Operand:
        x = taken(builder, x, self.index.reshape(-1))
        real = by_blocks(builder, x, matrices.real)
        if not np.iscomplexobj(self.rows):
            return real
        return builder.emit("complex", [real, by_blocks(builder, x, matrices.imag)])

    def leaving(self, builder: Builder, z: Operand) -> Operand:
        """The states of coordinates."""
        if np.iscomplexobj(self.vectors):
            first = by_blocks(builder, builder.emit("real", [z]), self.vectors.real)
            x = builder.binary("sub", first, by_blocks(builder, builder.emit("imag", [z]), self.vectors.imag))
        else:
            x = by_blocks(builder, z, self.vectors)
        return taken(builder, x, np.argsort(self.index.reshape(-1)))


def shared_basis(transitions: Sequence[Transition], index: NDArray[np.int64]) -> Basis | None:
    """The basis in which all matrices are diagonal; None where there is none, or only one that is badly conditioned.

    `index` (blocks, width) says which states meet. A weighted sum of matrices that commute has their common vectors
    where its eigenvalues differ.
    """
    matrices = common_blocks(transitions, index)
    if matrices is None:
        return None
    weights = np.random.default_rng(0).uniform(0.5, 1.5, len(matrices))
    mixed = np.einsum("k,kgij->gij", weights / weights.sum(), matrices)
    blocks, width = index.shape
    eye = np.tile(np.eye(width), (blocks, 1, 1))
    system, change = diagonalize(StateSpace(A=mixed, B=eye, C=eye, D=0 * eye), CONDITION)
    if not change.diagonal:
        return None
    seen = change.inverse[None] @ matrices @ change.T[None]
    values = np.einsum("kgii->kgi", seen)
    beside = np.abs(seen - values[..., None] * np.eye(width)).max(initial=0.0)
    if beside > TOLERANCE * change.condition.max() * np.abs(matrices).max(initial=1e-300):
        return None
    direction = np.random.default_rng(2).uniform(0.5, 1.5, index.size)
    tell = np.stack([_tell(matrices[:, g], values[:, g], direction[states]) for g, states in enumerate(index)])
    return _halved(Basis(index, change.T, change.inverse, direction, tell), system.A)


def _tell(matrices: Array, values: Array, direction: Array) -> Array:
    """T with `T (A s)` the eigenvalues of each A that is a sum of the matrices (k, n, n) with eigenvalues (k, n).

    Through as few sums as span them: of one matrix and the identity two products tell the part of each in A, however
    ill the eigenvectors are conditioned.
    """
    left, sizes, _ = np.linalg.svd(matrices.reshape(len(matrices), -1), full_matrices=False)
    few = left[:, sizes > TOLERANCE * sizes[0]].T  # (d, k)
    products = np.einsum("dk,kij,j->id", few, matrices, direction)
    return np.asarray((few @ values).T @ np.linalg.pinv(products))


def common_blocks(transitions: Sequence[Transition], index: NDArray[np.int64]) -> Array | None:
    """(matrices, blocks, width, width): each transition, for each sample of its batch, in the same blocks.

    None where one of them mixes more than the states of a block.
    """
    found = []
    for t in transitions:
        matrices = np.empty((len(t.offset), *index.shape, index.shape[1]))
        for j in range(index.shape[1]):
            unit = np.zeros(t.offset.shape)
            unit[:, index[:, j]] = 1.0
            matrices[..., j] = (t.apply(unit) - t.offset)[:, index]
        x = np.random.default_rng(1).standard_normal(t.offset.shape)
        moved = (t.apply(x) - t.offset)[:, index]
        if not np.allclose(np.einsum("bgij,bgj->bgi", matrices, x[:, index]), moved, rtol=TOLERANCE, atol=TOLERANCE):
            return None
        found.append(matrices)
    return np.concatenate(found)


def _halved(basis: Basis, values: Array) -> Basis:
    """Real vectors, and the first of each conjugate pair, by the eigenvalues (blocks, width) of one of the matrices."""
    if not np.iscomplexobj(values):
        return basis
    keep = values.imag >= 0
    blocks, width = values.shape
    kept = int(keep.sum(1).max())
    vectors = np.zeros((blocks, width, kept), complex)
    rows, tell = np.zeros((2, blocks, kept, width), complex)
    for g, some in enumerate(keep):
        count = int(some.sum())
        vectors[g, :, :count] = basis.vectors[g][:, some] * np.where(values[g, some].imag > 0, 2.0, 1.0)
        rows[g, :count], tell[g, :count] = basis.rows[g][some], basis.tell[g][some]
    return replace(basis, vectors=vectors, rows=rows, tell=tell)


def by_blocks(builder: Builder, x: Operand, matrices: Array) -> Operand:
    """(blocks * m) -> (blocks * n) with matrices (blocks, n, m)."""
    blocks, n, m = matrices.shape
    if blocks == 1:
        return builder.linear(x, matrices[0].T)
    x = builder.reshape(x, (blocks, m))
    return builder.reshape(builder.emit("contract", [x, matrices], equation="ab,acb->ac"), (blocks * n,))


def taken(builder: Builder, x: Operand, order: NDArray[np.int64]) -> Operand:
    """Features of `x` in another order."""
    if np.array_equal(order, np.arange(len(order))):
        return x
    return builder.emit("take", [x], axis=-1, index=Tensor(order))
