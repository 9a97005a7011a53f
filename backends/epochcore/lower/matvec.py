"""A linear system as one matrix-vector product a step: what an array does that knows neither states nor windows.

With the real halves of its states x, a channel is [x'; y] = M [x; u]. As many channels as fit lie on the diagonal of an
array, their states and inputs side by side in a row that is kept from step to step. A step waits for the one before,
so a loop with such a layer takes chunks of one step, and pays preload, fill and drain at each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.clock.gemm import ceil_div
from backends.epochcore.lower.draft import Buffer, Param
from backends.epochcore.lower.features import gather
from backends.epochcore.lower.lowering import Lowering, Operand
from backends.epochcore.lower.time import carried
from backends.epochcore.lower.window_matrices import System
from ssmc.ir import Node, Value

Array = NDArray[np.float64]


def side_by_side(low: Lowering, words: int) -> int:
    """Channels of so many words (states and input) that one array holds; 0 where it does not hold one."""
    return min(low.arch.array.rows, low.arch.array.cols) // words


def least_cycles(low: Lowering, channels: int, words: int) -> int:
    """Cycles of all steps at least: a product's way through the array, or the ways in of all weights."""
    array = low.arch.array
    groups = ceil_div(channels, max(1, side_by_side(low, words)))
    weights = array.rows * ceil_div(array.cols, array.port_words_in)
    return low.request.steps * max(array.rows + array.cols - 1, groups * weights)


def matvec(low: Lowering, node: Node, system: System, u: Operand, x0: Operand | None) -> None:
    """Rules for a `tile.ssm`: products, states and inputs of groups of channels."""
    channels, states = system.a.shape
    half = system.parts * states
    group = side_by_side(low, half + 1)
    groups = [range(h, min(h + group, channels)) for h in range(0, channels, group)]
    starts = [some.start * (half + 1) for some in groups]
    words = channels * (half + 1)
    # words of the node's own layout (halves, channels, states) by their place, the inputs' places left at 0
    own = np.arange(system.parts * channels * states).reshape(system.parts, channels, states).transpose(1, 0, 2)
    order, place = np.zeros(words, np.int32), np.zeros(own.size, np.int32)
    for some, start in zip(groups, starts, strict=True):
        mine = own[some.start : some.stop].ravel()
        order[start : start + mine.size], place[mine] = mine, start + np.arange(mine.size)
    if x0 is None:
        row = carried(low, node, words)
    else:
        row = low.draft.row(words)
        gather(low, node, row.at(), Operand(x0.ref, x0.words, True), order, ".x0")
    after, y, steps = low.draft.row(words), low.new(node), low.steps(node)
    low.draft.single.add(low.stage(node))
    step = carried(low, node, channels)
    low.emit(node, "pool", state=step.at(), src=u.ref, fn="last", words=channels, steps=steps)
    for some, start in zip(groups, starts, strict=True):
        inputs, size = start + len(some) * half, len(some) * (half + 1)
        at = {"src": step.at(some.start), "dst": row.at(inputs), "src_pitch": channels, "dst_pitch": words}
        low.emit(node, "copy", **at, words=len(some), steps="one", src_held=False)
        weights = Param(low.draft.constant(f"{node.name}.step{some.start}", _matrix(system.some(some))))
        plain = {"scale": 0, "bias": 0, "scaled": False, "biased": False, "mode": "mac"}
        low.emit(node, "preload", src=weights, **plain, rows=size, cols=size)
        at = {"src": row.at(start), "dst": after.at(start), "src_pitch": words, "dst_pitch": words}
        low.emit(node, "mac", **at, steps="one", accumulate=False)
        at = {"src": after.at(inputs), "dst": y.at(some.start), "src_pitch": words, "dst_pitch": channels}
        low.emit(node, "copy", **at, words=len(some), steps=steps, src_held=True)
    back = {"src": after.at(), "dst": row.at(), "src_pitch": words, "dst_pitch": words}
    low.emit(node, "copy", **back, words=words, steps="one", src_held=False)
    _last(low, node, row, place)


def _last(low: Lowering, node: Node, row: Buffer, place: NDArray[np.int32]) -> None:
    """The states after the sequence, in the node's own layout."""
    if low.graph.users(Value(node.name, 1)):
        last = low.buffers[Value(node.name, 1)] = low.draft.row(place.size)
        index = low.draft.constant(f"{node.name}.index.last", place)
        fields = {"index": index, "src_pitch": row.words, "words": place.size, "steps": "one"}
        low.draft.emit(low.stage(node) + 1, "gather", dst=last.at(), src=row.at(), **fields)


def _matrix(system: System) -> Array:
    """M of several channels: their states, then their inputs, to their next states, then their outputs."""
    channels, states = system.a.shape
    half, (a, b, c) = system.parts * states, (system.a, system.b, system.c)
    whole = np.zeros((channels * (half + 1),) * 2)
    # y = Re(c x) + d u, of the states before the step or after it
    read, through = (c, system.d) if system.before else (c * a, system.d + np.sum(c * b, 1).real)
    for h in range(channels):
        own, step = np.arange(h * half, (h + 1) * half).reshape(system.parts, states), channels * half + h
        whole[own[0], own[0]], whole[own[0], step], whole[step, own[0]] = a[h].real, read[h].real, b[h].real
        if system.parts == 2:
            whole[own[1], own[1]], whole[own[1], own[0]], whole[own[0], own[1]] = a[h].real, -a[h].imag, a[h].imag
            whole[own[1], step], whole[step, own[1]] = -read[h].imag, b[h].imag
        whole[step, step] = through[h]
    return whole
