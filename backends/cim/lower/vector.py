"""Rules for the vector unit: elementwise functions, norms, reductions, products of computed values."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from backends.cim.lower.code import Slot
from backends.cim.lower.contexts import Context
from backends.cim.lower.lowering import Lowering
from backends.cim.lower.shape import arrange, positions
from ssmc.ir import Node


def _cycle(shape: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, int] | None:
    """(words, repeat) where element i of `target` is word (i // repeat) mod words of `shape`, if it is so."""
    padded = (1,) * (len(target) - len(shape)) + tuple(shape)
    same = [i for i, (a, b) in enumerate(zip(padded, target, strict=True)) if a != 1]
    if not same:
        return 1, 1
    first, last = same[0], same[-1]
    if padded[first : last + 1] != target[first : last + 1]:
        return None
    return prod(padded), prod(target[last + 1 :])


def _whole(state: Lowering, context: Context, index: int, target: tuple[int, ...]) -> Slot:
    """An operand spread over the feature shape `target`."""
    shape = state.kind(index).shape
    slot = state.read(index, context)
    return arrange(state, context, slot, np.broadcast_to(positions(shape), target), prod(shape))


def _shape(node: Node) -> tuple[int, ...]:
    kind: Any = node.types[0]
    return tuple(kind.shape)


def lower_unary(state: Lowering, node: Node, work: Context) -> None:
    """A function of each word."""
    if node.op["fn"] == "identity":
        state.bind(state.read(0, work), work)
        return
    src = state.read(0, work)
    state.emit(work, "unary", dst=state.result(work), src=src, words=prod(_shape(node)), fn=node.op["fn"])


def lower_binary(state: Lowering, node: Node, work: Context) -> None:
    """A function of two values, one of which may repeat its words over the other."""
    shape = _shape(node)
    operands: dict[str, Any] = {}
    for index, name in enumerate("ab"):
        cycle = _cycle(state.kind(index).shape, shape)
        if cycle is None:
            operands[name] = _whole(state, work, index, shape)
            continue
        operands[name] = state.read(index, work)
        if cycle[0] != prod(shape):
            operands |= {f"{name}_words": cycle[0], f"{name}_repeat": cycle[1]}
    state.emit(work, "binary", dst=state.result(work), words=prod(shape), fn=node.op["fn"], **operands)


def lower_gate(state: Lowering, node: Node, work: Context) -> None:
    """A product of one value and a function of another."""
    shape = _shape(node)
    a, b = (_whole(state, work, i, shape) for i in range(2))
    state.emit(work, "gate", dst=state.result(work), a=a, b=b, words=prod(shape), fn=node.op["fn"])


def lower_select(state: Lowering, node: Node, work: Context) -> None:
    """Words of one value or another, by a condition."""
    shape = _shape(node)
    condition, a, b = (_whole(state, work, i, shape) for i in range(3))
    state.emit(work, "select", dst=state.result(work), condition=condition, a=a, b=b, words=prod(shape))


def lower_norm(state: Lowering, node: Node, work: Context) -> None:
    """A norm over the last axis, or groups of it, with its scale and shift."""
    op, shape = node.op, _shape(node)
    given: dict[str, Any] = {
        name: state.constant(name, op[name].array) for name in ("scale", "shift") if op[name] is not None
    }
    state.emit(
        work,
        "norm",
        src=state.read(0, work),
        dst=state.result(work),
        features=shape[-1],
        vectors=prod(shape[:-1]),
        groups=op["groups"],
        kind=op["kind"],
        epsilon=op["epsilon"],
        **given,
    )


def lower_softmax(state: Lowering, node: Node, work: Context) -> None:
    """Softmax (or its logarithm) over the last axis."""
    shape = _shape(node)
    state.emit(
        work,
        "softmax",
        src=state.read(0, work),
        dst=state.result(work),
        features=shape[-1],
        vectors=prod(shape[:-1]),
        log=bool(node.op["log"]),
    )


def lower_reduce(state: Lowering, node: Node, work: Context) -> None:
    """One reduction over neighbouring axes; others are moved to the end first."""
    shape = tuple(state.kind(0).shape)
    axes = sorted({axis % len(shape) for axis in node.op["axes"]})
    src = state.read(0, work)
    if not axes:
        state.bind(src, work)
        return
    outer, words, inner = prod(shape[: axes[0]]), prod(shape[axes[0] : axes[-1] + 1]), prod(shape[axes[-1] + 1 :])
    if axes != list(range(axes[0], axes[-1] + 1)):
        kept = [axis for axis in range(len(shape)) if axis not in axes]
        src = arrange(state, work, src, positions(shape).transpose(kept + axes), prod(shape))
        outer, words, inner = prod(shape[i] for i in kept), prod(shape[i] for i in axes), 1
    dst = state.result(work)
    state.emit(work, "reduce", dst=dst, src=src, outer=outer, words=words, inner=inner, fn=node.op["fn"])


def _factor(state: Lowering, context: Context, slot: Slot, term: str, order: str, sizes: dict[str, int]) -> Slot:
    """An operand's axes in the order wanted: repeated letters become diagonals, letters left out are summed."""
    shape = tuple(sizes[letter] for letter in term)
    lost = "".join(sorted(set(term) - set(order)))
    index = np.einsum(f"{term}->{order}{lost}", positions(shape))
    slot = arrange(state, context, slot, index, prod(shape))
    if not lost:
        return slot
    summed, count = state.new(prod(sizes[i] for i in order)), prod(sizes[i] for i in lost)
    state.emit(
        context, "reduce", dst=summed, src=slot, outer=prod(sizes[i] for i in order), words=count, inner=1, fn="sum"
    )
    return summed


def lower_contract(state: Lowering, node: Node, work: Context) -> None:
    """An einsum of two operands as matrix products: shared and kept letters are groups, shared and lost ones inner."""
    terms, _, result = node.op["equation"].partition("->")
    a, b = terms.split(",")
    sizes = {
        letter: size
        for term, kind in ((a, state.kind(0)), (b, state.kind(1)))
        for letter, size in zip(term, kind.shape, strict=True)
    }
    both = [letter for letter in dict.fromkeys(a) if letter in b]
    groups = "".join(letter for letter in both if letter in result)
    inner = "".join(letter for letter in both if letter not in result)
    rows = "".join(letter for letter in dict.fromkeys(a) if letter in result and letter not in b)
    cols = "".join(letter for letter in dict.fromkeys(b) if letter in result and letter not in a)
    left = _factor(state, work, state.read(0, work), a, groups + rows + inner, sizes)
    right = _factor(state, work, state.read(1, work), b, groups + inner + cols, sizes)
    count = {
        name: prod(sizes[i] for i in letters)
        for name, letters in (("groups", groups), ("rows", rows), ("inner", inner), ("cols", cols))
    }
    dst = state.new(count["groups"] * count["rows"] * count["cols"])
    state.emit(work, "contract", dst=dst, a=left, b=right, **count)
    made = groups + rows + cols
    order = np.einsum(f"{made}->{result}", positions(tuple(sizes[i] for i in made)))
    state.bind(arrange(state, work, dst, order, order.size), work)


def lower_embed(state: Lowering, node: Node, work: Context) -> None:
    """Rows of a table, by index."""
    table = node.op["table"].array
    count = prod(state.kind(0).shape)
    name = state.table("table", table.reshape(len(table), -1))
    state.emit(work, "embed", src=state.read(0, work), dst=state.result(work), count=count, table=name)
