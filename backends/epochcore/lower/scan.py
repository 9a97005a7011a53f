"""A system on an array without states: b u, x <- a x + b u and Re(c x) + d u, step by step in the vector unit.

Where all states at once are more than an instruction or the scratchpad has room for, and where the pipes of the vector
unit have work for each other, some channels follow the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.clock.gemm import ceil_div
from backends.epochcore.lower.draft import Buffer, Ref
from backends.epochcore.lower.features import gather
from backends.epochcore.lower.lowering import Lowering, Operand
from backends.epochcore.lower.time import carried
from backends.epochcore.lower.window_matrices import common
from ssmc.ir import Node, Value

Array = NDArray[Any]
MOST_WORDS = 1 << 16  # of an instruction
LEAST_WORDS = 1 << 10


def parts_of(low: Lowering, node: Node) -> list[int]:
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
    halves = 2 if node.op["decay"].is_complex else 1
    own = np.arange(halves * channels * states).reshape(halves, channels, states)
    rows: list[tuple[Buffer, Array]] = []
    matrices = common(node)
    for h in range(0, channels, size):
        some = slice(h, min(h + size, channels))
        rows.append((_some(low, node, u, x0, some, own, dst, matrices), own[:, some].ravel()))
    low.buffers[Value(node.name, 1)] = rows[0][0] if len(rows) == 1 else _together(low, node, rows)


def _some(
    low: Lowering,
    node: Node,
    u: Operand,
    x0: Operand | None,
    some: slice,
    own: Array,
    dst: Buffer,
    matrices: tuple[Array, Array],
) -> Buffer:
    """Some of the channels, of `matrices` b and c; returns the row of their states."""
    op, stage, steps = node.op, low.stage(node), low.steps(node)
    b, c = (part[some] for part in matrices)
    decay, d = op["decay"].array[some], op["d"].array[some]
    (channels, states), halves = decay.shape, len(own)
    suffix = "" if own.shape[1] == channels else f".{some.start}"
    words = halves * decay.size

    def times(dst: Ref, src: Ref, values: Array, name: str) -> None:
        row = low.constant_row(f"{node.name}.{name}{suffix}", values, stage)
        fields = {"fn": "mul", "words": values.size, "steps": steps, "b_held": True}
        low.emit(node, "binary", dst=dst, a=src, b=row, **fields)

    wide, drive, x, product = (Buffer(words, stage) for _ in range(4))
    index = some.start + np.tile(np.repeat(np.arange(channels), states), halves)
    gather(low, node, wide.at(), u, index, suffix)
    times(drive.at(), wide.at(), np.concatenate([b.real.ravel(), b.imag.ravel()][:halves]), "b")
    order = own[:, some]
    if x0 is None or not suffix:
        bank = carried(low, node, words, x0)
    else:
        bank = low.draft.row(words)
        gather(low, node, bank.at(), Operand(x0.ref, x0.words, True), order, f"{suffix}.x0")
    a = np.concatenate([decay.real.ravel(), decay.imag.ravel()][:halves])
    held = Operand(low.constant_row(f"{node.name}.a{suffix}", a, stage), a.size, True)
    if op["liquid"]:
        liquid = Buffer(words, stage)
        fields = {"fn": "add", "words": words, "steps": steps, "b_held": True}
        low.emit(node, "binary", dst=liquid.at(), a=drive.at(), b=held.ref, **fields)
        held = Operand(liquid.at(), words, False)
    emit_scan(low, node, x, held, drive.at(), bank, halves)
    times(product.at(), x.at(), np.concatenate([c.real.ravel(), -c.imag.ravel()][:halves]), "c")
    # Re(c x) = sum over the halves and the states: (halves, channels, states) -> (channels, halves, states)
    turned = np.arange(words).reshape(halves, channels, states).transpose(1, 0, 2)
    sorted_, sums, through = Buffer(words, stage), Buffer(channels, stage), Buffer(channels, stage)
    gather(low, node, sorted_.at(), Operand(product.at(), words, False), turned, f"{suffix}.sum")
    shape = {"outer": channels, "axis": halves * states, "inner": 1}
    low.emit(node, "reduce", dst=sums.at(), src=sorted_.at(), fn="sum", steps=steps, **shape)
    seen = u.ref
    if suffix:
        seen = Buffer(channels, stage).at()
        pitches = {"dst_pitch": channels, "src_pitch": u.words}
        at = {"dst": seen, "src": Ref(u.ref.buffer, u.ref.offset + some.start)}
        low.emit(node, "copy", **at, **pitches, words=channels, steps=steps, src_held=False)
    times(through.at(), seen, d, "d")
    result = dst if not suffix else Buffer(channels, stage)
    fields = {"fn": "add", "words": channels, "steps": steps}
    low.emit(node, "binary", dst=result.at(), a=sums.at(), b=through.at(), **fields)
    if suffix:
        pitches = {"dst_pitch": dst.words, "src_pitch": channels}
        at = {"dst": dst.at(some.start), "src": result.at()}
        low.emit(node, "copy", **at, **pitches, words=channels, steps=steps, src_held=False)
    return bank


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
