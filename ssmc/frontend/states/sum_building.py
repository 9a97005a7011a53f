"""The op `rounded_sums` in the new graph, and what reads its numbers: states, what roundings give and are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from ssmc.frontend.graph.builder import Operand
from ssmc.frontend.graph.flow import Flow, Known, Tracked
from ssmc.frontend.states.lifting import Lifting
from ssmc.frontend.states.sum_nets import Net, Number, Words
from ssmc.frontend.states.sum_nodes import Rounding
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor


def build(net: Net, words: Words, rounding: str) -> None:
    """Add the op to the graph: its streams and last numbers stand for the states and for what roundings give."""
    lifting, translator = net.step.lifting, net.step.lifting.translator
    attrs = {"grid": Tensor(words.grid), "terms": Tensor(words.terms), "rounding": rounding}
    operands = [_drive(net, words), _initial(lifting, words)]
    made: dict[str, Operand] = {}

    def stream(**flags: bool) -> Operand:
        key = str(flags)
        if key not in made:
            made[key] = lifting.recurrent("rounded_sums", operands, **attrs, **flags)[0]
        return made[key]

    x, last = lifting.recurrent("rounded_sums", operands, **attrs)
    made[str({})] = x
    lifting.publish(lifting.take(x, words.states), lifting.take(last, words.states))
    lifting.later(lambda: lifting.take(stream(read_before=True), words.states))
    places = {number: i for i, number in enumerate(words.of)}
    for each in net.roundings:
        layout = net.layouts[each.source]
        row = layout.rows(np.arange(int(np.prod(each.shape))).reshape(each.shape))[0]
        if each.result in words.results and each.result not in translator.env:
            translator.later[each.result] = partial(_given, net, words, each, row, x)
        numbers = [places.get((each.source, int(k))) for k in row]
        if None not in numbers and each.source not in translator.env and each.source not in net.step.currents:
            translator.later.setdefault(
                each.source, partial(_reached, net, each, lambda: stream(reached=True), numbers)
            )


def _reached(net: Net, each: Rounding, stream: Callable[[], Operand], numbers: Sequence[int | None]) -> Tracked:
    """What is rounded, before it is."""
    return _piece(net, each, net.step.lifting.take(stream(), numbers))


def _given(net: Net, words: Words, each: Rounding, row: Array, x: Operand) -> Tracked:
    """What a rounding gives, values or codes."""
    lifting = net.step.lifting
    builder, value = lifting.translator.builder, lifting.take(x, words.results[each.result])
    gain, offset = each.gain[row], each.offset[row]
    if np.any(gain != 1) or np.any(offset):
        scaled = builder.emit("binary", [value, gain], fn="mul")
        value = builder.emit("unary", [builder.emit("binary", [scaled, offset], fn="add")], fn="round")
    return _piece(net, each, value)


def _piece(net: Net, each: Rounding, value: Operand) -> Tracked:
    layout, builder = net.layouts[each.source], net.step.lifting.translator.builder
    return layout.tracked(builder.reshape(value, layout.features))


def _drive(net: Net, words: Words) -> Value:
    """The stream of what is added to each number."""
    lifting, builder = net.step.lifting, net.step.lifting.translator.builder
    driven = [t for t, drive in net.drives.items() if isinstance(drive, Flow)]
    pool = Lifting(lifting.translator, [], lifting.disguise, lifting.like)
    pool.layouts = [net.layouts[t] for t in driven]
    pool.features = [layout.features for layout in pool.layouts]
    starts = np.cumsum([0, *(int(np.prod(f)) for f in pool.features)])
    at: dict[Number, int] = {}
    for target, layout, start, _ in (
        zip(driven, pool.layouts, *zip(*pairwise(starts), strict=True), strict=True) if driven else ()
    ):
        row = layout.rows(np.arange(int(np.prod(layout.shape))).reshape(layout.shape))[0]
        at |= {(target, int(k)): int(start) + i for i, k in enumerate(row)}
    constants = np.nan_to_num([known_part(net, number) for number in words.of])
    flows = [at.get(number) for number in words.of]
    if not driven:
        return builder.stream(constants, lifting.like)
    table, index, end = [0.0], [], int(starts[-1])
    for flow, constant in zip(flows, constants, strict=True):
        if flow is None and constant:
            table.append(float(constant))
        index.append(flow if flow is not None else end + (len(table) - 1 if constant else 0))
    parts = [pool.vector([net.drives[t] for t in driven])]
    if any(flow is None for flow in flows):
        parts.append(np.array(table))
    return builder.stream(lifting.take(builder.concat(parts, -1), index), lifting.like)


def known_part(net: Net, number: Number) -> float:
    """What drives a number, NaN where the data tell."""
    drive = net.drives[number[0]]
    if not isinstance(drive, Known):
        return float("nan")
    layout = net.layouts[number[0]]
    return float(np.broadcast_to(np.asarray(drive.array, np.float64), layout.shape).reshape(-1)[number[1]])


def _initial(lifting: Lifting, words: Words) -> Operand | None:
    initial = lifting.initial()
    if initial is None:
        return None
    size, builder = len(words.states), lifting.translator.builder
    index = np.full(len(words.of), size)
    index[words.states] = np.arange(size)
    return lifting.take(builder.concat([initial, np.zeros(1)], -1), index)
