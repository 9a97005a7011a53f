"""Rules for ops that only move words: aliases where the words lie right already, `gather` where not."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.cim.lower.code import Slot
from backends.cim.lower.contexts import Context
from backends.cim.lower.lowering import Lowering, words_of
from ssmc.ir import Node


def positions(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The offset of every element of a row-major value."""
    return np.arange(prod(shape), dtype=np.int64).reshape(shape)


def arrange(state: Lowering, context: Context, slot: Slot, index: NDArray[Any], span: int) -> Slot:
    """The words of `slot` (`span` of them) in the order of `index`; the same slot where they lie so already."""
    flat = np.ascontiguousarray(index).reshape(-1).astype(np.int64)
    if flat.size and np.array_equal(flat, np.arange(flat[0], flat[0] + flat.size)):
        return slot.at(int(flat[0]))
    there = state.new(flat.size)
    state.emit(context, "gather", dst=there, src=slot, span=span, index=state.table("index", flat))
    return there


def _rearrange(state: Lowering, work: Context, index: NDArray[Any]) -> None:
    kind = state.kind(0)
    half = prod(kind.shape)
    if kind.element == "complex":
        index = np.concatenate([index.reshape(-1), half + index.reshape(-1)])
    state.bind(arrange(state, work, state.read(0, work), index, words_of(kind)), work)


def lower_reshape(state: Lowering, node: Node, work: Context) -> None:
    """The same words in the same order."""
    state.bind(state.read(0, work), work)


def lower_slice(state: Lowering, node: Node, work: Context) -> None:
    """Some words, by their places along an axis."""
    shape = state.kind(0).shape
    where: list[Any] = [slice(None)] * len(shape)
    where[node.op["axis"]] = slice(node.op["start"], node.op["stop"], node.op["step"])
    _rearrange(state, work, positions(shape)[tuple(where)])


def lower_take(state: Lowering, node: Node, work: Context) -> None:
    """Words by the places that `index` lists along an axis."""
    _rearrange(state, work, np.take(positions(state.kind(0).shape), node.op["index"].array, axis=node.op["axis"]))


def lower_transpose(state: Lowering, node: Node, work: Context) -> None:
    """The same words in the order of other axes."""
    _rearrange(state, work, positions(state.kind(0).shape).transpose(node.op["permutation"]))


def lower_broadcast(state: Lowering, node: Node, work: Context) -> None:
    """Words repeated."""
    _rearrange(state, work, np.broadcast_to(positions(state.kind(0).shape), node.op["shape"]))


def lower_concat(state: Lowering, node: Node, work: Context) -> None:
    """Parts one after another; where the axis is not the first, a gather puts them in order."""
    kinds = [state.kind(i) for i in range(len(state.graph.operands(node.name)))]
    axis = node.op["axis"]
    joined, start = state.new(sum(prod(kind.shape) for kind in kinds)), 0
    order = []
    for i, kind in enumerate(kinds):
        words = prod(kind.shape)
        if words:
            state.emit(work, "copy", dst=joined.at(start), src=state.read(i, work), words=words)
        order.append(start + positions(kind.shape))
        start += words
    state.bind(arrange(state, work, joined, np.concatenate(order, axis), start), work)
