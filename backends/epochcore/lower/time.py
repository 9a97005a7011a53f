"""Lowering of what carries something from step to step outside the array: pooling, filters, rates, order."""

from __future__ import annotations

from typing import Any

import numpy as np

from backends.epochcore.lower.draft import Buffer
from backends.epochcore.lower.features import copy, given, pattern, spread_out
from backends.epochcore.lower.flow import is_backward
from backends.epochcore.lower.lowering import Lowering, Operand
from backends.epochcore.lower.rates import downsampled, every
from ssmc.ir import Node, Value
from ssmc.ir.op import Array
from ssmc.ir.ops.rounded import rows_of
from ssmc.ir.ops.rounded_sums import TERM
from ssmc.ir.ops.spiking import ROWS

LATEST = 4095  # steps that one delay instruction waits at most: `lag` has 12 bits
LONGEST = 8190  # steps that one filter instruction looks back at most: `length` has 13 bits


def carried(low: Lowering, node: Node, words: int, start: Operand | None = None, value: float = 0.0) -> Buffer:
    """One row kept from chunk to chunk, set before the loop to a number or to `start`: its own row, where nobody else
    reads that."""
    if start is not None:
        own = start.ref.buffer
        if own in low.given_up and start.ref == own.at() and own.words == words:
            low.given_up.remove(own)
            return own
    row, stage = low.draft.row(words), low.stage(node) - 1
    if start is None:
        low.draft.emit(stage, "fill", dst=row.at(), words=words, value=value)
    else:
        fields = {"dst_pitch": words, "src_pitch": words, "words": words, "steps": "one", "src_held": False}
        low.draft.emit(stage, "copy", dst=row.at(), src=start.ref, **fields)
    return row


def pool(low: Lowering, node: Node) -> None:
    """A stream becomes one value: a row that each chunk folds its steps into."""
    kind, words = node.op["kind"], low.words(Value(node.name))
    stage, after = low.stage(node), low.stage(node) + 1
    (x,) = given(low, node, 1)
    stream = low.view(low.graph.operand(node.name, 0))[0]
    count = low.register(low.flow.rates[stream])
    if kind in ("last", "first", "max"):
        backward = {"last": "first", "first": "last"}
        fn = backward.get(kind, kind) if is_backward(stage) else kind
        total = carried(low, node, words, value=-np.inf if kind == "max" else 0.0)
        low.emit(node, "pool", state=total.at(), src=x.ref, fn=fn, words=words, steps=count)
        low.buffers[Value(node.name)] = total
        return
    if kind == "weighted_mean":
        _weighted_mean(low, node, x, count)
        return
    total = carried(low, node, words)
    low.emit(node, "pool", state=total.at(), src=x.ref, fn="sum", words=words, steps=count)
    low.buffers[Value(node.name)] = total
    if kind == "mean":
        mean = low.buffers[Value(node.name)] = low.draft.row(words)
        low.draft.emit(after, "average", dst=mean.at(), src=total.at(), words=words, count=count)


def _weighted_mean(low: Lowering, node: Node, x: Operand, count: str) -> None:
    """sum(x w) / sum(w); the weights broadcast against x."""
    value = low.graph.operand(node.name, 1)
    w, shape, stage = low.operand(value, low.stage(node)), low.shape(value), low.stage(node)
    found = pattern(shape, low.shape(Value(node.name)))
    spread = Buffer(x.words, stage)
    # a product with ones spreads the weights over the features, whatever their pattern
    ones = Operand(low.constant_row(f"{node.name}.ones", np.ones(x.words)), x.words, True)
    if found is None:
        w, found = spread_out(low, node, w, shape, low.shape(Value(node.name))), ("each", 1)
    fields = {"words": x.words, "steps": count, "fn": "mul", "b": w.ref, "b_held": w.held}
    fields |= {"b_pattern": found[0], "inner": found[1]}
    low.emit(node, "binary", dst=spread.at(), a=ones.ref, a_held=True, **fields)
    product = Buffer(x.words, stage)
    low.emit(node, "binary", dst=product.at(), a=x.ref, **fields)
    sums = [carried(low, node, x.words) for _ in range(2)]
    for total, part in zip(sums, (product, spread), strict=True):
        low.emit(node, "pool", state=total.at(), src=part.at(), fn="sum", words=x.words, steps=count)
    mean = low.buffers[Value(node.name)] = low.draft.row(x.words)
    low.draft.emit(
        stage + 1, "binary", dst=mean.at(), a=sums[0].at(), b=sums[1].at(), fn="div", words=x.words, steps="one"
    )


def fir(low: Lowering, node: Node) -> None:
    """A filter over the steps in the vector unit, its last inputs carried from chunk to chunk."""
    length = node.op["kernel"].shape[1]
    operands = low.operands(node, low.stage(node))
    u, history = operands[0], operands[1] if len(operands) > 1 else None
    assert u is not None
    taps = node.op["kernel"].array
    if length > LONGEST + 1 and history is None and not list(low.graph.users(Value(node.name, 1))):
        _in_pieces(low, node, u, taps)
        return
    low.buffers[Value(node.name, 1)] = _filtered(low, node, low.new(node).at(), u.ref, taps, "taps", history)


