"""Matrices in crossbars: pieces programmed once, driven by the layer's core wherever they lie, summed digitally."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from math import prod
from typing import Any

import numpy as np

from backends.cim.lower.code import Slot, Virtual
from backends.cim.lower.contexts import Context
from backends.cim.lower.lowering import Lowering
from ssmc.diagnostics import Misfit, UserError
from ssmc.ir import Node, Piece
from ssmc.ir.op import Array
from ssmc.passes.grid import full_scale

Range = tuple[int, int]  # of columns


@dataclass(frozen=True)
class Product:
    """Vectors times a block of a matrix, on one core: `vectors` of `rows` words from `x` on become as many of `cols`
    words from `y` on. Their first words are row `k0` and column `n0` of the matrix."""

    core: int
    x: Slot
    y: Slot
    rows: int
    cols: int
    vectors: int = 1
    k0: int = 0
    n0: int = 0

    @property
    def columns(self) -> Range:
        return self.n0, self.n0 + self.cols


def product_of(node: Node, core: int, x: Slot, y: Slot, vectors: int = 1) -> Product:
    """The whole of a node's weight."""
    rows, cols = node.op["weight"].shape
    return Product(core, x, y, rows, cols, vectors)


def lower_matmul(state: Lowering, node: Node, work: Context) -> None:
    """`vectors` input vectors of `rows` words become `vectors` vectors of `cols` words."""
    cols = node.op["weight"].shape[1]
    vectors = prod(state.kind(0).shape[:-1])
    x = state.read(0, work)
    y = state.result_on_lines(work) if node.name in state.coupling.charging else state.result(work)
    product = product_of(node, state.core, x, y, vectors)
    if node.name in state.turns:
        _in_turns(state, node, work, product)
    else:
        multiply(state, node, work, product)
    if node.op["bias"] is not None:
        bias = state.held(state.constant("bias", node.op["bias"].array), work)
        cycle = {} if vectors == 1 else {"b_words": cols}
        state.emit(work, "binary", dst=y, a=y, b=bias, words=vectors * cols, fn="add", **cycle)


def _in_turns(state: Lowering, node: Node, work: Context, home: Product) -> None:
    """Each copy of the layer's arrays takes the next step's vectors, on a core of its own."""
    copies = state.turns[node.name]
    count, taken, given = len(copies), home.vectors * home.rows, home.vectors * home.cols
    into, back = state.channels, state.channels + count
    state.channels += 2 * count
    for turn, copy in enumerate(copies):
        steps = Context(work.stage, work.stride * count, work.offset + turn * work.stride)
        state.emit(steps, "send", on=home.core, src=home.x, words=taken, channel=into + turn, core=copy.core)
        there = replace(home, core=copy.core, x=state.new(taken, copy.core), y=state.new(given, copy.core))
        state.emit(steps, "recv", on=copy.core, dst=there.x, words=taken, channel=into + turn)
        multiply(state, node, steps, there, copy.units)
        state.emit(steps, "send", on=copy.core, src=there.y, words=given, channel=back + turn, core=home.core)
    state.emit(work, "collect", on=home.core, dst=home.y, words=given, channel=back, copies=count)


def multiply(state: Lowering, node: Node, work: Context, home: Product, units: Mapping[int, int] | None = None) -> None:
    """Vectors times the node's weight; `units` are other arrays in the place of the pieces'."""
    placed = [piece if units is None else replace(piece, unit=units[piece.unit]) for piece in node.op["pieces"]]
    pieces = sorted(placed, key=lambda p: (_core(state, p), p.n0, p.n1, p.k0))
    by_core = {core: list(group) for core, group in groupby(pieces, key=lambda p: _core(state, p))}
    covered: list[Range] = []
    if home.core in by_core:
        covered = _products(state, work, by_core.pop(home.core), home)
    elif not by_core or _columns(next(iter(by_core.values()))) != [home.columns]:
        state.emit(work, "fill", on=home.core, dst=home.y, words=home.vectors * home.cols)
        covered = [home.columns]
    for core, remote in by_core.items():
        covered = _remote(state, work, remote, home, core, covered)
    _fill_gaps(state, work, home, covered)


def _core(state: Lowering, piece: Piece) -> int:
    if piece.unit < 0:
        raise UserError(
            "a piece of the matrix lies in no array",
            where=state.node.where,
            hint="run the pass 'map-weights' after 'tile'",
        )
    core = piece.unit // state.arch.crossbar.per_core
    if core >= state.arch.mesh.cores:
        raise Misfit(
            "crossbar arrays",
            piece.unit + 1,
            state.arch.arrays,
            unit="arrays",
            where=state.node.where,
            levers="raise mesh.cores, crossbar.per_core, rows or cols in the architecture",
        )
    return core


def _columns(pieces: list[Piece]) -> list[Range]:
    """Column ranges, joined where they touch."""
    joined: list[Range] = []
    for n0, n1 in sorted({(p.n0, p.n1) for p in pieces}):
        if joined and n0 <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], n1))
        else:
            joined.append((n0, n1))
    return joined


def _grid(pieces: list[Piece]) -> bool:
    """Whether column ranges are the same or apart, so that the first product of a range can write it."""
    ranges = sorted({(p.n0, p.n1) for p in pieces})
    return all(a[1] <= b[0] for a, b in pairwise(ranges))


