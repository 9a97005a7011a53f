"""Lowering onto the array: states that stay in the processing elements, and the forms of whole systems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from backends.epochcore.arch import Numbers
from backends.epochcore.formats import state_unit
from backends.epochcore.lower import mimo as lower_mimo
from backends.epochcore.lower import scan as lower_scan
from backends.epochcore.lower import segments as lower_segments
from backends.epochcore.lower import time as lower_time
from backends.epochcore.lower.draft import Buffer, Param, Ref
from backends.epochcore.lower.features import gather
from backends.epochcore.lower.forms import AS_PRODUCTS, choose
from backends.epochcore.lower.inputs import group_of
from backends.epochcore.lower.lowering import Lowering, Operand, liquid_decay
from backends.epochcore.lower.matrix import cut
from backends.epochcore.lower.matvec import matvec
from backends.epochcore.lower.shared_passes import Rest, gathered, hand_out, keep, rests
from backends.epochcore.lower.time import carried
from backends.epochcore.lower.window_matrices import System, kernel_length, side_by_side, system_of, unit_of
from backends.epochcore.lower.windows import Windows, chunked, convolution
from backends.epochcore.program.parameters import pack_decay, pack_element
from ssmc.diagnostics import UserError
from ssmc.ir import Node, Piece, Value
from ssmc.ir.op import Array


def _numbers(low: Lowering) -> Numbers | None:
    return None if low.ideal else low.arch.numbers


# -- states ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bank:
    """The states of a node in the scratchpad: piece after piece, each with its halves re|im."""

    row: Buffer
    offsets: tuple[int, ...]
    order: Array  # which word of the node's own layout each word is


@dataclass(frozen=True)
class InPlace:
    """A system whose states stay in the array: its `pieces`, channels by states, are all of them, in at most so many
    `groups` of rows; names of its parameters begin with `name`."""

    name: str
    system: System
    pieces: list[Piece]
    groups: int


def _bank(low: Lowering, node: Node, pieces: list[Piece], states: Array, parts: int, x0: Operand | None) -> Bank:
    """Room for the states before and after a chunk. `states` numbers the real halves as the node does."""
    half = states.size
    orders = [
        np.concatenate([states[p.k0 : p.k1, p.n0 : p.n1].ravel() + part * half for part in range(parts)])
        for p in pieces
    ]
    order = np.concatenate(orders)
    if not (np.bincount(order, minlength=half * parts) == 1).all() or order.size != half * parts:
        raise UserError(
            "the pieces of the states do not cover each of them once",
            where=f"node '{node.name}'",
            hint="run the passes 'tile' and 'map-weights' before lowering",
        )
    offsets = tuple(int(n) for n in np.cumsum([0, *(len(o) for o in orders)])[:-1])
    if x0 is not None and not np.array_equal(order, np.arange(order.size)):
        row = low.draft.row(order.size)
        gather(low, node, row.at(), Operand(x0.ref, x0.words, True), order, ".x0")
        return Bank(row, offsets, order)
    return Bank(carried(low, node, order.size, x0), offsets, order)


def _last(low: Lowering, node: Node, bank: Bank) -> None:
    """The states after the sequence, in the node's own layout."""
    value = Value(node.name, 1)
    low.buffers[value] = bank.row
    if low.graph.users(value) and not np.array_equal(bank.order, np.arange(bank.order.size)):
        row = low.buffers[value] = low.draft.row(bank.order.size)
        name = low.draft.constant(f"{node.name}.index.last", np.argsort(bank.order).astype(np.int32))
        fields = {"index": name, "src_pitch": bank.order.size, "words": bank.order.size, "steps": "one"}
        low.draft.emit(low.stage(node) + 1, "gather", dst=row.at(), src=bank.row.at(), **fields)


def _pass(low: Lowering, node: Node, state: Ref, words: int, mnemonic: str, /, **fields: Any) -> None:
    """One run over the array with its states put in before and taken out after."""
    low.emit(node, "state.load", src=state, words=words)
    low.emit(node, mnemonic, **fields, steps=low.steps(node), reverse=node.op["reverse"], before=node.op["read_before"])
    low.emit(node, "state.store", dst=state, words=words)