def _filtered(
    low: Lowering, node: Node, dst: Any, src: Any, taps: Array, name: str, history: Operand | None = None
) -> Buffer:
    """One filter instruction; what it carries."""
    channels, length = taps.shape
    state = carried(low, node, max(channels * (length - 1), 1), history if length > 1 else None)
    low.emit(
        node,
        "fir",
        dst=dst,
        src=src,
        state=state.at(),
        taps=low.constant_row(f"{node.name}.{name}", taps),
        channels=channels,
        length=length,
        steps=low.steps(node),
        reverse=node.op["reverse"],
    )
    return state


def _in_pieces(low: Lowering, node: Node, u: Operand, taps: Array) -> None:
    """A filter of more taps than an instruction takes: the sum of filters behind each other's delays.

    A filter of one tap other than zero waits, as `delay` does, in either direction of time.
    """
    channels, steps = len(taps), low.steps(node)
    wait = np.zeros((channels, LONGEST + 1))
    wait[:, -1] = 1.0
    dst, src = low.new(node).at(), u.ref
    _filtered(low, node, dst, src, taps[:, :LONGEST], "taps")
    for start in range(LONGEST, taps.shape[1], LONGEST):
        late, part = low.temporary(node, channels).at(), low.temporary(node, channels).at()
        _filtered(low, node, late, src, wait, "wait")
        _filtered(low, node, part, late, taps[:, start : start + LONGEST], f"taps{start}")
        low.emit(node, "binary", dst=dst, a=dst, b=part, fn="add", words=channels, steps=steps)
        src = late


def spike(low: Lowering, node: Node) -> None:
    """Neurons that fire."""
    rows = np.concatenate([node.op[name].array.ravel() for name in ROWS])
    _stepped(low, node, "spike", rows, or_equal=node.op["or_equal"], immediate=node.op["immediate"])


def rounded(low: Lowering, node: Node) -> None:
    """States that are rounded at every step."""
    rows, fields = rows_of(node.op)
    _stepped(low, node, "rounded", rows, **fields)


def rounded_sums(low: Lowering, node: Node) -> None:
    """Nets of sums, each rounded at every step."""
    grid, terms = node.op["grid"].array, node.op["terms"].array
    rows = np.concatenate([grid.reshape(-1), terms.reshape(-1)])
    fields = {name: node.op[name] for name in ("rounding", "reached")}
    _stepped(low, node, "rounded.sums", rows, terms=terms.shape[1], gated=len(terms) > len(TERM), **fields)


def _stepped(low: Lowering, node: Node, mnemonic: str, rows: Array, **fields: Any) -> None:
    """A recurrence of the vector unit that is not linear: `rows` are numbers for each state."""
    words = low.words(Value(node.name))
    v, x0 = (*low.operands(node, low.stage(node)), None)[:2]
    assert v is not None
    state = carried(low, node, words, x0)
    low.emit(
        node,
        mnemonic,
        dst=low.new(node).at(),
        src=v.ref,
        state=state.at(),
        rows=low.constant_row(f"{node.name}.rows", rows),
        words=words,
        steps=low.steps(node),
        reverse=node.op["reverse"],
        before=node.op["read_before"],
        **fields,
    )
    low.buffers[Value(node.name, 1)] = state


def delay(low: Lowering, node: Node) -> None:
    """A stream some steps later, zeros first; long delays are several instructions."""
    (x,) = given(low, node, 1)
    left, dst, steps, src = int(node.op["steps"]), low.new(node).at(), low.steps(node), x.ref
    while left:
        lag = min(left, LATEST)
        left -= lag
        to = low.temporary(node, x.words).at() if left else dst
        state = carried(low, node, x.words * lag)
        low.emit(node, "delay", dst=to, src=src, state=state.at(), words=x.words, lag=lag, steps=steps)
        src = to


def downsample(low: Lowering, node: Node) -> None:
    """Every n-th step, or a fold of n steps."""
    (x,) = given(low, node, 1)
    op = node.op
    source = low.view(low.graph.operand(node.name, 0))[0]
    state = carried(low, node, x.words)
    rates = low.flow.rates[Value(node.name)]
    if rates != downsampled(low.flow.rates[source], op):
        low.draft.whole(low.stage(node), every(rates))
    low.emit(
        node,
        "downsample",
        dst=low.new(node).at(),
        src=x.ref,
        state=state.at(),
        kind=op["kind"],
        words=x.words,
        stride=op["stride"],
        offset=op["offset"],
        steps=low.register(low.flow.rates[source]),
        result=low.steps(node),
    )


def spread(low: Lowering, node: Node) -> None:
    """A value of one per sequence, written to every step."""
    (x,) = given(low, node, 1)
    copy(low, node, low.new(node).at(), x.words, x.ref, x, x.words)


RULES = {
    "pool": pool,
    "fir": fir,
    "spike": spike,
    "rounded": rounded,
    "rounded_sums": rounded_sums,
    "delay": delay,
    "downsample": downsample,
    "spread": spread,
}
