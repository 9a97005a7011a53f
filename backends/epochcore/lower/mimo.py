"""Lowering of many-input systems, and of states alone, as matrix products over windows of steps, or one a step (see
`mimo`)."""

from __future__ import annotations

from functools import partial

import numpy as np

from backends.epochcore.lower.draft import Buffer, Param, Ref
from backends.epochcore.lower.features import gather
from backends.epochcore.lower.inputs import Group, Wide, kernel_length, wide_of
from backends.epochcore.lower.lowering import Lowering, Operand
from backends.epochcore.lower.request import Form
from backends.epochcore.lower.time import carried
from backends.epochcore.lower.window_matrices import System, band, turned
from backends.epochcore.lower.windows import Windows, across
from ssmc.ir import Node, Value
from ssmc.ir.op import Array


def group(low: Lowering, g: Group, form: Form) -> None:
    """A group, in a form with windows, or step by step."""
    if form.name == "mat-vec":
        step_by_step(low, g)
        return
    w, wide, stage = Windows(low, g.state, form.span, form.mode), wide_of(g), low.stage(g.state)
    u = low.operand(low.graph.operand(g.drive.name, 0), stage)
    (inputs, states), outputs = wide.b.shape, wide.c.shape[1]
    y = w.buffer(outputs * form.span)
    if form.name == "convolution":
        length = kernel_length(wide)
        assert length is not None
        past = length - 1
        rows = w.unfold(u, past, carried(low, g.state, max(1, inputs * past)))
        shape = (1, inputs * (past + form.span), outputs * form.span)
        w.multiply("band", rows.at(), y.at(), shape, partial(wide.within, form.span, past))
    else:
        rows = w.unfold(u, 0, carried(low, g.state, 1))
        words, span = states * wide.halves, form.span
        drive = w.buffer(words)
        w.multiply("in", rows.at(), drive.at(), (1, inputs * span, words), partial(wide.inward, span))
        x = across(w, _alone(wide), drive, range(1), _start(low, g), "")
        shape = (1, inputs * span, outputs * span)
        w.multiply("within", rows.at(), y.at(), shape, partial(wide.within, span))
        w.multiply("out", x.at(), y.at(), (1, words, outputs * span), partial(wide.outward, span), add=True)
    w.fold(y, low.new(g.read))


def _start(low: Lowering, g: Group) -> Operand | None:
    start = (*low.graph.operands(g.state.name), None, None)[2]
    return None if start is None else low.operand(start, low.stage(g.state))


def _alone(wide: Wide) -> System:
    """The states as those of one channel."""
    a = wide.a[None]
    return System(a, a, a, np.zeros(1), wide.before, wide.reverse)


def states(w: Windows, decay: Array, v: Operand, x0: Operand | None) -> None:
    """States with drives of their own: each is a system of one state, with real and imaginary halves in and out."""
    low, node, span = w.low, w.node, w.span
    size, halves = decay.size, 2 if np.iscomplexobj(decay) else 1
    before, reverse = bool(node.op["read_before"]), bool(node.op["reverse"])
    rows = w.unfold(v, 0, carried(low, node, 1))
    powers = decay[:, None] ** np.arange(span + 1)  # (states, steps)
    inward = turned(powers[:, :span][:, ::-1, None], reverse, False)
    outward = turned(powers[:, None, 1 - before : span + 1 - before], False, reverse)
    taps = np.where(np.arange(span) < before, 0.0, np.roll(powers[:, :span], int(before), 1))
    within = turned(_band(taps, span), reverse, reverse)

    def multiply(name: str, src: Buffer, dst: Buffer, stack: Array, add: bool) -> None:
        _, high, wide = stack.shape
        for out in range(halves):
            for own in range(halves):
                # (re, im) of a v: a_re v_re - a_im v_im, a_im v_re + a_re v_im
                part = stack.real if own == out else stack.imag * (1 if out else -1)
                at = src.at(own * size * high), dst.at(out * size * wide)
                w.multiply(f"{name}{own}{out}.", *at, (size, high, wide), partial(np.asarray, part), add or own > 0)

    drive, y = w.buffer(halves * size), w.buffer(halves * size * span)
    multiply("in", rows, drive, inward, False)
    x = across(w, _alone(Wide(decay, decay, decay, before, reverse)), drive, range(1), x0, "")
    multiply("within", rows, y, within, False)
    multiply("out", x, y, outward, True)
    w.fold(y, low.new(node))