def ssm(low: Lowering, node: Node) -> None:
    """A system of single-input groups, in the form that serves best (see `forms`)."""
    op = node.op
    operands = low.operands(node, low.stage(node))
    u, x0 = operands[0], operands[1] if len(operands) > 1 else None
    assert u is not None
    form = choose(low, node)
    if form.name == "scan":
        lower_scan.system(low, node, u, x0, form.parts)
        return
    if form.name == "mat-vec":
        matvec(low, node, system_of(node), u, x0)
        return
    if form.name == "segmented":
        lower_segments.system(low, node, system_of(node), u, x0, form.segments)
        return
    if form.name in ("chunked", "convolution"):
        windows, system = Windows(low, node, form.span, form.mode), system_of(node)
        if form.name == "chunked":
            chunked(windows, system, u, x0)
        else:
            length = kernel_length(system)
            assert length is not None
            convolution(windows, length, lambda: system.kernel(length), u, None)
        return
    channels = op["decay"].shape[0]
    parts = rests(low, node, partial(_channels_left_over, low, node)) if node.name not in low.shared else ()
    if parts:
        _ssm_together(low, node, u, parts)
    system = system_of(node)
    dst, (pieces, groups) = low.new(node), _pieces(low, node)
    if node.name in low.shared:
        pieces = [p for p in pieces if p.k1 != channels]
        system = system.some(range(pieces[-1].k1 if pieces else 0))
    if pieces:
        _states_in_place(low, node, InPlace(f"{node.name}.", system, pieces, groups), u.ref, dst, x0)
    hand_out(low, node, pieces[-1].k1 if pieces else 0)


def _pieces(low: Lowering, node: Node) -> tuple[list[Piece], int]:
    """Pieces of the states, channels by states, that the array has room for, by channels; and in how many groups of
    rows they lie at most."""
    channels, states = node.op["decay"].shape
    rows, cols, groups = low.shares(states, channels, 1, node.op["decay"].is_complex)
    # pieces are made for one state an element
    several = max(low.arch.array.states_per_element, low.draft.together, groups) > 1
    whole = Piece(0, channels, 0, states)
    pieces = [
        Piece(k, min(k + cols, p.k1), n, min(n + rows, p.n1))
        for p in ([whole] if several else node.op["pieces"])
        for k in range(p.k0, p.k1, cols)
        for n in range(p.n0, p.n1, rows)
    ]
    return sorted(pieces, key=lambda p: (p.k0, p.k1, p.n0)), groups


def _channels_left_over(low: Lowering, first: Node, node: Node) -> int:
    """Channels of a system in its last passes, 0 where they cannot share those of `first`."""
    channels, states = node.op["decay"].shape
    cols = low.shares(states, channels, 1, node.op["decay"].is_complex).cols
    alike = all(node.op[name] == first.op[name] for name in ("liquid", "reverse", "read_before"))
    alike &= states == first.op["decay"].shape[1] and node.op["decay"].is_complex == first.op["decay"].is_complex
    start = len(low.graph.operands(node.name)) > 1 and low.graph.operand(node.name, 1) is not None
    if not channels % cols or not alike or start or low.draft.together > 1:
        return 0
    if low.graph.users(Value(node.name, 1)) or choose(low, node).name != "state in place":
        return 0
    width, (pieces, _) = channels % cols, _pieces(low, node)
    last = [p for p in pieces if p.k1 == channels]
    whole = sum(p.n1 - p.n0 for p in last) == states and all(p.k0 == channels - width for p in last)
    return width if whole else 0


def _ssm_together(low: Lowering, node: Node, u: Operand, parts: Sequence[Rest]) -> None:
    """The last channels of several systems side by side."""
    some = []
    for rest in parts:
        some.append(system_of(rest.node).some(range(rest.start, rest.start + rest.width)))
    a, b, c, d = (np.concatenate([getattr(system, name) for system in some]) for name in "abcd")
    rows, _ = low.arch.cells(np.iscomplexobj(a))
    pieces = [Piece(0, len(a), n, min(n + rows, a.shape[1])) for n in range(0, a.shape[1], rows)]
    wide, results = gathered(low, node, u, parts), low.temporary(node, len(a))
    unit = side_by_side([system.unit for system in some])
    system = System(a, b, c, d, node.op["read_before"], node.op["reverse"], unit)
    _states_in_place(low, node, InPlace(f"{node.name}.together.", system, pieces, 1), wide.at(), results, None)
    keep(low, results, parts)


