"""Matrices in crossbars: pieces programmed once, driven by the layer's core wherever they lie, summed digitally."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby, pairwise
from math import prod
from typing import Any

import numpy as np

from backends.cim.lower.code import Slot, Virtual
from backends.cim.lower.contexts import Context
from backends.cim.lower.lowering import Lowering
from ssmc.diagnostics import Misfit, UserError
from ssmc.ir import Node, Piece
from ssmc.passes.grid import full_scale


def lower_matmul(state: Lowering, node: Node, work: Context) -> None:
    """`vectors` input vectors of `rows` words become `vectors` vectors of `cols` words."""
    cols = node.op["weight"].shape[1]
    vectors = prod(state.kind(0).shape[:-1])
    x = state.read(0, work)
    y = state.result_on_lines(work) if node.name in state.coupling.charging else state.result(work)
    if node.name in state.turns:
        _in_turns(state, node, work, x, y, vectors)
    else:
        multiply(state, node, work, x, y, vectors)
    if node.op["bias"] is not None:
        bias = state.held(state.constant("bias", node.op["bias"].array), work)
        cycle = {} if vectors == 1 else {"b_words": cols}
        state.emit(work, "binary", dst=y, a=y, b=bias, words=vectors * cols, fn="add", **cycle)


def _in_turns(state: Lowering, node: Node, work: Context, x: Slot, y: Slot, vectors: int) -> None:
    """Each copy of the layer's arrays takes the next step's vectors, on a core of its own."""
    copies = state.turns[node.name]
    rows, cols = node.op["weight"].shape
    count = len(copies)
    into, back = state.channels, state.channels + count
    state.channels += 2 * count
    for turn, copy in enumerate(copies):
        steps = Context(work.stage, work.stride * count, work.offset + turn * work.stride)
        state.emit(steps, "send", src=x, words=vectors * rows, channel=into + turn, core=copy.core)
        there, partial = state.new(vectors * rows, copy.core), state.new(vectors * cols, copy.core)
        state.emit(steps, "recv", on=copy.core, dst=there, words=vectors * rows, channel=into + turn)
        home, state.core = state.core, copy.core
        multiply(state, node, steps, there, partial, vectors, copy.units)
        state.core = home
        operands = {"words": vectors * cols, "channel": back + turn, "core": state.core}
        state.emit(steps, "send", on=copy.core, src=partial, **operands)
    state.emit(work, "collect", dst=y, words=vectors * cols, channel=back, copies=count)


def multiply(
    state: Lowering,
    node: Node,
    work: Context,
    x: Slot,
    y: Slot,
    vectors: int = 1,
    units: Mapping[int, int] | None = None,
) -> None:
    """Vectors at `x` times the node's weight, to `y`, both on the core `state` is at; `units` are other arrays in the
    place of the pieces'."""
    rows, cols = node.op["weight"].shape
    placed = [piece if units is None else replace(piece, unit=units[piece.unit]) for piece in node.op["pieces"]]
    pieces = sorted(placed, key=lambda p: (_core(state, p), p.n0, p.n1, p.k0))
    by_core = {core: list(group) for core, group in groupby(pieces, key=lambda p: _core(state, p))}
    covered: list[tuple[int, int]] = []
    if state.core in by_core:
        covered = _products(state, work, by_core.pop(state.core), x, y, (rows, cols, vectors), state.core, (0, 0))
    elif not by_core or not _fills(_columns(next(iter(by_core.values()))), cols):
        state.emit(work, "fill", dst=y, words=vectors * cols)
        covered = [(0, cols)]
    for core, remote in by_core.items():
        covered = _remote(state, work, remote, x, y, (rows, cols, vectors), core, covered)
    _zero(state, work, y, cols, vectors, covered)


def _core(state: Lowering, piece: Piece) -> int:
    if piece.unit < 0:
        raise UserError(
            "a piece of the matrix lies in no array", where=state.where, hint="run the pass 'map-weights' after 'tile'"
        )
    core = piece.unit // state.arch.crossbar.per_core
    if core >= state.arch.mesh.cores:
        raise Misfit(
            "crossbar arrays",
            piece.unit + 1,
            state.arch.arrays,
            unit="arrays",
            where=state.where,
            levers="raise mesh.cores, crossbar.per_core, rows or cols in the architecture",
        )
    return core


def _columns(pieces: list[Piece]) -> list[tuple[int, int]]:
    """Column ranges, joined where they touch."""
    joined: list[tuple[int, int]] = []
    for n0, n1 in sorted({(p.n0, p.n1) for p in pieces}):
        if joined and n0 <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], n1))
        else:
            joined.append((n0, n1))
    return joined


def _fills(ranges: list[tuple[int, int]], cols: int) -> bool:
    return ranges == [(0, cols)]


def _grid(pieces: list[Piece]) -> bool:
    """Whether column ranges are the same or apart, so that the first product of a range can write it."""
    ranges = sorted({(p.n0, p.n1) for p in pieces})
    return all(a[1] <= b[0] for a, b in pairwise(ranges))