def _band(taps: Array, span: int) -> Array:
    """A complex band of a Toeplitz matrix, the steps of the window alone."""
    parts = [band(part, span)[:, span - 1 :] for part in (taps.real, taps.imag)]
    return parts[0] + 1j * parts[1] if np.iscomplexobj(taps) else parts[0]


def one_product(low: Lowering, g: Group) -> bool:
    """Whether a step of a group is one product of the array."""
    (inputs, words), outputs = g.drive.op["weight"].shape, g.read.op["weight"].shape[1]
    return bool(words + inputs <= low.arch.array.rows and words + outputs <= low.arch.array.cols)


def step_by_step(low: Lowering, g: Group) -> None:
    """[x'; y] = M [x; u], one product a step (see `lower_matvec`)."""
    node, wide, x0, stage = g.state, wide_of(g), _start(low, g), low.stage(g.state)
    u, y, steps = low.operand(low.graph.operand(g.drive.name, 0), stage), low.new(g.read), low.steps(node)
    words, inputs, outputs = wide.a.size * wide.halves, u.words, y.words
    if x0 is None:
        row = carried(low, node, words + inputs)
    else:
        row = low.draft.row(words + inputs)
        order = np.concatenate([np.arange(words), np.zeros(inputs, np.int64)])
        gather(low, node, row.at(), Operand(x0.ref, x0.words, True), order, ".x0")
    after, present = low.draft.row(words + outputs), carried(low, node, inputs)
    low.draft.single.add(stage)
    low.emit(node, "pool", state=present.at(), src=u.ref, fn="last", words=inputs, steps=steps)
    _copied(low, node, present.at(), row.at(words), inputs, held=False)
    weights = Param(low.draft.constant(f"{node.name}.step", _matrix(wide)))
    plain = {"scale": 0, "bias": 0, "scaled": False, "biased": False, "mode": "mac"}
    low.emit(node, "preload", src=weights, **plain, rows=row.words, cols=after.words)
    pitches = {"src_pitch": row.words, "dst_pitch": after.words}
    low.emit(node, "mac", src=row.at(), dst=after.at(), **pitches, steps="one", accumulate=False)
    _copied(low, node, after.at(words), y.at(), outputs, held=True)
    _copied(low, node, after.at(), row.at(), words, held=False)
    if low.graph.users(Value(node.name, 1)):
        last = low.buffers[Value(node.name, 1)] = low.draft.row(words)
        pitches = {"src_pitch": row.words, "dst_pitch": words}
        low.draft.emit(
            stage + 1, "copy", src=row.at(), dst=last.at(), **pitches, words=words, steps="one", src_held=False
        )


def _copied(low: Lowering, node: Node, src: Ref, dst: Ref, words: int, *, held: bool) -> None:
    """A row; `held`: into the row of the present step."""
    pitches = {"src_pitch": src.buffer.words, "dst_pitch": dst.buffer.words}
    low.emit(
        node, "copy", src=src, dst=dst, **pitches, words=words, steps=low.steps(node) if held else "one", src_held=held
    )


def _matrix(wide: Wide) -> Array:
    """M, (states and inputs, states and outputs)."""
    halves, size = wide.halves, wide.a.size
    # y = Re(c x) of the states before the step or after it
    read, through = (wide.c, 0.0) if wide.before else (wide.a[:, None] * wide.c, (wide.b @ wide.c).real)
    own = [[wide.a.real, wide.a.imag], [-wide.a.imag, wide.a.real]]
    states = np.block([[np.diag(part) for part in row[:halves]] for row in own[:halves]])
    drive = np.concatenate([wide.b.real, wide.b.imag][:halves], 1)
    seen = np.concatenate([read.real, -read.imag][:halves])
    found = np.zeros((halves * size + len(wide.b), halves * size + wide.c.shape[1]))
    found[: halves * size, : halves * size], found[halves * size :, : halves * size] = states, drive
    found[: halves * size, halves * size :], found[halves * size :, halves * size :] = seen, through
    return found
