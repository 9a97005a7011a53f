"""Columns left over: layers that read one stream share the passes of their last columns.

A matrix of N columns takes ceil(N / C) passes over an array of C columns (for each R of its inputs), the last of them
with only N mod C columns in use; so do the channels of a bank of states. Where several layers read the same stream,
such rests of theirs lie side by side in one pass, whose results are copied behind each layer's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backends.epochcore.lower.draft import Buffer, Ref
from backends.epochcore.lower.lowering import Lowering, Operand
from ssmc.ir import Node, StreamType, Value


@dataclass(frozen=True)
class Rest:
    """The last `width` columns of a node's result."""

    node: Node
    start: int
    width: int


def rests(low: Lowering, node: Node, width: Callable[[Node], int]) -> tuple[Rest, ...]:
    """What shares a pass with the rest of `node`, itself first; nothing where that saves none.

    `width` are the columns that a node has left over, 0 where it cannot share them. Copies must take the vector unit
    less than a quarter of the time that they save the array.
    """
    operand = low.graph.operand(node.name, 0)
    found, used, columns = [], 0, low.arch.array.cols
    for user in dict.fromkeys(name for name, slot in low.graph.users(operand) if slot == 0):
        other = low.graph.node(user)
        like = other.op.name == node.op.name and isinstance(other.types[0], StreamType)
        if not like or low.stage(other) != low.stage(node) or user in low.shared:
            continue
        own = width(other)
        if own and used + own <= columns:
            words = low.words(Value(user))
            found.append(Rest(other, words - own, own))
            used += own
    if len(found) < 2 or node.name not in {rest.node.name for rest in found}:
        return ()
    if 4 * 2 * used > (len(found) - 1) * low.arch.vector.width * low.arch.vector.pipes:
        return ()
    return tuple(found)


def gathered(low: Lowering, node: Node, u: Operand, parts: Sequence[Rest]) -> Buffer:
    """The words of `u` at the place of each rest, side by side."""
    wide = low.temporary(node, sum(rest.width for rest in parts))
    place = 0
    for rest in parts:
        _copy(low, node, wide.at(place), Ref(u.ref.buffer, u.ref.offset + rest.start), rest.width)
        place += rest.width
    return wide


def keep(low: Lowering, results: Buffer, parts: Sequence[Rest]) -> None:
    """Remember where the results of the rests lie side by side."""
    place = 0
    for rest in parts:
        low.shared[rest.node.name] = results.at(place)
        place += rest.width


def hand_out(low: Lowering, node: Node, start: int) -> None:
    """After a node's own passes: its last columns, from the `start`, come from the pass that they shared."""
    if node.name in low.shared:
        dst = low.buffers[Value(node.name)]
        _copy(low, node, dst.at(start), low.shared[node.name], dst.words - start)


def _copy(low: Lowering, node: Node, dst: Ref, src: Ref, words: int) -> None:
    pitches = {"dst_pitch": dst.buffer.words, "src_pitch": src.buffer.words}
    low.emit(node, "copy", dst=dst, src=src, **pitches, words=words, steps=low.steps(node), src_held=False)
