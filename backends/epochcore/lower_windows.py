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

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.draft import Buffer, Param, Ref
from backends.epochcore.formats import weight_integers
from backends.epochcore.gemm import ceil_div
from backends.epochcore.lower_time import carried
from backends.epochcore.lowering import Lowering, Operand
from ssmc.ir import Node, Value

Array = NDArray[Any]


@dataclass(frozen=True)
class System:
    """x <- a x + b u, y = Re(c x) + d u, by channels: a, b, c (channels, states), d (channels,). Before an update is
    `before`, from the end is `reverse`."""

    a: Array
    b: Array
    c: Array
    d: Array
    before: bool
    reverse: bool

    @property
    def channels(self) -> int:
        return len(self.a)

    @property
    def parts(self) -> int:
        """2 where states have an imaginary half."""
        return 2 if np.iscomplexobj(self.a) else 1

    def powers(self, span: int) -> Array:
        """a^0 .. a^span, (channels, span + 1, states)."""
        return np.asarray(self.a[:, None, :] ** np.arange(span + 1)[:, None])

    def kernel(self, length: int) -> Array:
        """What an impulse gives, (channels, length)."""
        late = int(self.before)
        taps = np.zeros((self.channels, length))
        taps[:, late:] = np.einsum("hn,hkn->hk", self.c * self.b, self.powers(length)[:, : length - late]).real
        taps[:, 0] += self.d
        return taps

    def inward(self, span: int) -> Array:
        """A^{T-1-i} B, (channels, span, halves of the states)."""
        drive = self.powers(span)[:, :span][:, ::-1] * self.b[:, None]
        return np.concatenate([drive.real, drive.imag][: self.parts], -1)

    def outward(self, span: int) -> Array:
        """Re(C A^{j+1} x), (channels, halves of the states, span)."""
        read = self.powers(span)[:, 1 - self.before : span + 1 - self.before] * self.c[:, None]
        return np.concatenate([read.real, -read.imag][: self.parts], -1).swapaxes(1, 2)

    def across(self, span: int) -> tuple[Array, Array]:
        """The real and imaginary parts of A^T, all channels behind each other."""
        power = (self.a**span).ravel()
        return np.asarray(power.real), np.asarray(power.imag)


def band(taps: Array, span: int) -> Array:
    """(channels, past + span, span): y_j = sum_m taps_m u_{j-m} for the last `span` steps of past + span."""
    channels, length = taps.shape
    rows, cols = np.arange(length - 1 + span)[:, None], np.arange(span)
    lag = cols + length - 1 - rows
    return np.where((lag >= 0) & (lag < length), taps[:, np.clip(lag, 0, length - 1)], 0.0).reshape(channels, -1, span)


def toeplitz(taps: Array) -> Array:
    """(channels, span, span): y_j = sum_{i <= j} taps_{j-i} u_i."""
    span = taps.shape[1]
    return band(taps, span)[:, span - 1 :]


def _turned(stack: Array, inputs: bool, outputs: bool) -> Array:
    """Matrices by channel with the time of their rows, or of their columns, from the end."""
    stack = stack[:, ::-1] if inputs else stack
    return stack[:, :, ::-1] if outputs else stack


