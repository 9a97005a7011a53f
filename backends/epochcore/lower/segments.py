"""Stretches of time at once: a layer whose columns leave most of the array idle is there several times, and every copy
takes its own stretch of the chunk (`segments` of a preload; look there, and `stretches`).

A matrix does not know time: that is all. A system's states x' = A x + B u go from stretch to stretch, so that it passes
twice. The first time every stretch begins with zeros, and leaves v_s; what the next one really begins with follows by
a scan over as few numbers as there are stretches, x_{s+1} = A^T x_s + v_s for T steps; then they pass again, from
there. Adding C A^k x_s to the outputs of the first pass instead would take as many words through the ports as the
second pass, and the matrices C A^k besides.

S copies of H columns take 2 L / S cycles instead of L, and the ports S H words a cycle instead of H. Where the columns
fill the array, or the ports, there is nothing to gain, unless elements have room for several states and wait for their
pipelines: copies that share columns are stepped in these cycles (`least_cycles` says how many remain).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.epochcore.clock.gemm import ceil_div
from backends.epochcore.lower.draft import Buffer, Param
from backends.epochcore.lower.features import gather
from backends.epochcore.lower.lowering import Lowering, Operand
from backends.epochcore.lower.time import carried
from backends.epochcore.lower.window_matrices import System, unit_of
from backends.epochcore.program.parameters import pack_decay, pack_element, unpack
from ssmc.ir import Node, Value
from ssmc.ir.op import Array

MOST = 255  # what an instruction can say


def rows_of(low: Lowering, node: Node) -> int:
    """Steps of a node's result in a chunk."""
    rows = low.request.chunk
    for stride, *_ in low.flow.rates[Value(node.name)]:
        rows = ceil_div(rows, stride)
    return rows


def cut(low: Lowering, node: Node, number: int) -> dict[str, int]:
    """Fields of a preload that is there `number` times; chunks of the loop are as long as its segments."""
    stage, chunk = low.stage(node), low.request.chunk
    low.draft.whole(stage, chunk)
    low.draft.most[stage] = chunk
    return {"segments": number, "span": ceil_div(rows_of(low, node), number)}


