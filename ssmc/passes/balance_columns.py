"""Columns of an array that give outputs of like size, so that none drowns in the errors of another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ssmc.ir import Graph, Node, Piece, Quantization, Tensor, Value, interpret
from ssmc.ir.op import Array
from ssmc.passes.base import Context, Pass
from ssmc.passes.grid import largest_integer
from ssmc.passes.machine import ArrayErrors
from ssmc.passes.probe import excerpt

VECTORS = 1024  # that a matrix's outputs are measured on
TRIED = 24  # ways from columns as they are to columns that are all alike
WORTH = 1 / 3  # of the errors' power; what gains less stays as it is, since lost levels are errors that last; ours
TINY = 1e-6  # of the largest output's power: columns below it give nothing


@dataclass(frozen=True)
class BalanceColumns(Pass):
    """Choose what full conductance stands for, column by column, where an array errs by its largest output.

    before  tile.matmul {weight = tensor<64x32 f64 q8>}     each column's largest weight is full conductance
    after   the same, columns with large outputs on fewer of their levels

    A product's error follows the largest output of the array (a lumped figure, an ADC's range), before the digital
    scale behind each column. A column whose weights nearly cancel has a large scale and a small output, and is lost
    beside one that uses its conductances well. Writing that one with less conductance makes the array's outputs alike;
    it costs levels. Both are weighed on the first `steps` of the calibration data: with s_j what full conductance of
    column j stands for, its error is `(s_j product)^2 E max_i (y_i / s_i)^2 + (s_j weight)^2 sum_n E x_n^2`; the sum of
    these, each by the power of its output, is made least, and their plain sum must not grow. What keeps more than a
    third stays as it is, and so do drives of states, each in a unit of its own. Nothing happens without such data, or
    where arrays do not err so. `tolerance` is how much outputs may change on the data, relative.
    """

    name = "balance-columns"
    lossy = True
    steps: int = 2048
    tolerance: float = math.inf

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")

    def run(self, graph: Graph, context: Context) -> Graph:
        errors = None if context.ideal or context.machine is None else context.machine.errors
        if errors is None or not errors.product or not context.calibration:
            return graph
        values = interpret(graph, excerpt(graph, context.calibration, self.steps), keep=True)
        out, changed = graph.copy(), 0
        for node in graph.nodes("tile.matmul"):
            if _drives(graph, node):
                continue
            found = _balanced(graph, node, values, errors)
            if found is not None:
                out.set_op(node.name, node.op.with_attrs(weight=found[0]))
                changed += 1
                context.note(
                    self, node.name, f"columns balanced: their errors fall to {found[1]:.2g} of what they were"
                )
        return out if changed else graph


def _drives(graph: Graph, node: Node) -> bool:
    """Whether it is states that come of it: each in units of its own, so that their errors do not add up."""
    return any(graph.op(user).name in ("tile.state", "tile.recurrence") for user, _ in graph.users(Value(node.name)))


def _balanced(
    graph: Graph, node: Node, values: Mapping[str, Array], errors: ArrayErrors
) -> tuple[Tensor, float] | None:
    """The weight on other scales, and what that makes of the errors (rms); None where it stays as it is."""
    weight, pieces = node.op["weight"], node.op["pieces"]
    grid = weight.quantization
    if grid is None or len(grid.scale) != weight.shape[1]:
        return None
    x = values[str(graph.operand(node.name, 0))].reshape(-1, weight.shape[0])
    x = x[np.linspace(0, len(x) - 1, min(VECTORS, len(x))).astype(int)]
    largest = largest_integer(grid.bits)
    least = np.asarray(grid.scale) * largest
    least = np.where(least > 0, least, 1.0)
    parts = [_part(piece, x, weight) for piece in pieces]
    size = np.zeros(len(least))  # rms of a column's largest part
    for part in parts:
        at = slice(part.piece.n0, part.piece.n1)
        size[at] = np.maximum(size[at], np.sqrt(np.square(part.outputs).mean(0)))
    reach = float((size / least).max(initial=0.0))
    if not reach > 0:
        return None
    power = np.maximum(np.square(size), TINY * float(np.square(size).max()))
    before = _variance(parts, least, errors)
    best, scale = WORTH * float((before / power).sum()), None
    for share in np.geomspace(1.0, 1.0 / largest, TRIED):
        tried = np.maximum(least, size / (reach * share))
        after = _variance(parts, tried, errors)
        each = float((after / power).sum())
        if each < best and after.sum() <= before.sum():
            best, scale = each, tried
    if scale is None:
        return None
    step = scale / largest
    rounded = np.rint(weight.array / step) * step
    fallen = math.sqrt(best / float((before / power).sum()))
    return Tensor(rounded, Quantization(grid.bits, tuple(step.tolist()), grid.axis)), fallen


@dataclass(frozen=True, eq=False)
class _Part:
    """A piece with its outputs (vectors, columns) and the power of its inputs."""

    piece: Piece
    outputs: Array
    power: float


def _part(piece: Piece, x: Array, weight: Tensor) -> _Part:
    driven = x[:, piece.k0 : piece.k1]
    outputs = driven @ weight.part(slice(piece.k0, piece.k1), slice(piece.n0, piece.n1))
    return _Part(piece, outputs, float(np.square(driven).sum(1).mean()))


def _variance(parts: list[_Part], scale: Array, errors: ArrayErrors) -> Array:
    """(columns,) that of each output's error."""
    total = np.zeros(len(scale))
    for part in parts:
        at = slice(part.piece.n0, part.piece.n1)
        s = scale[at]
        top = float(np.square(np.abs(part.outputs / s).max(1)).mean())
        total[at] += np.square(s) * (errors.product**2 * top + errors.weight**2 * part.power)
    return total