def _states_in_place(low: Lowering, node: Node, these: InPlace, src: Ref, dst: Buffer, x0: Operand | None) -> None:
    """A pass for each piece of the states, from `src` to `dst`, beginning with `x0`."""
    system, started = these.system, set[tuple[int, int]]()
    halves, number = system.parts, np.arange(system.a.size).reshape(system.a.shape)
    bank = _bank(low, node, these.pieces, number, halves, x0)
    mode = "tri" if node.op["liquid"] else "fri"
    for count, (p, offset) in enumerate(zip(these.pieces, bank.offsets, strict=True)):
        first = (p.k0, p.k1) not in started
        started.add((p.k0, p.k1))
        at = np.s_[p.k0 : p.k1, p.n0 : p.n1]
        unit, d = None if system.unit is None else system.unit[at], system.d[p.k0 : p.k1] * first
        element = pack_element(system.a[at], system.b[at], system.c[at], d, _numbers(low), unit)
        packed = low.draft.constant(f"{these.name}p{count}", element)
        fields = {"rows": p.n1 - p.n0, "cols": p.k1 - p.k0, "complex": halves == 2, "mode": mode}
        fields |= low.in_groups(p.k1 - p.k0, halves == 2, these.groups)
        low.emit(node, "preload", src=Param(packed), scale=0, bias=0, **fields)
        words = (p.n1 - p.n0) * (p.k1 - p.k0) * halves
        pitches = {"dst_pitch": dst.words, "src_pitch": src.buffer.words}
        streams = {"dst": dst.at(p.k0), "src": Ref(src.buffer, src.offset + p.k0), **pitches}
        _pass(low, node, bank.row.at(offset), words, mode, **streams, accumulate=not first)
    _last(low, node, bank)


def fir(low: Lowering, node: Node) -> None:
    """A kernel of finite length: in the vector unit, or as a band of its Toeplitz matrix."""
    form, kernel = choose(low, node), node.op["kernel"].array
    if form.name == "vector unit":
        lower_time.fir(low, node)
        return
    u, history = (*low.operands(node, low.stage(node)), None)[:2]
    assert u is not None
    windows = Windows(low, node, form.span, form.mode)
    low.buffers[Value(node.name, 1)] = convolution(windows, kernel.shape[1], lambda: kernel, u, history)


def state(low: Lowering, node: Node) -> None:
    """States between two matrices, in the array where it has the mode, else in the vector unit. Where the form of their
    system is a product the matrix that reads them does it all."""
    op = node.op
    if group_of(low, node) is not None and choose(low, node).name in AS_PRODUCTS:
        return  # the matrix that reads them computes it all
    v, dt, x0 = (*low.operands(node, low.stage(node)), None, None)[:3]
    assert v is not None
    parts = 2 if op["decay"].is_complex else 1
    if op["asynchronous"]:
        assert dt is not None
        rates = np.concatenate([op["decay"].array.real, op["decay"].array.imag][:parts])
        decay = low.temporary(node, v.words)
        row = low.constant_row(f"{node.name}.rates", rates)
        fields = {"words": v.words, "steps": low.steps(node), "complex": parts == 2}
        low.emit(node, "decay", dst=decay.at(), src=dt.ref, rate=row, **fields)
        _streamed(low, node, Operand(decay.at(), v.words, False), v, x0, parts)
        return
    form = choose(low, node)
    if form.name == "segmented":
        lower_segments.states(low, node, op["decay"].array, v, x0, form.segments)
        return
    if form.name == "chunked":
        lower_mimo.states(Windows(low, node, form.span, form.mode), op["decay"].array, v, x0)
        return
    _stationary(low, node, "fri.x", op["decay"].array, v, x0, parts)


def recurrence(low: Lowering, node: Node) -> None:
    """States whose decay is computed: streamed into the array, or made there by the mode for liquid systems."""
    stage, parts = low.stage(node), 2 if node.op["is_complex"] else 1
    values = (*low.graph.operands(node.name), None)[:3]
    assert values[0] is not None and values[1] is not None
    v, x0 = low.operand(values[1], stage), None if values[2] is None else low.operand(values[2], stage)
    liquid = liquid_decay(low, node)
    if liquid is not None and "tri.x" in low.arch.array.modes:
        half = liquid.size // parts
        decay = liquid if parts == 1 else liquid[:half] + 1j * liquid[half:]
        _stationary(low, node, "tri.x", decay, v, x0, parts)
        return
    _streamed(low, node, low.operand(values[0], stage), v, x0, parts)