def copies_of(low: Lowering, node: Node) -> int:
    """How often a layer's columns, and its rows where it is a matrix, lie side by side in the array, with their words
    through the ports in a cycle."""
    array = low.arch.array
    ports = min(array.port_words_in, array.port_words_out)
    if node.op.name == "tile.matmul":
        inputs, outputs = node.op["weight"].shape
        pieces, words = node.op["pieces"], low.words(low.graph.operand(node.name, 0))
        if words != inputs or [(p.k0, p.k1, p.n0, p.n1) for p in pieces] != [(0, inputs, 0, outputs)]:
            return 1
        beside = min(array.rows // inputs, array.cols // outputs, ports // max(inputs, outputs))
        return max(1, int(beside))
    if low.draft.together > 1:
        return 1  # other samples are beside it
    decay = node.op["decay"]
    most = low.arch.places(decay.is_complex)[1] * _groups(low, node) * array.states_per_element
    return max(1, min(MOST, int(most // decay.shape[0])))


def _groups(low: Lowering, node: Node) -> int:
    """Groups of rows that the array has for all states of a channel."""
    decay, most = node.op["decay"], low.request.groups or low.arch.array.column_words
    high = int((*decay.shape, 1)[1])
    return max(1, min(most, low.arch.array.column_words, low.arch.places(decay.is_complex)[0] // high))


def least_cycles(low: Lowering, node: Node, number: int) -> int:
    """Cycles of the passes alone: of a system's two, or of a matrix's one, over the sequences that are asked for."""
    steps = low.request.steps
    for stride, *_ in low.flow.rates[Value(node.name)]:
        steps = ceil_div(steps, stride)
    if node.op.name == "tile.matmul":
        return ceil_div(steps, number)
    array, decay = low.arch.array, node.op["decay"]
    (rows, lanes, groups), gang = _beside(low, node, number), low.arch.gang if decay.is_complex else 1
    channels, states = (*decay.shape, 1)[:2]
    deep = ceil_div(min(rows, states), low.arch.places(decay.is_complex)[0] // groups)
    words = channels * number * (2 if decay.is_complex and node.op.name == "tile.state" else 1)
    ports = ceil_div(words, min(array.port_words_in, array.port_words_out))
    interval = max(deep * lanes * gang, array.mac_depth + gang - 1, ports)
    return 2 * ceil_div(states, rows) * ceil_div(steps, number) * interval


def _beside(low: Lowering, node: Node, number: int) -> tuple[int, int, int]:
    """Rows of states of a pass with so many segments, how many columns share an element for them, and in how many
    groups of the array's rows they lie."""
    decay = node.op["decay"]
    rows, cols = low.arch.places(decay.is_complex)
    wide = int(decay.shape[0]) * number
    groups = min(_groups(low, node), ceil_div(wide, cols))
    lanes = ceil_div(wide, groups * cols)
    return rows // groups * (low.arch.array.states_per_element // lanes), lanes, groups


def system(low: Lowering, node: Node, s: System, u: Operand, x0: Operand | None, number: int) -> None:
    """A system by channels: as many rows of states as the array has go at once."""
    (channels, states), dst, fields = s.a.shape, low.new(node), cut(low, node, number)
    high, _, groups = _beside(low, node, number)
    numbers = None if low.ideal else low.arch.numbers
    own = np.arange(s.parts * s.a.size).reshape(s.parts, channels, states)
    passes: list[_Pass] = []
    for n in range(0, states, high):
        at = np.s_[:, n : n + high]
        unit = None if s.unit is None else s.unit[at]
        packed = pack_element(s.a[at], s.b[at], s.c[at], s.d * (n == 0), numbers, unit)
        rows, order = s.a[at].shape[1], own[:, :, n : n + high].ravel()
        e = unpack(packed, rows, channels, s.parts == 2, True, bool(numbers is not None and numbers.fixed))
        shape = {"rows": rows, "cols": channels, "complex": s.parts == 2, "mode": "fri", "groups": groups}
        kept = _decay(e.decay * e.decay_unit, low)
        held = _Held(f"{node.name}.s{n}", packed, {**shape, **fields}, order, kept)
        passes.append(_Pass(low, node, held, x0))
    streams = {"dst": dst.at(), "src": u.ref, "dst_pitch": dst.words, "src_pitch": u.words}
    for p in passes:
        p.left(streams | {"accumulate": False})
    for number_, p in enumerate(passes):
        p.run(streams | {"accumulate": number_ > 0}, again=len(passes) > 1)
    _last(low, node, passes)


def states(low: Lowering, node: Node, decay: Array, v: Operand, x0: Operand | None, number: int) -> None:
    """States with drives of their own, all in one row of the array."""
    numbers, is_complex, size = None if low.ideal else low.arch.numbers, np.iscomplexobj(decay), decay.size
    packed, dst = pack_decay(decay, numbers, unit_of(node)), low.new(node)
    e = unpack(packed, 1, size, is_complex, False, bool(numbers is not None and numbers.fixed))
    shape = {"rows": 1, "cols": size, "complex": is_complex, "mode": "fri.x", **cut(low, node, number)}
    shape["groups"] = _beside(low, node, number)[2]
    kept, order = _decay(e.decay * e.decay_unit, low), np.arange(size * (1 + is_complex))
    p = _Pass(low, node, _Held(f"{node.name}.s", packed, shape, order, kept), x0)
    streams = {"dst": dst.at(), "src": v.ref, "dst_pitch": dst.words, "src_pitch": v.words}
    p.left(streams)
    p.run(streams, again=False)
    _last(low, node, [p])


def _decay(kept: Array, low: Lowering) -> Array:
    """Complex or real decays as the elements have them: (halves, cols, rows) of a, or of 1 - a."""
    a = kept[0] + 1j * kept[1] if len(kept) == 2 else kept[0]
    return np.asarray(1 - a if not low.ideal and low.arch.numbers.decay == "one-minus" else a)


@dataclass(frozen=True)
class _Held:
    """What a preload puts into the array: parameters as they are `packed`, the `shape` they lie in (operands of the
    instruction), which words of the node's states theirs are, and their decays, (halves, cols, rows) as one number."""

    name: str
    packed: Array
    shape: dict[str, Any]
    order: Array
    decay: Array


class _Pass:
    """The states of one preload: before the chunk, after each segment, and before it."""

    def __init__(self, low: Lowering, node: Node, held: _Held, x0: Operand | None) -> None:
        shape, order = held.shape, held.order
        self.low, self.node, self.shape, self.order = low, node, shape, order
        self.packed = low.draft.constant(held.name, held.packed)
        if x0 is None or np.array_equal(order, np.arange(x0.words)):
            self.row = carried(low, node, order.size, x0)
        else:
            self.row = low.draft.row(order.size)
            gather(low, node, self.row.at(), Operand(x0.ref, x0.words, True), order, f".{held.name}.x0")
        every = order.size * int(shape["segments"])
        self.zeros, self.after, self.begin = carried(low, node, every), low.draft.row(every), low.draft.row(every)
        power = (held.decay ** int(shape["span"])).ravel()
        halves = [power.real, power.imag] if shape["complex"] else [power.real]
        self.power = low.constant_row(f"{held.name}.power", np.concatenate(halves))

    def left(self, streams: dict[str, Any]) -> None:
        """What every segment leaves when it begins with zeros."""
        self._preload()
        self._pass(self.zeros, streams)
        self.low.emit(self.node, "state.store", dst=self.after.at(), words=self.after.words)

    def run(self, streams: dict[str, Any], again: bool) -> None:
        """The pass itself, with the states that the segments begin with."""
        at = {"dst": self.begin.at(), "a": self.power, "src": self.after.at(), "state": self.row.at()}
        cut = {name: self.shape[name] for name in ("segments", "span", "complex")}
        steps = self.low.steps(self.node)
        self.low.emit(self.node, "carry", **at, **cut, words=self.row.words, steps=steps)
        if again:
            self._preload()
        self._pass(self.begin, streams)
        self.low.emit(self.node, "state.store", dst=self.row.at(), words=self.row.words, last=True)

    def _preload(self) -> None:
        self.low.emit(self.node, "preload", src=Param(self.packed), scale=0, bias=0, **self.shape)

    def _pass(self, first: Buffer, streams: dict[str, Any]) -> None:
        node, op = self.node, self.node.op
        self.low.emit(node, "state.load", src=first.at(), words=first.words)
        way = {"steps": self.low.steps(node), "reverse": op["reverse"], "before": op["read_before"]}
        self.low.emit(node, str(self.shape["mode"]), **streams, **way)


def _last(low: Lowering, node: Node, passes: list[_Pass]) -> None:
    """The states after the sequence, in the node's own layout."""
    value, stage = Value(node.name, 1), low.stage(node) + 1
    low.buffers[value] = passes[0].row
    order = np.concatenate([p.order for p in passes])
    in_order = len(passes) == 1 and np.array_equal(order, np.arange(order.size))
    if not low.graph.users(value) or in_order:
        return
    together, row = low.draft.row(order.size), low.draft.row(order.size)
    place = 0
    for p in passes:
        words = p.row.words
        fields = {"src_pitch": words, "dst_pitch": order.size, "words": words, "steps": "one", "src_held": False}
        low.draft.emit(stage, "copy", dst=together.at(place), src=p.row.at(), **fields)
        place += words
    name = low.draft.constant(f"{node.name}.index.last", np.argsort(order).astype(np.int32))
    fields = {"index": name, "src_pitch": order.size, "words": order.size, "steps": "one"}
    low.draft.emit(stage, "gather", dst=row.at(), src=together.at(), **fields)
    low.buffers[value] = row
