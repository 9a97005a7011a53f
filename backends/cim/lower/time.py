"""Rules for what carries words through time: filters, delays, pooling, order."""

from __future__ import annotations

from math import prod

import numpy as np

from backends.cim.lower.code import Slot
from backends.cim.lower.contexts import Context
from backends.cim.lower.lowering import Lowering, words_of
from backends.cim.lower.shape import arrange, positions
from ssmc.ir import Node, Value


def unreversed(state: Lowering, node: Node, work: Context, slot: Slot, words: int) -> None:
    """Bind result 0; where the op runs backwards its stream is turned round in another sweep."""
    if not node.op.get("reverse"):
        state.bind(slot, work)
        return
    state.bind(turn(state, slot, words, work, work.resweep()), work.resweep())


def turn(state: Lowering, slot: Slot, words: int, made: Context, context: Context) -> Slot:
    """A stream from its last step to its first, on the node's core."""
    return state.resweep(state.core, slot, words, made, context, True)


def operand_in_order(state: Lowering, node: Node, index: int, work: Context) -> Slot:
    """A stream operand as the op walks it: backwards where it is reversed."""
    value = state.graph.operand(node.name, index)
    made = state.home[value][1]
    if not node.op.get("reverse") or not made.streams:
        return state.read(index, work)
    before = Context(made.stage, work.stride, work.offset)
    return turn(state, state.read(index, before), words_of(state.kind(index)), before, work)


def lower_fir(state: Lowering, node: Node, work: Context) -> None:
    """A filter over the steps, in a delay line: `prime` gives it the history, `tail` reads the last inputs."""
    kernel = node.op["kernel"].array
    channels, taps = kernel.shape
    line = state.code().serial("line")
    if state.has(1) and taps > 1:
        first = Context(work.stage - 1)
        history = state.read(1, first)
        state.emit(first, "prime", src=history, words=channels, line=line, steps=taps - 1)
    src, dst = operand_in_order(state, node, 0, work), state.new(channels)
    state.emit(work, "fir", dst=dst, src=src, words=channels, line=line, kernel=state.table("kernel", kernel))
    unreversed(state, node, work, dst, channels)
    if state.used(1):
        last = state.result(work.after, 1)
        if taps > 1:
            state.emit(work.after, "tail", dst=last, words=channels, line=line, steps=taps - 1)


def lower_delay(state: Lowering, node: Node, work: Context) -> None:
    """A stream some steps later, by a delay line that begins with zeros."""
    words, line = words_of(state.kind(0)), state.code().serial("line")
    src = state.read(0, work)
    state.emit(work, "delay", dst=state.result(work), src=src, words=words, line=line, steps=node.op["steps"])


def lower_reverse(state: Lowering, node: Node, work: Context) -> None:
    """A stream from its last step to its first: kept in one sweep, read backwards in the next."""
    words = words_of(state.kind(0))
    made = state.contexts[state.graph.operand(node.name, 0)]
    state.bind(turn(state, state.read(0, made), words, made, made.resweep()), made.resweep())


def lower_spread(state: Lowering, node: Node, work: Context) -> None:
    """Registers written outside of a sweep stand at every step of it already."""
    context = state.contexts[Value(node.name)]
    src = state.read(0, context)
    dst = state.result(context)
    state.emit(context, "copy", dst=dst, src=src, words=words_of(node.types[0]))


def lower_pool(state: Lowering, node: Node, work: Context) -> None:
    """A stream becomes one value, folded step by step and read after the sweep."""
    kind, words = node.op["kind"], words_of(state.kind(0))
    if kind != "weighted_mean":
        _fold(state, work, state.read(0, work), words, kind, state.result(work.after))
        return
    x, weight, shape = state.read(0, work), state.read(1, work), tuple(state.kind(0).shape)
    spread = state.kind(1).shape
    full = arrange(state, work, weight, np.broadcast_to(positions(spread), shape), prod(spread))
    product, top, bottom = state.new(words), state.new(words), state.new(words)
    state.emit(work, "binary", dst=product, a=x, b=full, words=words, fn="mul")
    _fold(state, work, product, words, "sum", top)
    _fold(state, work, full, words, "sum", bottom)
    state.emit(work.after, "binary", dst=state.result(work.after), a=top, b=bottom, words=words, fn="div")


def _fold(state: Lowering, work: Context, src: Slot, words: int, kind: str, dst: Slot) -> None:
    line = state.code().serial("line")
    state.emit(work, "pool", src=src, words=words, line=line, kind=kind)
    state.emit(work.after, "pooled", dst=dst, words=words, line=line)


def lower_downsample(state: Lowering, node: Node, work: Context) -> None:
    """Every n-th step, or a fold of n steps, in the slower context of its result."""
    context = state.contexts[Value(node.name)]
    words, kind = words_of(state.kind(0)), node.op["kind"]
    src = state.read(0, work)
    if kind == "take":
        state.emit(context, "copy", dst=state.result(context), src=src, words=words)
        return
    line = state.code().serial("line")
    state.emit(work, "window", src=src, words=words, line=line, steps=node.op["stride"], kind=kind)
    state.emit(context, "windowed", dst=state.result(context), words=words, line=line)
