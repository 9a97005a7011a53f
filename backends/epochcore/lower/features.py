"""Lowering of what happens within one step: elementwise functions, norms, and the order of features."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from backends.epochcore.lower.draft import Buffer, Ref
from backends.epochcore.lower.flow import is_loop
from backends.epochcore.lower.lowering import Lowering, Operand
from ssmc.ir import ConstantType, Node, Value, spec_of
from ssmc.ir.op import Array

Shape = tuple[int, ...]


def given(low: Lowering, node: Node, slots: int) -> list[Operand]:
    """The first `slots` operands of a node, all of them present."""
    return [low.operand(low.graph.operand(node.name, slot), low.stage(node)) for slot in range(slots)]


def pattern(shape: Shape, result: Shape) -> tuple[str, int] | None:
    """How an operand of `shape` meets a result: a pattern of the instruction set with its period, or None."""
    if prod(shape) == prod(result):
        return "each", 1
    if prod(shape) == 1:
        return "one", 1
    full = (1,) * (len(result) - len(shape)) + shape
    first = next(i for i, d in enumerate(full) if d > 1)
    last = max(i for i, d in enumerate(full) if d > 1) + 1
    if full[first:] == result[first:]:
        return "tile", prod(shape)
    if full[:last] == result[:last]:
        return "repeat", prod(result[last:])
    return None


def _broadcasting(low: Lowering, node: Node, operands: list[Operand], shapes: list[Shape]) -> dict[str, Any]:
    """Operand fields a, b with their patterns; what has no pattern is spread out first."""
    result = low.shape(Value(node.name))
    fields: dict[str, Any] = {"inner": 1}
    for name, operand, shape in zip("ab", operands, shapes, strict=True):
        found = pattern(shape, result)
        if found is None or (found[1] != 1 and fields["inner"] not in (1, found[1])):
            operand, found = spread_out(low, node, operand, shape, result), ("each", 1)
        if found[1] != 1:
            fields["inner"] = found[1]
        fields |= {name: operand.ref, f"{name}_held": operand.held, f"{name}_pattern": found[0]}
    return fields


def spread_out(low: Lowering, node: Node, operand: Operand, shape: Shape, result: Shape) -> Operand:
    """An operand gathered so that it has a word for each word of the result."""
    full = (1,) * (len(result) - len(shape)) + shape
    index = np.broadcast_to(np.arange(operand.words).reshape(full), result)
    return _gathered(low, node, operand, index, ".spread")


def _gathered(low: Lowering, node: Node, operand: Operand, index: Array, suffix: str) -> Operand:
    """Words of an operand in the order of `index`, in a buffer of their own."""
    buffer = low.draft.row(index.size) if operand.held else low.temporary(node, index.size)
    gather(low, node, buffer.at(), operand, index, suffix)
    return Operand(buffer.at(), index.size, operand.held)


def gather(low: Lowering, node: Node, dst: Ref, operand: Operand, index: Array, suffix: str = "") -> None:
    """Write words of an operand by their places (`index`) in it."""
    index = np.ascontiguousarray(index, np.int32)
    index = index if index.ndim == 1 else index.ravel()
    data = low.draft.constant(f"{node.name}.index{suffix}", index)
    low.draft.emit(
        _stage(low, node, operand),
        "gather",
        dst=dst,
        src=operand.ref,
        index=data,
        src_pitch=operand.words,
        words=index.size,
        steps="one" if operand.held else low.steps(node),
    )


def _stage(low: Lowering, node: Node, operand: Operand) -> int:
    """Where to prepare an operand: what is the same at every step is prepared before the loop."""
    stage = low.stage(node)
    return stage - 1 if operand.held and is_loop(stage) else stage


def unary(low: Lowering, node: Node) -> None:
    """A function of each word."""
    (x,) = given(low, node, 1)
    if node.op["fn"] == "identity":
        low.alias(node, low.graph.operand(node.name, 0))
        return
    low.emit(node, "unary", dst=low.new(node).at(), src=x.ref, fn=node.op["fn"], words=x.words, steps=low.steps(node))


def binary(low: Lowering, node: Node) -> None:
    """A function of two values, one of which may repeat its words over the other."""
    values = [low.graph.operand(node.name, slot) for slot in range(2)]
    fields = _broadcasting(low, node, given(low, node, 2), [low.shape(v) for v in values])
    words = low.words(Value(node.name))
    low.emit(node, node.op.name, dst=low.new(node).at(), fn=node.op["fn"], words=words, steps=low.steps(node), **fields)


def select(low: Lowering, node: Node) -> None:
    """Words of one value or another, by a condition."""
    result = low.shape(Value(node.name))
    fields: dict[str, Any] = {}
    for slot, name in enumerate("cab"):
        value = low.graph.operand(node.name, slot)
        operand = low.operand(value, low.stage(node))
        if operand.words != prod(result):
            operand = spread_out(low, node, operand, low.shape(value), result)
        fields |= {name: operand.ref, f"{name}_held": operand.held}
    low.emit(node, "select", dst=low.new(node).at(), words=prod(result), steps=low.steps(node), **fields)


def norm(low: Lowering, node: Node) -> None:
    """A norm over the last axis, or groups of it; `par` holds epsilon, and scale and shift where there are any."""
    (x,) = given(low, node, 1)
    op, shape = node.op, low.shape(Value(node.name))
    scale = np.ones(shape[-1]) if op["scale"] is None else op["scale"].array
    shift = np.zeros(shape[-1]) if op["shift"] is None else op["shift"].array
    affine = op["scale"] is not None or op["shift"] is not None
    par = np.concatenate([[op["epsilon"]], scale, shift] if affine else [[op["epsilon"]]])
    low.emit(
        node,
        "norm",
        dst=low.new(node).at(),
        src=x.ref,
        par=low.constant_row(f"{node.name}.norm", par),
        kind=op["kind"],
        words=x.words,
        vectors=prod(shape[:-1]),
        groups=op["groups"],
        steps=low.steps(node),
        affine=affine,
    )


def softmax(low: Lowering, node: Node) -> None:
    """Softmax (or its logarithm) over the last axis."""
    (x,) = given(low, node, 1)
    vectors = prod(low.shape(Value(node.name))[:-1])
    dst, steps = low.new(node).at(), low.steps(node)
    low.emit(node, "softmax", dst=dst, src=x.ref, words=x.words, vectors=vectors, steps=steps, log=node.op["log"])


def reduce(low: Lowering, node: Node) -> None:
    """One reduction over neighbouring axes; others are moved to the end first."""
    value = low.graph.operand(node.name, 0)
    x, shape = low.operand(value, low.stage(node)), low.shape(value)
    axes = sorted(axis + len(shape) for axis in node.op["axes"])
    if axes and axes != list(range(axes[0], axes[-1] + 1)):
        kept = [i for i in range(len(shape)) if i not in axes]
        x = _gathered(low, node, x, np.arange(x.words).reshape(shape).transpose(*kept, *axes), ".reduce")
        shape = tuple(shape[i] for i in (*kept, *axes))
        axes = list(range(len(kept), len(shape)))
    first, last = (axes[0], axes[-1] + 1) if axes else (len(shape), len(shape))
    low.emit(
        node,
        "reduce",
        dst=low.new(node).at(),
        src=x.ref,
        fn=node.op["fn"],
        outer=prod(shape[:first]),
        axis=prod(shape[first:last]),
        inner=prod(shape[last:]),
        steps=low.steps(node),
    )


def rearrange(low: Lowering, node: Node) -> None:
    """slice, take, reshape, transpose, broadcast: every word of the result is a word of the operand."""
    value = low.graph.operand(node.name, 0)
    index = _positions(node, low.shape(value))
    x = low.operand(value, low.stage(node))
    if index.size == x.words and np.array_equal(index.ravel(), np.arange(x.words)):
        low.alias(node, value)
        return
    flat = index.ravel()
    if np.array_equal(flat, np.arange(flat[0], flat[0] + flat.size)):
        copy(low, node, low.new(node).at(), flat.size, Ref(x.ref.buffer, x.ref.offset + int(flat[0])), x, flat.size)
        return
    gather(low, node, low.new(node).at(), x, index)


def copy(low: Lowering, node: Node, dst: Ref, pitch: int, src: Ref, operand: Operand, words: int) -> None:
    """Copy `words` words of an operand, from `src` in it, into rows of `pitch` words."""
    steps = low.steps(node)
    low.emit(
        node,
        "copy",
        dst=dst,
        dst_pitch=pitch,
        src=src,
        src_pitch=operand.words,
        words=words,
        steps=steps,
        src_held=operand.held and steps != "one",
    )


def _positions(node: Node, shape: Shape) -> Array:
    """Which word of the operand each word of the result is, by running the op on positions."""
    positions = np.arange(prod(shape), dtype=np.int64).reshape(shape)
    return np.asarray(spec_of(node.op.name).evaluate(node.op, [positions], [ConstantType(shape)])[0])


def concat(low: Lowering, node: Node) -> None:
    """Parts one after another; where the axis is not the first, a gather puts them in order."""
    values = [value for value in low.graph.operands(node.name) if value is not None]
    shapes = [low.shape(value) for value in values]
    total = sum(prod(shape) for shape in shapes)
    axis = node.op["axis"]
    starts = np.cumsum([0, *(prod(s) for s in shapes)])
    order = np.concatenate(
        [start + np.arange(prod(s)).reshape(s) for start, s in zip(starts, shapes, strict=False)], axis
    ).ravel()
    in_order = np.array_equal(order, np.arange(total))
    joined: Buffer = low.new(node) if in_order else low.temporary(node, total)
    for value, start in zip(values, starts, strict=False):
        x = low.operand(value, low.stage(node))
        if x.words:
            copy(low, node, joined.at(int(start)), total, x.ref, x, x.words)
    if not in_order:
        gather(low, node, low.new(node).at(), Operand(joined.at(), total, False), order)


def contract(low: Lowering, node: Node) -> None:
    """An einsum of two operands as matrix products of (groups, m, k) and (groups, k, n)."""
    terms, _, result = node.op["equation"].partition("->")
    a, b = terms.split(",")
    values = [low.graph.operand(node.name, slot) for slot in range(2)]
    sizes = {
        letter: size
        for term, value in zip((a, b), values, strict=True)
        for letter, size in zip(term, low.shape(value), strict=True)
    }
    groups = [x for x in result if x in a and x in b]
    m, n = [x for x in result if x in a and x not in b], [x for x in result if x in b and x not in a]
    k = [x for x in dict.fromkeys(a) if x in b and x not in result]
    operands = []
    for term, value, axes in zip((a, b), values, ((groups, m, k), (groups, k, n)), strict=True):
        x = _summed(
            low,
            node,
            low.operand(value, low.stage(node)),
            term,
            "".join(letter for axis in axes for letter in axis),
            sizes,
        )
        operands.append(x)
    order = "".join(groups + m + n)
    direct = order == result
    size = {name: prod(sizes[x] for x in axes) for name, axes in (("groups", groups), ("m", m), ("k", k), ("n", n))}
    words = prod(sizes[x] for x in result)
    target = low.new(node) if direct else low.temporary(node, words)
    low.emit(
        node,
        "contract",
        dst=target.at(),
        a=operands[0].ref,
        b=operands[1].ref,
        a_held=operands[0].held,
        b_held=operands[1].held,
        steps=low.steps(node),
        **size,
    )
    if not direct:
        positions = np.arange(words).reshape([sizes[x] for x in order]).transpose([order.index(x) for x in result])
        gather(low, node, low.new(node).at(), Operand(target.at(), words, False), positions)


def _summed(low: Lowering, node: Node, x: Operand, term: str, wanted: str, sizes: dict[str, int]) -> Operand:
    """An operand of an einsum with its axes in the order `wanted`: diagonals taken, lonely axes summed."""
    index = np.arange(x.words).reshape([sizes[letter] for letter in term])
    lonely = "".join(letter for letter in dict.fromkeys(term) if letter not in wanted)
    index = np.einsum(f"{term}->{wanted}{lonely}", index)
    if not np.array_equal(index.ravel(), np.arange(x.words)):
        x = _gathered(low, node, x, index, f".{term}")
    if not lonely:
        return x
    words, axis = prod(sizes[c] for c in wanted), prod(sizes[c] for c in lonely)
    buffer = low.draft.row(words) if x.held else low.temporary(node, words)
    steps, stage = "one" if x.held else low.steps(node), _stage(low, node, x)
    low.draft.emit(stage, "reduce", dst=buffer.at(), src=x.ref, fn="sum", outer=words, axis=axis, inner=1, steps=steps)
    return Operand(buffer.at(), words, x.held)


def embed(low: Lowering, node: Node) -> None:
    """Rows of a table, by index."""
    (x,) = given(low, node, 1)
    table = node.op["table"].stored  # many are float32, which are kept so
    kind = np.float64 if low.ideal and table.dtype != np.float32 else np.float32
    rows = np.ascontiguousarray(table.reshape(len(table), -1), kind)
    data = low.draft.constant(f"{node.name}.table", rows)
    dst, steps = low.new(node).at(), low.steps(node)
    low.emit(node, "lookup", dst=dst, src=x.ref, table=data, words=rows.shape[1], count=x.words, steps=steps)


RULES = {
    "unary": unary,
    "binary": binary,
    "gate": binary,
    "select": select,
    "norm": norm,
    "softmax": softmax,
    "reduce": reduce,
    "slice": rearrange,
    "take": rearrange,
    "reshape": rearrange,
    "transpose": rearrange,
    "broadcast": rearrange,
    "concat": concat,
    "contract": contract,
    "embed": embed,
}
