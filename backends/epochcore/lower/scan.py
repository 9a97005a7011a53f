"""A system on an array without states: b u, x <- a x + b u and Re(c x) + d u, step by step in the vector unit.

Where all states at once are more than an instruction or the scratchpad has room for, and where the pipes of the vector
unit have work for each other, some channels follow the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backends.epochcore.clock.gemm import ceil_div
from backends.epochcore.lower.draft import Buffer, Ref
from backends.epochcore.lower.features import gather
from backends.epochcore.lower.lowering import Lowering, Operand
from backends.epochcore.lower.time import carried
from backends.epochcore.lower.window_matrices import common
from ssmc.ir import Node, Value
from ssmc.ir.op import Array

MOST_WORDS = 1 << 16  # of an instruction
LEAST_WORDS = 1 << 10
HELD = 3  # rows of constants as wide as all states: a, b and c


def parts_of(node: Node) -> list[int]:
    """Into how many parts the channels of a system may be cut."""
    channels = int(node.op["decay"].shape[0])
    words = state_words(node)
    found = {ceil_div(channels, ceil_div(channels, n)) for n in (1, 2, 4, 8, 16, 32)}
    return sorted(n for n in found if words // n <= MOST_WORDS and (n == 1 or words // n >= LEAST_WORDS))


def state_words(node: Node) -> int:
    """Words of all states of a system."""
    decay = node.op["decay"]
    return int(np.prod(decay.shape)) * (2 if decay.is_complex else 1)


def least_cycles(low: Lowering, node: Node) -> int:
    """Cycles of the vector unit, all pipes busy: words of the states' drives, of the steps, of the products with c and
    of their sums."""
    is_complex = node.op["decay"].is_complex
    passes = (2 if is_complex else 1) + 5 + int(node.op["liquid"])
    return low.request.steps * passes * state_words(node) // (low.arch.vector.width * low.arch.vector.pipes)


def system(low: Lowering, node: Node, u: Operand, x0: Operand | None, parts: int) -> None:
    """A `tile.ssm`, liquid or not."""
    channels, states = node.op["decay"].shape
    size, dst = ceil_div(channels, parts), low.new(node)
    b, c = low.draft.kept.of(node.op, "matrices", lambda: common(node))
    a, d = node.op["decay"].array, node.op["d"].array
    own = np.arange(state_words(node)).reshape(-1, channels, states)
    rows: list[tuple[Buffer, Array]] = []
    for h in range(0, channels, size):
        some = slice(h, min(h + size, channels))
        part = _Channels(low, node, h, a[some], b[some], c[some], d[some], own[:, some], size >= channels)
        x, bank = part.states(u, x0)
        part.outputs(u, x, dst)
        rows.append((bank, part.order.ravel()))
    low.buffers[Value(node.name, 1)] = rows[0][0] if len(rows) == 1 else _together(low, node, rows)


@dataclass(frozen=True)
class _Channels:
    """Channels of a system, from `start` on: a, b and c are (channels, states), d is (channels,). `order` says which of
    the node's own states they have, (halves, channels, states)."""

    low: Lowering
    node: Node
    start: int
    a: Array
    b: Array
    c: Array
    d: Array
    order: Array
    whole: bool

    @property
    def suffix(self) -> str:
        """Of the names of constants."""
        return "" if self.whole else f".{self.start}"

    def states(self, u: Operand, x0: Operand | None) -> tuple[Buffer, Buffer]:
        """The states at every step, x <- a x + b u, and the row that carries them from chunk to chunk."""
        low, node, stage = self.low, self.node, self.low.stage(self.node)
        (channels, states), halves, words = self.a.shape, len(self.order), self.order.size
        wide, drive, x = (Buffer(words, stage) for _ in range(3))
        index = self._index("wide", lambda: self.start + np.tile(np.repeat(np.arange(channels), states), halves))
        gather(low, node, wide.at(), u, index, self.suffix)
        self._times(drive.at(), wide.at(), self._row("b", lambda: self._halves(self.b.real, self.b.imag)), "b")
        if x0 is None or self.whole:
            bank = carried(low, node, words, x0)
        else:
            bank = low.draft.row(words)
            gather(low, node, bank.at(), Operand(x0.ref, x0.words, True), self.order, f"{self.suffix}.x0")
        a = self._row("a", lambda: self._halves(self.a.real, self.a.imag))
        held = Operand(low.constant_row(f"{node.name}.a{self.suffix}", a, stage), words, True)
        if node.op["liquid"]:
            liquid = Buffer(words, stage)
            fields = {"fn": "add", "words": words, "steps": low.steps(node), "b_held": True}
            low.emit(node, "binary", dst=liquid.at(), a=drive.at(), b=held.ref, **fields)
            held = Operand(liquid.at(), words, False)
        emit_scan(low, node, x, held, drive.at(), bank, halves)
        return x, bank

    def outputs(self, u: Operand, x: Buffer, dst: Buffer) -> None:
        """Re(c x) + d u, into these channels of `dst`."""
        low, node, stage, steps = self.low, self.node, self.low.stage(self.node), self.low.steps(self.node)
        (channels, states), halves, words = self.a.shape, len(self.order), self.order.size
        product, sorted_ = Buffer(words, stage), Buffer(words, stage)
        sums, through = Buffer(channels, stage), Buffer(channels, stage)
        self._times(product.at(), x.at(), self._row("c", lambda: self._halves(self.c.real, -self.c.imag)), "c")
        # Re(c x) = sum over the halves and the states: (halves, channels, states) -> (channels, halves, states)
        turned = self._index("sum", lambda: np.arange(words).reshape(halves, channels, states).transpose(1, 0, 2))
        gather(low, node, sorted_.at(), Operand(product.at(), words, False), turned, f"{self.suffix}.sum")
        shape = {"outer": channels, "axis": halves * states, "inner": 1}
        low.emit(node, "reduce", dst=sums.at(), src=sorted_.at(), fn="sum", steps=steps, **shape)
        copied = {"words": channels, "steps": steps, "src_held": False}
        seen, result = u.ref, dst.at()
        if not self.whole:
            own = Ref(u.ref.buffer, u.ref.offset + self.start)
            seen, result = Buffer(channels, stage).at(), Buffer(channels, stage).at()
            low.emit(node, "copy", dst=seen, src=own, dst_pitch=channels, src_pitch=u.words, **copied)
        self._times(through.at(), seen, self._row("d", lambda: self.d), "d")
        low.emit(node, "binary", dst=result, a=sums.at(), b=through.at(), fn="add", words=channels, steps=steps)
        if not self.whole:
            low.emit(
                node, "copy", dst=dst.at(self.start), src=result, dst_pitch=dst.words, src_pitch=channels, **copied
            )

    def _row(self, name: str, make: Callable[[], Array]) -> Array:
        """A constant row, which depends on these channels alone."""
        key = name, self.start, len(self.a)
        return self.low.draft.kept.of(self.node.op, key, lambda: self.low.row_of(make()))

    def _index(self, name: str, make: Callable[[], Array]) -> Array:
        key = name, self.start, len(self.a)
        return self.low.draft.kept.of(self.node.op, key, lambda: np.ravel(make()).astype(np.int32))

    def _halves(self, re: Array, im: Array) -> Array:
        return np.concatenate([re.ravel(), im.ravel()][: len(self.order)])

    def _times(self, dst: Ref, src: Ref, values: Array, name: str) -> None:
        row = self.low.constant_row(f"{self.node.name}.{name}{self.suffix}", values, self.low.stage(self.node))
        fields = {"fn": "mul", "words": values.size, "steps": self.low.steps(self.node), "b_held": True}
        self.low.emit(self.node, "binary", dst=dst, a=src, b=row, **fields)