def _streamed(low: Lowering, node: Node, a: Operand, v: Operand, x0: Operand | None, parts: int) -> None:
    """States whose decay is streamed, in the array or in the vector unit."""
    in_place = choose(low, node).name == "state in place"
    (_selective if in_place else _scan)(low, node, a, v, x0, parts)


def _stationary(low: Lowering, node: Node, mode: str, decay: Array, v: Operand, x0: Operand | None, parts: int) -> None:
    """States with a constant decay: in the array, or in the vector unit where it has no such mode."""
    if mode not in low.arch.array.modes:
        values = np.concatenate([decay.real, decay.imag][:parts])
        a = Operand(low.constant_row(f"{node.name}.decay", values), v.words, True)
        _selective(low, node, a, v, x0, parts)
        return
    size, (_, cols, groups) = decay.size, low.shares(1, decay.size, parts, parts == 2)
    pieces = cut(node.op.get("pieces") or [Piece(0, size, 0, 1)], cols, 1)
    pieces.sort(key=lambda p: p.k0)
    bank = _bank(low, node, pieces, np.arange(size).reshape(-1, 1), parts, x0)
    dst, unit = low.new(node), unit_of(node)
    for number, (p, offset) in enumerate(zip(pieces, bank.offsets, strict=True)):
        own = None if unit is None else unit[p.k0 : p.k1]
        packed = low.draft.constant(f"{node.name}.p{number}", pack_decay(decay[p.k0 : p.k1], _numbers(low), own))
        fields = {"rows": 1, "cols": p.k1 - p.k0, "complex": parts == 2, "mode": mode}
        fields |= low.in_groups(p.k1 - p.k0, parts == 2, groups)
        low.emit(node, "preload", src=Param(packed), scale=0, bias=0, **fields)
        src = Ref(v.ref.buffer, v.ref.offset + p.k0)
        streams = {"dst": dst.at(p.k0), "dst_pitch": dst.words, "src": src, "src_pitch": v.words}
        _pass(low, node, bank.row.at(offset), (p.k1 - p.k0) * parts, mode, **streams)
    _last(low, node, bank)


def _selective(low: Lowering, node: Node, a: Operand, v: Operand, x0: Operand | None, parts: int) -> None:
    """States whose decay is streamed, or the same row at every step."""
    size = v.words // parts
    _, cols, groups = low.shares(1, size, 2 * parts, parts == 2)
    if "sel" not in low.arch.array.modes:
        _scan(low, node, a, v, x0, parts)
        return
    pieces = cut([Piece(0, size, 0, 1)], cols, 1)
    bank = _bank(low, node, pieces, np.arange(size).reshape(-1, 1), parts, x0)
    dst, unit, numbers = low.new(node), unit_of(node), _numbers(low)
    for number, (p, offset) in enumerate(zip(pieces, bank.offsets, strict=True)):
        fields = {"rows": 1, "cols": p.k1 - p.k0, "complex": parts == 2, "mode": "sel", "scale": 0}
        fields |= low.in_groups(p.k1 - p.k0, parts == 2, groups)
        if unit is not None and numbers is not None and numbers.fixed:
            scale = (unit[p.k0 : p.k1] / state_unit(numbers)).astype(np.float32)
            fields |= {"scaled": True, "scale": Param(low.draft.constant(f"{node.name}.p{number}.scale", scale))}
        low.emit(node, "preload", src=0, bias=0, **fields)
        streams = {
            "dst": dst.at(p.k0),
            "a": Ref(a.ref.buffer, a.ref.offset + p.k0),
            "src": Ref(v.ref.buffer, v.ref.offset + p.k0),
        }
        _pass(low, node, bank.row.at(offset), (p.k1 - p.k0) * parts, "sel", **streams, pitch=v.words, a_held=a.held)
    _last(low, node, bank)


def _scan(low: Lowering, node: Node, a: Operand, v: Operand, x0: Operand | None, parts: int) -> None:
    bank = carried(low, node, v.words, x0)
    dst = low.new(node)
    lower_scan.emit_scan(low, node, dst, a, v.ref, bank, parts)
    low.buffers[Value(node.name, 1)] = bank


RULES = {
    "tile.ssm": ssm,
    "fir": fir,
    "tile.state": state,
    "tile.recurrence": recurrence,
}