def _products(
    state: Lowering,
    work: Context,
    pieces: list[Piece],
    x: Slot,
    y: Slot,
    shape: tuple[int, int, int],
    core: int,
    origin: tuple[int, int],
) -> list[tuple[int, int]]:
    """The products of one core's pieces, summed in `y`. `shape` is (rows, cols, vectors) of the words at `x`
    and `y`, `origin` the matrix row and column of their first word. Returns the columns written.
    """
    rows, cols, vectors = shape
    written: set[tuple[int, int]] = set()
    accumulate = not _grid(pieces)
    if accumulate:
        state.emit(work, "fill", on=core, dst=y, words=vectors * cols)
    for piece in pieces:
        _program(state, piece, core)
        columns = (piece.n0, piece.n1)
        state.emit(
            work,
            "mvm",
            on=core,
            dst=y.at(piece.n0 - origin[1]),
            src=x.at(piece.k0 - origin[0]),
            array=piece.unit % state.arch.crossbar.per_core,
            row=piece.row,
            rows=piece.k1 - piece.k0,
            col=piece.col // state.arch.crossbar.cells_per_weight,
            cols=piece.n1 - piece.n0,
            accumulate=accumulate or columns in written,
            **({} if vectors == 1 else {"vectors": vectors, "src_step": rows, "dst_step": cols}),
            **_ranges(state, piece),
        )
        written.add(columns)
    return [(0, cols)] if accumulate else _columns(pieces)


def _ranges(state: Lowering, piece: Piece) -> dict[str, Any]:
    """Calibrated converter ranges of the piece's array, where the graph carries them."""
    found = state.graph.attributes.get("converter_ranges", {}).get(state.node.name)
    if found is None:
        return {}
    pair = found[[_block(own) for own in state.node.op["pieces"]].index(_block(piece))]
    return {name: float(full) for name, full in zip(("input_range", "output_range"), pair, strict=True) if full}


def _block(piece: Piece) -> tuple[int, int, int, int]:
    return piece.k0, piece.k1, piece.n0, piece.n1


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
            where=state.where,
            levers="run 'tile' and 'map-weights' for this architecture",
        )
    scale = full_scale(weight, piece)
    if state.node.name in state.coupling.charging:  # no digital scale is behind a column
        scale = np.full_like(scale, max(float(full_scale(weight, p).max()) for p in state.node.op["pieces"]))
    region = slice(piece.k0, piece.k1), slice(piece.n0, piece.n1)
    label, column = f"r{piece.k0}c{piece.n0}", f"c{piece.n0}"
    operands: dict[str, Any] = {"array": piece.unit % box.per_core, "row": piece.row, "col": col}
    if weight.levels is None or len(weight.quantization.scale) != weight.shape[1]:
        operands["weights"] = state.constant(f"weights.{label}", weight.part(*region))
        operands["scale"] = state.constant(f"scale.{label}", scale)
    else:  # of columns that arrays share, both are the same
        operands["weights"] = state.constant(f"weights.{label}", weight.levels[region])
        operands["scale"] = state.constant(f"scale.{column}", scale)
        operands["unit"] = state.constant(f"unit.{column}", np.asarray(weight.quantization.scale[region[1]]))
    if state.reloaded:
        state.emit(Context(state.begin), "program", on=core, erase=True, **operands)
    else:
        state.code(core).setup.append(Virtual("program", Context(0), operands, state.loc))


def _remote(
    state: Lowering,
    work: Context,
    pieces: list[Piece],
    x: Slot,
    y: Slot,
    shape: tuple[int, int, int],
    core: int,
    covered: list[tuple[int, int]],
) -> list[tuple[int, int]]:
    """Send the inputs to another core's arrays and take their sums back; returns the columns written so far."""
    rows, cols, vectors = shape
    k0, k1 = (0, rows) if vectors > 1 else (min(p.k0 for p in pieces), max(p.k1 for p in pieces))
    n0, n1 = (0, cols) if vectors > 1 else (min(p.n0 for p in pieces), max(p.n1 for p in pieces))
    there = state.send(x.at(k0), vectors * (k1 - k0), state.core, work, core, work)
    partial = state.new(vectors * (n1 - n0), core)
    filled = _products(state, work, pieces, there, partial, (k1 - k0, n1 - n0, vectors), core, (k0, n0))
    if filled != [(0, n1 - n0)] and filled != [(n0, n1)]:
        for start, stop in _gaps([(a - n0, b - n0) for a, b in filled], n1 - n0):
            _blank(state, work, partial, start, stop, n1 - n0, vectors, core)
    fresh = not any(a < n1 and n0 < b for a, b in covered)
    into = y.at(n0) if fresh else None
    back = state.send(partial, vectors * (n1 - n0), core, work, state.core, work, into)
    if fresh:
        return _joined([*covered, (n0, n1)])
    for start, stop in _gaps(covered, cols):
        _blank(state, work, y, start, stop, cols, vectors, state.core)
    state.emit(work, "binary", dst=y.at(n0), a=y.at(n0), b=back, words=vectors * (n1 - n0), fn="add")
    return [(0, cols)]


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return _columns([Piece(0, 1, a, b) for a, b in ranges])


def _gaps(covered: list[tuple[int, int]], cols: int) -> list[tuple[int, int]]:
    at, gaps = 0, []
    for start, stop in [*_joined(covered), (cols, cols)]:
        if start > at:
            gaps.append((at, start))
        at = max(at, stop)
    return gaps


def _blank(state: Lowering, work: Context, y: Slot, start: int, stop: int, cols: int, vectors: int, core: int) -> None:
    for vector in range(vectors):
        state.emit(work, "fill", on=core, dst=y.at(vector * cols + start), words=stop - start)


def _zero(state: Lowering, work: Context, y: Slot, cols: int, vectors: int, covered: list[tuple[int, int]]) -> None:
    """Columns that no piece covers are zero."""
    for start, stop in _gaps(covered, cols):
        _blank(state, work, y, start, stop, cols, vectors, state.core)