def _products(state: Lowering, work: Context, pieces: list[Piece], at: Product) -> list[Range]:
    """The products of one core's pieces, summed; returns the columns written."""
    written: set[Range] = set()
    accumulate = not _grid(pieces)
    if accumulate:
        state.emit(work, "fill", on=at.core, dst=at.y, words=at.vectors * at.cols)
    for piece in pieces:
        _program(state, piece, at.core)
        columns = (piece.n0, piece.n1)
        state.emit(
            work,
            "mvm",
            on=at.core,
            dst=at.y.at(piece.n0 - at.n0),
            src=at.x.at(piece.k0 - at.k0),
            array=piece.unit % state.arch.crossbar.per_core,
            row=piece.row,
            rows=piece.k1 - piece.k0,
            col=piece.col // state.arch.crossbar.cells_per_weight,
            cols=piece.n1 - piece.n0,
            accumulate=accumulate or columns in written,
            **({} if at.vectors == 1 else {"vectors": at.vectors, "src_step": at.rows, "dst_step": at.cols}),
            **_ranges(state, piece),
        )
        written.add(columns)
    return [at.columns] if accumulate else _columns(pieces)


def _ranges(state: Lowering, piece: Piece) -> dict[str, Any]:
    """Calibrated converter ranges of the piece's array, where the graph carries them."""
    found = state.graph.attributes.get("converter_ranges", {}).get(state.node.name)
    if found is None:
        return {}
    pair = found[[own.block for own in state.node.op["pieces"]].index(piece.block)]
    return {name: float(full) for name, full in zip(("input_range", "output_range"), pair, strict=True) if full}


def _program(state: Lowering, piece: Piece, core: int) -> None:
    """Weights into the array, as conductances relative to the column's full scale."""
    box, weight = state.arch.crossbar, state.node.op["weight"]
    rows, cols = piece.k1 - piece.k0, piece.n1 - piece.n0
    col = piece.col // box.cells_per_weight
    if piece.row + rows > box.rows or col + cols > state.arch.weight_cols:
        raise Misfit(
            f"rows and columns of array {piece.unit}",
            max(piece.row + rows, (col + cols) * box.cells_per_weight),
            min(box.rows, box.cols),
            unit="cells",
            where=state.node.where,
            levers="run 'tile' and 'map-weights' for this architecture",
        )
    scale = full_scale(weight, piece)
    if state.node.name in state.coupling.charging:  # no digital scale is behind a column
        scale = np.full_like(scale, max(float(full_scale(weight, p).max()) for p in state.node.op["pieces"]))
    region = slice(piece.k0, piece.k1), slice(piece.n0, piece.n1)
    label, column = f"r{piece.k0}c{piece.n0}", f"c{piece.n0}"
    operands: dict[str, Any] = {"array": piece.unit % box.per_core, "row": piece.row, "col": col}
    if weight.levels is None or len(weight.quantization.scale) != weight.shape[1]:
        operands["weights"] = state.constant(f"weights.{label}", _narrowest(weight.part(*region)))
        operands["scale"] = state.constant(f"scale.{label}", scale)
    else:  # of columns that arrays share, both are the same
        operands["weights"] = state.constant(f"weights.{label}", weight.levels[region])
        operands["scale"] = state.constant(f"scale.{column}", scale)
        operands["unit"] = state.constant(f"unit.{column}", np.asarray(weight.quantization.scale[region[1]]))
    if state.reloaded:
        state.emit(Context(state.begin), "program", on=core, erase=True, **operands)
    else:
        state.code(core).setup.append(Virtual("program", Context(0), operands, state.loc))


def _narrowest(weights: Array) -> Array:
    """In float32 where that holds them exactly: half of the program's size."""
    with np.errstate(over="ignore"):
        narrow = weights.astype(np.float32)
    return narrow if np.array_equal(narrow, weights) else weights


def _remote(
    state: Lowering, work: Context, pieces: list[Piece], home: Product, core: int, covered: list[Range]
) -> list[Range]:
    """Send the inputs to another core's arrays and take their sums back; returns the columns written so far."""
    k0, k1, n0, n1 = 0, home.rows, 0, home.cols
    if home.vectors == 1:  # words of one vector lie together: what the pieces need of it is enough
        k0, k1 = min(p.k0 for p in pieces), max(p.k1 for p in pieces)
        n0, n1 = min(p.n0 for p in pieces), max(p.n1 for p in pieces)
    count = home.vectors
    x = state.send(home.x.at(k0), count * (k1 - k0), home.core, work, core, work)
    there = Product(core, x, state.new(count * (n1 - n0), core), k1 - k0, n1 - n0, count, k0, n0)
    _fill_gaps(state, work, there, _products(state, work, pieces, there))
    fresh = not any(a < n1 and n0 < b for a, b in covered)
    into = home.y.at(n0) if fresh else None
    back = state.send(there.y, count * (n1 - n0), core, work, home.core, work, into)
    if fresh:
        return _joined([*covered, (n0, n1)])
    _fill_gaps(state, work, home, covered)
    y = home.y.at(n0)
    state.emit(work, "binary", on=home.core, dst=y, a=y, b=back, words=count * (n1 - n0), fn="add")
    return [home.columns]


def _joined(ranges: list[Range]) -> list[Range]:
    return _columns([Piece(0, 1, a, b) for a, b in ranges])


def _gaps(covered: list[Range], columns: Range) -> list[Range]:
    """Columns of a range that are in none of the covered ones."""
    at, gaps = columns[0], []
    for start, stop in [*_joined(covered), (columns[1], columns[1])]:
        if start > at:
            gaps.append((at, start))
        at = max(at, stop)
    return gaps


def _fill_gaps(state: Lowering, work: Context, at: Product, covered: list[Range]) -> None:
    """Columns that no piece covers are zero."""
    for start, stop in _gaps(covered, at.columns):
        for vector in range(at.vectors):
            first = at.y.at(vector * at.cols + start - at.n0)
            state.emit(work, "fill", on=at.core, dst=first, words=stop - start)
