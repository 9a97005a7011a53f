"""Lowering of matrices onto the array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from backends.epochcore.floats import stored
from backends.epochcore.formats import weight_integers
from backends.epochcore.lower import mimo as lower_mimo
from backends.epochcore.lower.draft import Buffer, Param, Ref
from backends.epochcore.lower.features import given
from backends.epochcore.lower.forms import AS_PRODUCTS, choose
from backends.epochcore.lower.inputs import driven, read_by
from backends.epochcore.lower.lowering import Lowering, Operand
from backends.epochcore.lower.segments import cut as cut_time
from backends.epochcore.lower.shared_passes import Rest, hand_out, keep, rests
from backends.epochcore.lower.windows import room
from backends.epochcore.program.parameters import words_of
from ssmc.ir import Node, Piece, Tensor
from ssmc.ir.op import Array
from ssmc.ir.tensor import LARGE

SIDES = ("k0", "k1"), ("n0", "n1")


def cut(pieces: Sequence[Piece], rows: int, cols: int) -> list[Piece]:
    """Pieces cut down to at most `rows` x `cols` (k by n), ordered by columns."""
    small = [
        Piece(k, min(k + rows, p.k1), n, min(n + cols, p.n1))
        for p in pieces
        for n in range(p.n0, p.n1, cols)
        for k in range(p.k0, p.k1, rows)
    ]
    return sorted(small, key=lambda p: (p.n0, p.n1, p.k0))


def tiles(low: Lowering, pieces: Sequence[Piece]) -> list[Piece]:
    """Pieces that the array has room for, and half of the parameter memory with the scales and the bias of their
    columns: cut into even parts of their columns, or of their rows, too, where not even one column has room."""
    whole = cut(pieces, low.arch.array.rows, low.arch.array.cols)
    rows, cols = (max((getattr(p, end) - getattr(p, start) for p in whole), default=1) for start, end in SIDES)
    half = low.arch.memory.parameter_words // 2
    if _words(low, rows, cols) <= half:
        return whole
    wide = max([n for n in range(1, cols) if _words(low, rows, n) <= half], default=1)
    high = max([k for k in range(1, rows + 1) if _words(low, k, wide) <= half], default=1)
    return cut(whole, _even(rows, high), _even(cols, wide))


def _even(size: int, most: int) -> int:
    """The most of parts of a size, as few as can be and all about the same."""
    return -(-size // -(-size // most))


def _words(low: Lowering, rows: int, cols: int) -> int:
    """Words of a tile in the parameter memory, with scales (of integers) and a bias."""
    numbers, bits = low.arch.numbers, low.arch.memory.word_bits
    if low.ideal or not numbers.fixed:
        each = 4 if low.ideal or numbers.format == "float32" else 2
        return words_of(rows * cols * each, bits) + words_of(4 * cols, bits)
    return words_of(rows * cols * (1 if numbers.weight_bits <= 8 else 2), bits) + 2 * words_of(4 * cols, bits)


def matmul(low: Lowering, node: Node) -> None:
    """A matrix product in the array, in the dataflow that was chosen; a system may take over the products around it."""
    if _in_group(low, node):
        return
    (x,) = given(low, node, 1)
    weight, bias = node.op["weight"], node.op["bias"]
    inputs, outputs = weight.shape
    kept = kept_of(low, node)
    if kept == "weights" and (form := choose(low, node)).name == "segmented":
        held = _matrix(low, node).some(Piece(0, inputs, 0, outputs), True)
        _hold(low, node, f"{node.name}.w", held, segments=cut_time(low, node, form.segments))
        _multiply(low, node, x.ref, low.new(node).at())
        return
    pieces = pieces_of(low, node, kept)
    vectors = x.words // inputs
    parts = rests(low, node, partial(_left_over, low)) if node.name not in low.shared else ()
    if parts:
        _matmul_together(low, node, x, parts)
    dst, apart = low.new(node), _apart(pieces, outputs)
    if node.name in low.shared:
        pieces = [p for p in pieces if p.n1 != outputs]
    started: set[tuple[int, int]] = set()
    if not apart:
        # columns that pieces share in part, or that none covers: start every column from its bias
        start = np.zeros(outputs) if bias is None else bias.array
        _start_rows(low, node, dst, np.tile(start, vectors))
    matrix = _matrix(low, node)
    for number, p in enumerate(pieces):
        first = apart and (p.n0, p.n1) not in started
        started.add((p.n0, p.n1))
        mode = "mac.os" if kept == "results" else "mac"
        _hold(low, node, f"{node.name}.w{number}", matrix.some(p, first), mode)
        for v in range(vectors):
            src = Ref(x.ref.buffer, x.ref.offset + v * inputs + p.k0)
            _multiply(low, node, src, dst.at(v * outputs + p.n0), accumulate=not first)
    hand_out(low, node, max((p.n1 for p in pieces), default=0))


def kept_of(low: Lowering, node: Node) -> str:
    """What the array keeps of a product (see `dataflow`)."""
    return low.dataflows.get(node.name, "weights" if "mac" in low.arch.array.modes else "results")


def _in_group(low: Lowering, node: Node) -> bool:
    """Whether a matrix is computed together with the states that it drives; with those that it reads, now."""
    if (state := driven(low, node)) is not None and choose(low, state).name in AS_PRODUCTS:
        return True
    if (group := read_by(low, node)) is None or (form := choose(low, group.state)).name not in AS_PRODUCTS:
        return False
    lower_mimo.group(low, group, form)
    return True


def pieces_of(low: Lowering, node: Node, kept: str) -> list[Piece]:
    """Pieces that the array has room for, in the order of their products. Sums that stay in place are as long as an
    instruction can say; pieces that follow each other in them are one."""
    array, columns = low.arch.array, tiles(low, node.op["pieces"])
    if kept == "weights-by-rows":
        rows = sorted(columns, key=lambda p: (p.k0, p.n0))
        # what is written first is where a row of the result begins
        return rows if not rows or rows[0].n0 == 0 else columns
    if kept != "results":
        return columns
    joined: list[Piece] = []
    for p in columns:
        last = joined[-1] if joined else None
        if last is not None and (last.n0, last.n1, last.k1) == (p.n0, p.n1, p.k0):
            joined[-1] = replace(last, k1=p.k1)
        else:
            joined.append(p)
    return cut(joined, room(low, "mac.os")[0], array.cols)


@dataclass(frozen=True)
class _Matrix:
    """Weights as the array holds them, with the scales of integers, and what the first products start from."""

    weights: Array
    scale: Array | None
    bias: Array | None

    def some(self, p: Piece, first: bool) -> _Matrix:
        """A piece; the bias goes with the first one of its columns."""
        columns = slice(p.n0, p.n1)
        return _Matrix(
            self.weights[p.k0 : p.k1, columns],
            None if self.scale is None else self.scale[columns],
            self.bias[columns] if first and self.bias is not None else None,
        )


def _matrix(low: Lowering, node: Node) -> _Matrix:
    weights, scale = _integers(low, node, node.op["weight"])
    bias = node.op["bias"]
    return _Matrix(weights, scale, None if bias is None else bias.array)


def _hold(
    low: Lowering, node: Node, name: str, m: _Matrix, mode: str = "mac", segments: Mapping[str, int] | None = None
) -> None:
    """Weights on their way into the array."""
    fields: dict[str, Any] = {"src": Param(low.draft.constant(name, m.weights)), "scale": 0, "bias": 0}
    if m.scale is not None:
        fields["scale"] = Param(low.draft.constant(f"{name}.scale", m.scale))
    if m.bias is not None:
        bias = m.bias if low.ideal else m.bias.astype(np.float32)
        fields["bias"] = Param(low.draft.constant(f"{name}.bias", bias))
    fields |= {"scaled": m.scale is not None, "biased": m.bias is not None, **(segments or {})}
    rows, cols = m.weights.shape
    low.emit(node, "preload", **fields, rows=rows, cols=cols, mode=mode)


def _multiply(low: Lowering, node: Node, src: Ref, dst: Ref, *, accumulate: bool = False) -> None:
    """A pass over the weights that the array holds."""
    pitches = {"dst_pitch": dst.buffer.words, "src_pitch": src.buffer.words}
    low.emit(node, "mac", dst=dst, src=src, **pitches, steps=low.steps(node), accumulate=accumulate)


def _left_over(low: Lowering, node: Node) -> int:
    """Columns of a matrix in its last pass, 0 where they cannot be shared."""
    (inputs, outputs), array = node.op["weight"].shape, low.arch.array
    pieces = tiles(low, node.op["pieces"])
    if kept_of(low, node) == "results" or choose(low, node).name == "segmented":
        return 0
    state = driven(low, node)
    if state is not None and choose(low, state).name in AS_PRODUCTS:
        return 0
    width = outputs % array.cols
    last = [(p.k0, p.k1) for p in pieces if (p.n0, p.n1) == (outputs - width, outputs)]
    if _words(low, min(array.rows, inputs), array.cols) > low.arch.memory.parameter_words // 2:
        return 0  # what would be beside each other
    even = last == [(k, min(k + array.rows, inputs)) for k in range(0, inputs, array.rows)]
    alone = low.words(low.graph.operand(node.name, 0)) == inputs
    return width if even and alone and _apart(pieces, outputs) else 0


def _matmul_together(low: Lowering, node: Node, x: Operand, parts: Sequence[Rest]) -> None:
    """The last columns of several matrices side by side."""
    matrices = [_matrix(low, rest.node) for rest in parts]
    results, rows = low.temporary(node, sum(rest.width for rest in parts)), low.arch.array.rows
    biases = [
        np.zeros(rest.width) if m.bias is None else m.bias[rest.start :]
        for m, rest in zip(matrices, parts, strict=True)
    ]
    scales = [m.scale[rest.start :] for m, rest in zip(matrices, parts, strict=True) if m.scale is not None]
    whole = _Matrix(
        np.concatenate([m.weights[:, rest.start :] for m, rest in zip(matrices, parts, strict=True)], 1),
        np.concatenate(scales) if scales else None,
        np.concatenate(biases) if any(m.bias is not None for m in matrices) else None,
    )
    inputs, outputs = whole.weights.shape
    for k in range(0, inputs, rows):
        held = whole.some(Piece(k, min(k + rows, inputs), 0, outputs), k == 0)
        src = Ref(x.ref.buffer, x.ref.offset + k)
        _hold(low, node, f"{node.name}.together{k}", held)
        _multiply(low, node, src, results.at(), accumulate=k > 0)
    keep(low, results, parts)


def _apart(pieces: list[Piece], outputs: int) -> bool:
    """Whether the column ranges of the pieces are equal or disjoint, and cover every column."""
    ranges = sorted({(p.n0, p.n1) for p in pieces})
    ends = [0, *(n1 for _, n1 in ranges)]
    return bool(ranges) and all(n0 == end for (n0, _), end in zip(ranges, ends, strict=False)) and ends[-1] == outputs


def _start_rows(low: Lowering, node: Node, dst: Buffer, start: Array) -> None:
    row, words = low.constant_row(f"{node.name}.start", start), dst.words
    held = low.steps(node) != "one"
    fields = {"dst_pitch": words, "src_pitch": words, "words": words, "steps": low.steps(node), "src_held": held}
    low.emit(node, "copy", dst=dst.at(), src=row, **fields)


def _integers(low: Lowering, node: Node, weight: Tensor) -> tuple[Array, Array | None]:
    """The weights as the array holds them, and the scales of the columns where they are integers."""
    if low.ideal:
        return weight.stored, None  # many are float32, which are kept so
    if not low.arch.numbers.fixed:
        return stored(weight.array, low.arch.numbers.format), None
    bits = low.arch.numbers.weight_bits
    dtype = np.int8 if bits <= 8 else np.int16
    if weight.quantization is not None and weight.quantization.bits <= bits:
        scale = np.broadcast_to(np.asarray(weight.quantization.scale, np.float32), weight.shape[1:])
        if weight.levels is not None:
            return weight.levels[:, :].astype(dtype, copy=False), np.ascontiguousarray(scale)
        held, height = np.empty(weight.shape, dtype), max(1, LARGE // weight.shape[1])
        for start in range(0, len(held), height):  # in 64 bits they are many
            rows = slice(start, start + height)
            held[rows] = weight.integers(rows)
        return held, np.ascontiguousarray(scale)
    integers, scale = weight_integers(weight.array, bits)
    low.notes.setdefault("weights_rounded_by_lowering", []).append(node.name)
    return integers.astype(dtype), scale


RULES = {"tile.matmul": matmul}