@dataclass(frozen=True)
class Windows:
    """Windows of `span` steps of a node's streams: their register, and what becomes of buffers."""

    low: Lowering
    node: Node
    span: int
    mode: str  # of the array: mac or mac.os

    @property
    def register(self) -> str:
        rates = self.low.flow.rates[Value(self.node.name)]
        return self.low.register((*rates, (self.span, 0, False)))

    @property
    def every(self) -> int:
        """Steps of the model's input a window."""
        return self.span * prod(stride for stride, *_ in self.low.flow.rates[Value(self.node.name)])

    def buffer(self, words: int) -> Buffer:
        return Buffer(words, self.low.stage(self.node), self.every)

    def unfold(self, u: Operand, past: int, state: Buffer) -> Buffer:
        low, channels = self.low, u.words
        rows = self.buffer(channels * (self.span + past))
        low.draft.whole(low.stage(self.node), self.every)
        fields = {"channels": channels, "span": self.span, "past": past, "reverse": self.node.op["reverse"]}
        where = {"dst": rows.at(), "src": u.ref, "state": state.at()}
        low.emit(self.node, "unfold", **where, **fields, steps=low.steps(self.node), result=self.register)
        return rows

    def fold(self, rows: Buffer, dst: Buffer) -> None:
        fields = {"channels": dst.words, "span": self.span, "steps": self.low.steps(self.node)}
        self.low.emit(self.node, "fold", dst=dst.at(), src=rows.at(), **fields, result=self.register)

    @property
    def room(self) -> tuple[int, int]:
        """Rows and columns of a product: as the array has them, and half of the parameter memory."""
        low = self.low
        rows, cols = low.arch.room(self.mode, False)
        words = low.arch.memory.parameter_words // 2 - cols
        each = 4 if low.ideal else -(-low.arch.numbers.weight_bits // 8)
        return max(1, min(rows, words * low.arch.memory.word_bits // (8 * each * cols))), cols

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
        channels, inputs, outputs = shape
        rows, cols = self.room
        stack = np.broadcast_to(np.zeros(()), shape) if self.low.draft.measured else make()
        if inputs <= rows and outputs <= cols:
            beside = min(rows // inputs, cols // outputs)
            for first in range(0, channels, beside):
                some = stack[first : first + beside]
                size = (len(some) * inputs, len(some) * outputs)
                weight = np.broadcast_to(np.zeros(()), size) if self.low.draft.measured else _diagonal(some)
                self._product(f"{name}{first}", src, first * inputs, dst, first * outputs, weight, add)
            return
        for h in range(channels):
            for n in range(0, outputs, cols):
                for k in range(0, inputs, rows):
                    weight = stack[h, k : k + rows, n : n + cols]
                    self._product(f"{name}{h}.{k}.{n}", src, h * inputs + k, dst, h * outputs + n, weight, add or k > 0)

    def _product(self, name: str, src: Ref, k: int, dst: Ref, n: int, weight: Array, add: bool) -> None:
        low, node = self.low, self.node
        rows, cols = weight.shape
        pitches = {"src_pitch": src.buffer.words, "dst_pitch": dst.buffer.words}
        at = {"src": Ref(src.buffer, src.offset + k), "dst": Ref(dst.buffer, dst.offset + n)}
        for part, (integers, scale) in enumerate(_parts(low, weight)):
            fields: dict[str, Any] = {"scale": 0, "bias": 0, "scaled": scale is not None, "biased": False}
            if scale is not None:
                fields["scale"] = Param(low.draft.constant(f"{node.name}.{name}.scale{part}", scale))
            weights = Param(low.draft.constant(f"{node.name}.{name}.{part}", integers))
            low.emit(node, "preload", src=weights, **fields, rows=rows, cols=cols, mode=self.mode)
            low.emit(node, "mac", **at, **pitches, steps=self.register, accumulate=add or part > 0)


def weight_parts(low: Lowering) -> int:
    """Products with integer weights that add up to one with `parameter_bits`, the bits of a state's parameters."""
    return 1 if low.ideal else ceil_div(low.arch.numbers.parameter_bits, low.arch.numbers.weight_bits)


def _parts(low: Lowering, weight: Array) -> list[tuple[Array, Array | None]]:
    """Weights as the array holds them: as they are, or as integers with scales, and what these leave over likewise."""
    if low.ideal:
        return [(weight, None)]
    bits = low.arch.numbers.weight_bits
    found: list[tuple[Array, Array | None]] = []
    dtype = np.int8 if bits <= 8 else np.int16
    for _ in range(weight_parts(low)):
        integers: Array = weight
        scale: Array = np.zeros(weight.shape[1], np.float32)
        if not low.draft.measured:
            integers, scale = weight_integers(weight, bits)
            weight = weight - integers * scale
        found.append((integers.astype(dtype), scale))
    return found


def _diagonal(stack: Array) -> Array:
    """(blocks, k, n) as one matrix with the blocks on its diagonal."""
    count, k, n = stack.shape
    whole = np.zeros((count, k, count, n))
    whole[np.arange(count), :, np.arange(count)] = stack
    return whole.reshape(count * k, count * n)


def chunked(w: Windows, system: System, u: Operand, x0: Operand | None) -> None:
    """The chunked scan: products within windows, into states and out of them; states from window to window."""
    low, node, span = w.low, w.node, w.span
    channels, states = system.a.shape
    parts, reverse = system.parts, system.reverse
    rows = w.unfold(u, 0, carried(low, node, 1))
    bank = carried(low, node, channels * states * parts, x0)
    drive = w.buffer(bank.words)
    together = _together(w, states, parts)
    whole = (channels, span, states * parts)
    if together:
        inward = lambda: _turned(system.inward(span), reverse, False)  # noqa: E731
        w.multiply("in", rows.at(), drive.at(), whole, inward)
        # (channels, halves, states) -> (halves, channels, states)
        order = np.arange(bank.words).reshape(channels, parts, states).transpose(1, 0, 2)
        drive = w.gather(drive, order, ".in")
    else:
        for part in range(parts):
            half = np.s_[:, :, part * states : (part + 1) * states]
            make = lambda half=half: _turned(system.inward(span), reverse, False)[half]  # noqa: E731
            shape = (channels, span, states)
            w.multiply(f"in{part}.", rows.at(), drive.at(part * channels * states), shape, make)
    a = np.concatenate(system.across(span)[:parts])
    x = w.buffer(bank.words)
    low.emit(
        node,
        "scan",
        dst=x.at(),
        a=low.constant_row(f"{node.name}.a", a),
        src=drive.at(),
        state=bank.at(),
        words=bank.words,
        steps=w.register,
        a_held=True,
        complex=parts == 2,
        reverse=reverse,
        before=True,
    )
    y = w.buffer(channels * span)
    within = lambda: _turned(toeplitz(system.kernel(span)), reverse, reverse)  # noqa: E731
    w.multiply("within", rows.at(), y.at(), (channels, span, span), within)
    if together:
        back = np.arange(bank.words).reshape(parts, channels, states).transpose(1, 0, 2)
        x = w.gather(x, back, ".out")
        outward = lambda: _turned(system.outward(span), False, reverse)  # noqa: E731
        w.multiply("out", x.at(), y.at(), (channels, states * parts, span), outward, add=True)
    else:
        for part in range(parts):
            rows_of = np.s_[:, part * states : (part + 1) * states]
            make = lambda half=rows_of: _turned(system.outward(span), False, reverse)[half]  # noqa: E731
            shape = (channels, states, span)
            w.multiply(f"out{part}.", x.at(part * channels * states), y.at(), shape, make, add=True)
    w.fold(y, low.new(node))
    low.buffers[Value(node.name, 1)] = bank


def _together(w: Windows, states: int, parts: int) -> bool:
    """Whether both halves of a state lie in one array: fewer passes, but words must change places around the scan."""
    rows, cols = w.room

    def passes(words: int, copies: int) -> float:
        beside = min(rows // w.span, cols // words, rows // words, cols // w.span)
        return copies / beside if beside else copies * -(-words // cols)

    return parts == 2 and passes(2 * states, 1) < passes(states, 2)


def convolution(w: Windows, taps: Array, u: Operand, history: Operand | None) -> Buffer:
    """A kernel of finite length, (channels, length), as a band of its Toeplitz matrix; returns what is carried."""
    low, node, reverse = w.low, w.node, bool(w.node.op["reverse"])
    channels, length = taps.shape
    state = carried(low, node, max(1, channels * (length - 1)), history if length > 1 else None)
    rows = w.unfold(u, length - 1, state)
    y = w.buffer(channels * w.span)
    shape = (channels, length - 1 + w.span, w.span)
    w.multiply("band", rows.at(), y.at(), shape, lambda: _turned(band(taps, w.span), reverse, reverse))
    w.fold(y, low.new(node))
    return state
