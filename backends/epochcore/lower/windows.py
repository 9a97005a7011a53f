"""Linear systems as matrix products over windows of T steps: what an array that holds no states is good at.

A window of a channel is a row of T words; so many windows as a chunk has pass over one set of weights. With the state
X before a window, and its inputs u_0 .. u_{T-1},

    y_j = Re(C A^{j+1} X) + sum_{i <= j} Re(C A^{j-i} B) u_i + D u_j        X' = A^T X + sum_i A^{T-1-i} B u_i

so a window takes a triangular Toeplitz matrix, a matrix into the states and one out of them, and the states are
scanned once a window (the chunked form of Mamba-2, Dao and Gu, arXiv 2405.21060, section 6, for a constant decay). A
kernel of finite length needs no states: windows that hold the steps before them too are multiplied by a band of the
Toeplitz matrix. Small channels lie side by side, as blocks on the diagonal of one array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from backends.epochcore.clock.gemm import ceil_div
from backends.epochcore.formats import weight_integers
from backends.epochcore.lower.draft import Buffer, Param, Ref
from backends.epochcore.lower.features import gather
from backends.epochcore.lower.lowering import Lowering, Operand
from backends.epochcore.lower.rates import every
from backends.epochcore.lower.time import carried
from backends.epochcore.lower.window_matrices import System, Window, band, turned
from ssmc.ir import Node, Value
from ssmc.ir.op import Array

MOST_TILES = 32  # of one instruction
LEAST_PARTS = 4  # of the channels of a system
# Of the scratchpad: so many times the states that are scanned and those that come next fit into it, of a sequence that
# takes one chunk, or several, between which every product waits for its weights.
STATES_SHARE, STATES_SHARE_OF_SEVERAL = 4, 8
SHARES = 8  # of the parameter memory: so many groups of tiles fit into it


@dataclass(frozen=True)
class Windows:
    """Windows of `span` steps of a node's streams: their register, and what becomes of buffers."""

    low: Lowering
    node: Node
    span: int
    mode: str  # of the array: mac or mac.os

    @property
    def register(self) -> str:
        """The register that counts windows."""
        rates = self.low.flow.rates[Value(self.node.name)]
        return self.low.register((*rates, (self.span, 0, False)))

    @property
    def every(self) -> int:
        """Steps of the model's input a window."""
        return self.span * every(self.low.flow.rates[Value(self.node.name)])

    def buffer(self, words: int) -> Buffer:
        """A buffer with a row a window."""
        return Buffer(words, self.low.stage(self.node), self.every)

    def unfold(self, u: Operand, past: int, state: Buffer) -> Buffer:
        """Steps of a stream as rows of windows, (channels, past + span) words each; `state` carries the past."""
        low, channels = self.low, u.words
        rows = self.buffer(channels * (self.span + past))
        low.draft.whole(low.stage(self.node), self.every)
        fields = {"channels": channels, "span": self.span, "past": past, "reverse": self.node.op["reverse"]}
        where = {"dst": rows.at(), "src": u.ref, "state": state.at()}
        low.emit(self.node, "unfold", **where, **fields, steps=low.steps(self.node), result=self.register)
        return rows

    def fold(self, rows: Buffer, dst: Buffer) -> None:
        """Rows of windows as steps of a stream again."""
        fields = {"channels": dst.words, "span": self.span, "steps": self.low.steps(self.node)}
        self.low.emit(self.node, "fold", dst=dst.at(), src=rows.at(), **fields, result=self.register)

    @property
    def room(self) -> tuple[int, int]:
        """Rows and columns of a product."""
        return room(self.low, self.mode)

    def gather(self, rows: Buffer, index: Array, suffix: str) -> Buffer:
        """The words of every row in another order."""
        data = self.low.draft.constant(f"{self.node.name}.index{suffix}", np.ascontiguousarray(index.ravel(), np.int32))
        dst = self.buffer(index.size)
        fields = {"index": data, "src_pitch": rows.words, "words": index.size, "steps": self.register}
        self.low.emit(self.node, "gather", dst=dst.at(), src=rows.at(), **fields)
        return dst

    def multiply(
        self, name: str, src: Ref, dst: Ref, shape: tuple[int, int, int], make: Callable[[], Array], add: bool = False
    ) -> None:
        """dst (+)= src times one matrix a channel: `shape` channels, words in and out of each, side by side.

        As many channels as the array has room for on its diagonal go at once; what is larger is cut.
        """
        if self.low.draft.measured:
            groups = self._groups(shape, np.broadcast_to(np.zeros(()), shape), add)
        else:
            key = name, self.span, self.mode, shape, add
            groups = self.low.draft.kept.of(self.node.op, key, lambda: self._groups(shape, make(), add))
        for part in range(weight_parts(self.low)):
            for group in groups:
                k, n = group.first
                at = {"src": Ref(src.buffer, src.offset + k), "dst": Ref(dst.buffer, dst.offset + n)}
                self._product(f"{name}{k}.{n}.{part}", at, group.apart, group.parts[part], group.add or part > 0)

    def _groups(self, shape: tuple[int, int, int], stack: Array, add: bool) -> list[_Group]:
        """A stack of matrices in groups of tiles, which one instruction names."""
        channels, inputs, outputs = shape
        rows, cols = self.room
        pieces: list[_Tiles] = []
        if inputs <= rows and outputs <= cols:
            beside = min(rows // inputs, cols // outputs)
            whole = channels // beside * beside
            for low, high, each in ((0, whole, beside), (whole, channels, channels - whole)):
                if high > low:
                    blocks = stack[low:high].reshape(-1, each, inputs, outputs)
                    apart = each * inputs, each * outputs
                    pieces.append(_Tiles((low * inputs, low * outputs), apart, blocks, add))
        else:
            for k in range(0, inputs, rows):
                for n in range(0, outputs, cols):
                    blocks = stack[:, None, k : k + rows, n : n + cols]
                    pieces.append(_Tiles((k, n), (inputs, outputs), blocks, add or k > 0))
        # what is added to comes last: its first part has left the array by then
        groups = [group for piece in pieces for group in piece.cut(_most_tiles(self.low, piece.blocks))]
        return [_Group(group.first, group.apart, group.add, _parts(self.low, group.blocks)) for group in groups]

    def _product(
        self, name: str, at: dict[str, Ref], apart: tuple[int, int], held: tuple[Array, Array | None], add: bool
    ) -> None:
        low, node, (weight, scale) = self.low, self.node, held
        tiles, rows, cols = weight.shape
        fields: dict[str, Any] = {"scale": 0, "bias": 0, "scaled": scale is not None, "biased": False}
        if scale is not None:
            fields["scale"] = Param(low.draft.constant(f"{node.name}.{name}.scale", scale))
        weights = Param(low.draft.constant(f"{node.name}.{name}", weight))
        low.emit(node, "preload", src=weights, **fields, rows=rows, cols=cols, mode=self.mode, tiles=tiles)
        pitches = {"src_pitch": at["src"].buffer.words, "dst_pitch": at["dst"].buffer.words}
        further = {"src_next": apart[0], "dst_next": apart[1]} if tiles > 1 else {}
        low.emit(node, "mac", **at, **pitches, **further, steps=self.register, accumulate=add)


@dataclass(frozen=True)
class _Tiles:
    """Matrices with `blocks` (tiles, blocks, k, n) on their diagonals: the words of the first one, in and out, and from
    one to the next."""

    first: tuple[int, int]
    apart: tuple[int, int]
    blocks: Array
    add: bool

    def cut(self, most: int) -> Iterator[_Tiles]:
        """At most so many at once, about as many each time."""
        count = len(self.blocks)
        number = ceil_div(count, most)
        bounds = [count * n // number for n in range(number + 1)]
        for low, high in pairwise(bounds):
            first = self.first[0] + low * self.apart[0], self.first[1] + low * self.apart[1]
            yield _Tiles(first, self.apart, self.blocks[low:high], self.add)


class _Group(NamedTuple):
    """The same of tiles as the array holds them: numbers, or integers with their scales, by part."""

    first: tuple[int, int]
    apart: tuple[int, int]
    add: bool
    parts: list[tuple[Array, Array | None]]


def _most_tiles(low: Lowering, blocks: Array) -> int:
    """Tiles whose weights take a share of the parameter memory."""
    _, count, k, n = blocks.shape
    bits: int = 8 * weight_bytes(low) * count * k * count * n
    return max(1, min(MOST_TILES, low.arch.memory.parameter_words * low.arch.memory.word_bits // SHARES // bits))


def room(low: Lowering, mode: str) -> tuple[int, int]:
    """Rows and columns of a product: as the array has them, and half of the parameter memory."""
    rows, cols = low.arch.room(mode, False)
    words = low.arch.memory.parameter_words // 2 - cols
    return max(1, min(rows, words * low.arch.memory.word_bits // (8 * weight_bytes(low) * cols))), cols


def weight_bytes(low: Lowering) -> int:
    """Bytes of a weight."""
    return 4 if low.ideal else -(-low.arch.numbers.weight_bits // 8)


def weight_parts(low: Lowering) -> int:
    """Products with integer weights that add up to one with `parameter_bits`, the bits of a state's parameters."""
    return 1 if low.ideal else ceil_div(low.arch.numbers.parameter_bits, low.arch.numbers.weight_bits)


def _parts(low: Lowering, blocks: Array) -> list[tuple[Array, Array | None]]:
    """Weights with `blocks` on their diagonals as the array holds them: as they are, or as integers with scales, and
    what these leave over likewise."""
    tiles, count, k, n = blocks.shape
    bits = low.arch.numbers.weight_bits
    dtype = np.dtype(np.int8 if bits <= 8 else np.int16)
    if low.draft.measured:
        zeros = np.broadcast_to(np.zeros((), np.float64 if low.ideal else dtype), (tiles, count * k, count * n))
        scales = None if low.ideal else np.broadcast_to(np.zeros((), np.float32), (tiles, count * n))
        return [(zeros, scales)] * weight_parts(low)
    if low.ideal:
        return [(_diagonal(blocks), None)]
    found: list[tuple[Array, Array | None]] = []
    for left in reversed(range(weight_parts(low))):
        integers, scale = weight_integers(blocks, bits)
        blocks = blocks - integers * scale[..., None, :] if left else blocks
        found.append((_diagonal(integers.astype(dtype)), scale.reshape(tiles, count * n)))
    return found


def _diagonal(blocks: Array) -> Array:
    """(tiles, blocks, k, n) as matrices with the blocks on their diagonals."""
    tiles, count, k, n = blocks.shape
    if count == 1:
        return np.ascontiguousarray(blocks[:, 0])
    whole = np.zeros((tiles, count, k, count, n), blocks.dtype)
    for number in range(count):
        whole[:, number, :, number] = blocks[:, number]
    return whole.reshape(tiles, count * k, count * n)


def chunked(w: Windows, system: System, u: Operand, x0: Operand | None) -> None:
    """The chunked scan: products within windows, into states and out of them; states from window to window.

    Some channels after the others: while the states of some are scanned, the array multiplies for the next.
    """
    low, node, span = w.low, w.node, w.span
    rows = w.unfold(u, 0, carried(low, node, 1))
    y = w.buffer(system.channels * span)
    size = channels_together(low, span, w.mode, system.a.shape, system.parts)
    parts = [range(h, min(h + size, system.channels)) for h in range(0, system.channels, size)]
    each = [Window(system.some(part), span) for part in parts]
    drives = [_inward(w, each[0], rows, parts[0])]
    for number, (part, some) in enumerate(zip(parts, each, strict=True)):
        # long before what adds to it
        at = Ref(rows, part.start * span), Ref(y, part.start * span)
        w.multiply(f"within{number}.", *at, (len(part), span, span), some.within)
        if number + 1 < len(parts):
            drives.append(_inward(w, each[number + 1], rows, parts[number + 1]))
        x = across(w, system, drives[number], part, x0, f".{number}")
        _outward(w, some, x, at[1], number)
    w.fold(y, low.new(node))


def channels_together(low: Lowering, span: int, mode: str, shape: tuple[int, int], halves: int) -> int:
    """Channels whose states are scanned at once, as long as they fill whole passes of the array: a quarter of all, or
    fewer, so that states of two parts take a share of the scratchpad alone, in as many windows as hide the way of the
    next weights into the array (all, of a short sequence): in shorter chunks every product would wait for weights.
    `shape` is that of the decays, channels and states."""
    (channels, states), (rows, cols) = shape, room(low, mode)
    every = ceil_div(low.request.steps, span)
    words = 2 * channels * states * halves * min(every, rows)
    share = STATES_SHARE_OF_SEVERAL if every > rows else STATES_SHARE
    parts = max(LEAST_PARTS, ceil_div(words * share, low.arch.memory.scratchpad_words))
    beside = max(1, cols // span)
    return ceil_div(ceil_div(channels, parts), beside) * beside


def _inward(w: Windows, some: Window, rows: Buffer, part: range) -> Buffer:
    """What the windows of some channels add to their states: all real parts, then all imaginary ones."""
    states, halves = some.system.a.shape[1], some.system.parts
    drive, at = w.buffer(len(part) * states * halves), Ref(rows, part.start * w.span)
    if _together(w, states, halves):
        shape = (len(part), w.span, states * halves)
        w.multiply(f"in{part.start}.", at, drive.at(), shape, lambda: some.inward)
        # (channels, halves, states) -> (halves, channels, states)
        return w.gather(drive, np.arange(drive.words).reshape(len(part), halves, states).swapaxes(0, 1), ".in")
    for half in range(halves):
        make = partial(_half, some, "inward", half, 2)
        dst = drive.at(half * len(part) * states)
        w.multiply(f"in{part.start}.{half}.", at, dst, (len(part), w.span, states), make)
    return drive


def across(w: Windows, system: System, drive: Buffer, part: range, x0: Operand | None, suffix: str) -> Buffer:
    """The states of some channels before every window, in the place of what is added to them."""
    low, node, halves = w.low, w.node, system.parts
    channels, states = system.a.shape
    if x0 is None or len(part) == channels:
        bank = carried(low, node, drive.words, x0)
    else:
        bank = low.draft.row(drive.words)
        every = np.arange(halves * channels * states).reshape(halves, channels, states)
        order = every[:, part.start : part.stop]
        gather(low, node, bank.at(), Operand(x0.ref, x0.words, True), order, f"{suffix}.x0")
    power = (system.some(part).a ** w.span).ravel()
    fields = {"a_held": True, "complex": halves == 2, "reverse": system.reverse, "before": True}
    a = low.constant_row(f"{node.name}.a{suffix}", np.concatenate([power.real, power.imag][:halves]), low.stage(node))
    where = {"dst": drive.at(), "a": a, "src": drive.at(), "state": bank.at()}
    low.emit(node, "scan", **where, words=drive.words, steps=w.register, **fields)
    return drive


def _outward(w: Windows, some: Window, x: Buffer, y: Ref, number: int) -> None:
    """What the states before a window add to the outputs in it."""
    states, halves, channels = some.system.a.shape[1], some.system.parts, some.system.channels
    if _together(w, states, halves):
        back = np.arange(x.words).reshape(halves, channels, states).swapaxes(0, 1)
        shape = (channels, states * halves, w.span)
        ordered = w.gather(x, back, ".out")
        w.multiply(f"out{number}.", ordered.at(), y, shape, lambda: some.outward, add=True)
        return
    for half in range(halves):
        make = partial(_half, some, "outward", half, 1)
        src = x.at(half * channels * states)
        w.multiply(f"out{number}.{half}.", src, y, (channels, states, w.span), make, add=True)


def _half(some: Window, way: Literal["inward", "outward"], half: int, axis: int) -> Array:
    """The real or the imaginary part of what a window's matrices take from states, or give to them."""
    return np.asarray(np.split(some.inward if way == "inward" else some.outward, some.system.parts, axis)[half])


def _together(w: Windows, states: int, parts: int) -> bool:
    """Whether both halves of a state lie in one array: fewer passes, but words must change places around the scan."""
    rows, cols = w.room

    def passes(words: int, copies: int) -> float:
        beside = min(rows // w.span, cols // words, rows // words, cols // w.span)
        return copies / beside if beside else copies * -(-words // cols)

    return parts == 2 and passes(2 * states, 1) < passes(states, 2)


def convolution(w: Windows, length: int, taps: Callable[[], Array], u: Operand, history: Operand | None) -> Buffer:
    """A kernel of `length` taps, (channels, length), as a band of its Toeplitz matrix; returns what is carried."""
    low, node, channels, reverse = w.low, w.node, u.words, bool(w.node.op["reverse"])
    state = carried(low, node, max(1, channels * (length - 1)), history if length > 1 else None)
    rows = w.unfold(u, length - 1, state)
    y = w.buffer(channels * w.span)
    shape = (channels, length - 1 + w.span, w.span)
    w.multiply("band", rows.at(), y.at(), shape, lambda: turned(band(taps(), w.span), reverse, reverse))
    w.fold(y, low.new(node))
    return state