def emit_scan(low: Lowering, node: Node, dst: Buffer, a: Operand, v: Ref, bank: Buffer, parts: int) -> None:
    """x <- a x + v for all words of `dst`."""
    where = {"dst": dst.at(), "a": a.ref, "src": v, "state": bank.at()}
    flags = {"a_held": a.held, "complex": parts == 2, "reverse": node.op["reverse"], "before": node.op["read_before"]}
    low.emit(node, "scan", **where, **flags, words=dst.words, steps=low.steps(node))


def _together(low: Lowering, node: Node, rows: list[tuple[Buffer, Array]]) -> Buffer:
    """States of several parts after the sequence, in the node's own layout."""
    if not low.graph.users(Value(node.name, 1)):
        return rows[0][0]
    order, stage = np.concatenate([part for _, part in rows]), low.stage(node) + 1
    every, last, place = low.draft.row(order.size), low.draft.row(order.size), 0
    for row, _ in rows:
        pitches = {"src_pitch": row.words, "dst_pitch": order.size, "words": row.words}
        low.draft.emit(stage, "copy", dst=every.at(place), src=row.at(), **pitches, steps="one", src_held=False)
        place += row.words
    index = low.draft.constant(f"{node.name}.index.last", np.argsort(order).astype(np.int32))
    fields = {"index": index, "src_pitch": order.size, "words": order.size, "steps": "one"}
    low.draft.emit(stage, "gather", dst=last.at(), src=every.at(), **fields)
    return last
