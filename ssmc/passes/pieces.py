"""Cutting matrices into pieces that fit a weight array."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ssmc.diagnostics import UserError
from ssmc.ir import Piece, Tensor
from ssmc.passes.machine import Machine

Block = tuple[int, int, int, int]  # k0, k1, n0, n1


def cut(matrix: Tensor, machine: Machine, blocks: Iterable[Block] | None = None) -> tuple[Piece, ...]:
    """Pieces of at most one array each that cover the non-zero part of `matrix` (inputs, outputs).

    `blocks` are the rectangles to cut, apart from each other (None: the whole matrix); small ones along a diagonal
    are joined, since an array reads all its rows at once. A weight takes `cells_per_weight` cells of a row, so that
    an array is `array_cols // cells_per_weight` weights wide. Pieces that hold only zeros are left out.
    """
    rows, cols = weights_per_array(machine)
    whole = [(0, matrix.shape[0], 0, matrix.shape[1])]
    rectangles = whole if blocks is None else _joined(matrix, blocks, rows, cols)
    every = [piece for block in rectangles for piece in _grid(block, rows, cols)]
    return tuple(p for p in every if _filled(matrix, (p.k0, p.k1, p.n0, p.n1)))


def weights_per_array(machine: Machine) -> tuple[int, int]:
    """Rows and columns of an array in weights. Raises UserError where not even one weight fits."""
    cols = machine.array_cols // machine.cells_per_weight
    if machine.array_rows < 1 or cols < 1:
        raise UserError(
            f"an array of {machine.array_rows} x {machine.array_cols} cells cannot hold a weight of "
            f"{machine.cells_per_weight} cells",
            where=f"target '{machine.target}'",
            hint="make the arrays larger or the weights narrower in the architecture file",
        )
    return machine.array_rows, cols


def _filled(matrix: Tensor, block: Block) -> int:
    k0, k1, n0, n1 = block
    return matrix.filled(slice(k0, k1), slice(n0, n1))


def _joined(matrix: Tensor, blocks: Iterable[Block], rows: int, cols: int) -> Iterator[Block]:
    """Blocks that follow each other on a diagonal as one, while that fits an array and adds nothing but zeros."""
    held: Block | None = None
    filled = 0
    for block in blocks:
        k0, k1, n0, n1 = block
        count = _filled(matrix, block)
        if held is not None and (k0, n0) == (held[1], held[3]) and k1 - held[0] <= rows and n1 - held[2] <= cols:
            wider = (held[0], k1, held[2], n1)
            if _filled(matrix, wider) == filled + count:
                held, filled = wider, filled + count
                continue
        if held is not None:
            yield held
        held, filled = block, count
    if held is not None:
        yield held


def _grid(block: Block, rows: int, cols: int) -> Iterator[Piece]:
    k0, k1, n0, n1 = block
    for n in range(n0, n1, cols):
        for k in range(k0, k1, rows):
            yield Piece(k, min(k + rows, k1), n, min(n + cols, n1))
