"""Matrices whose groups lie apart from each other: blocks on diagonals, large ones held without the zeros between."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssmc.ir.op import Array
from ssmc.ir.sparse import Sparse, of_stacks
from ssmc.ir.tensor import LARGE
from ssmc.passes.pieces import Block

Matrix = Array | Sparse
Stack = tuple[int, int, Array]  # row, column, (groups, k, n): block g begins at (row + g k, column + g n)


def block_diagonal(shape: tuple[int, int], stacks: Sequence[Stack]) -> Matrix:
    """The matrix (inputs, outputs) of stacks of blocks that do not overlap; large ones of several groups are sparse."""
    if shape[0] * shape[1] >= LARGE and any(len(stack) > 1 for _, _, stack in stacks):
        return of_stacks(shape, stacks)
    matrix = np.zeros(shape, np.result_type(*(stack for _, _, stack in stacks)))
    for (k0, k1, n0, n1), block in zip(blocks_of(stacks), (b for _, _, s in stacks for b in s), strict=True):
        matrix[k0:k1, n0:n1] = block
    return matrix


def blocks_of(stacks: Sequence[Stack]) -> list[Block]:
    """The rectangles of all blocks, a stack after the other."""
    found: list[Block] = []
    for row, column, stack in stacks:
        groups, high, wide = stack.shape
        for g in range(groups):
            k, n = row + g * high, column + g * wide
            found.append((k, k + high, n, n + wide))
    return found


def is_identity(matrix: Matrix) -> bool:
    if isinstance(matrix, Sparse):
        return matrix.is_identity()
    return matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix)))
