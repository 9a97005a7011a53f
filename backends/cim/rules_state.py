"""States in their banks: volatile nodes that decay by themselves, rotating frames, registers with multipliers."""

from __future__ import annotations

from typing import Any

import numpy as np

from backends.cim.code import Slot
from backends.cim.contexts import Context
from backends.cim.lowering import Lowering
from backends.cim.rules_shape import arrange, positions
from backends.cim.rules_time import operand_in_order, unreversed
from ssmc.diagnostics import Misfit, UserError
from ssmc.ir import Node

VOLATILE, DIGITAL = "volatile", "digital"


def lower_state(state: Lowering, node: Node, work: Context) -> None:
    op = node.op
    decay, timed = op["decay"].array, bool(op["asynchronous"])
    bank = op["bank"] or (VOLATILE if decays(decay, timed) else DIGITAL)
    if bank not in (VOLATILE, DIGITAL):
        raise UserError(
            f"this chip has no bank '{bank}'", where=state.where, hint=f"its banks are: {VOLATILE}, {DIGITAL}"
        )
    v = _covered(state, work, operand_in_order(state, node, 0, work))
    dt = operand_in_order(state, node, 1, work) if timed else None
    if bank == VOLATILE:
        _volatile(state, node, work, v, dt)
    else:
        _digital(state, node, work, v, dt)


def decays(decay: Any, timed: bool) -> bool:
    """Whether a state can live in devices that can only decay: 0 < |Abar| < 1."""
    if timed:
        return bool((decay.real < 0).all() and np.isfinite(decay).all())
    size = np.abs(decay)
    return bool(((size > 0) & (size < 1)).all())


def _covered(state: Lowering, work: Context, v: Slot) -> Slot:
    """The drive, zero for states that no piece covers."""
    decay, pieces = state.node.op["decay"], state.node.op["pieces"]
    mask = np.zeros(decay.shape[0])
    for piece in pieces:
        mask[piece.k0 : piece.k1] = 1.0
    if mask.all():
        return v
    mask = np.concatenate([mask, mask]) if decay.is_complex else mask
    held, driven = state.new(mask.size), state.new(mask.size)
    state.emit(Context(0), "load", dst=held, data=state.constant("covered", mask))
    state.emit(work, "binary", dst=driven, a=v, b=held, words=mask.size, fn="mul")
    return driven


def _nodes(state: Lowering, bank: str, words: int) -> int:
    code = state.code()
    first = code.serial(bank, words)
    bound = state.arch.volatile.per_core if bank == VOLATILE else state.arch.digital.per_core
    if first + words > bound:
        raise Misfit(
            f"{bank} state nodes of core {code.core}",
            first + words,
            bound,
            unit="real states",
            where=state.where,
            levers=f"raise {bank}.per_core in the architecture, or spread the layers over more cores",
        )
    return first


def _elapsed(dt: Slot | None) -> dict[str, Any]:
    return {} if dt is None else {"dt": dt, "timed": True}


def _volatile(state: Lowering, node: Node, work: Context, v: Slot, dt: Slot | None) -> None:
    """Real decays in the devices; what turns (complex, or negative) turns in a rotating frame around them.

    `z_k = e^{-i w t_k} x_k` obeys `z_k = e^{-a dt_k} z_{k-1} + e^{-i w t_k} v_k`, whose decay is real.
    """
    decay = node.op["decay"].array
    if not decays(decay, dt is not None):
        worst = decay[np.argmax(decay.real if dt is not None else np.abs(decay))]
        raise UserError(
            "a volatile state can only decay, and this one does not",
            where=state.where,
            why=f"its slowest pole is {worst:.6g}; it must shrink and not vanish at once",
            hint="leave the choice of the bank to 'map-weights': a digital bank holds any pole",
        )
    rates, turns = (decay.real, decay.imag / (2 * np.pi)) if dt is not None else _polar(decay)
    turning, half = bool(turns.any()), len(decay)
    alone = turning and not np.iscomplexobj(decay)  # negative real poles: the imaginary half stays empty
    words = 2 * half if turning or np.iscomplexobj(decay) else half
    rates = np.concatenate([rates] * (words // half))
    first, before = _nodes(state, VOLATILE, words), bool(node.op["read_before"])
    turn: dict[str, Any] = {}
    if turning:
        clock = state.code().serial("clock")
        turn = {"words": words, "turns": state.constant("turns", turns), "clock": clock}
        state.emit(work, "tick", clock=clock, **_elapsed(dt))
        if alone:
            whole = state.new(words)
            state.emit(work, "copy", dst=whole, src=v, words=half)
            state.emit(work, "fill", dst=whole.at(half), words=half)
            v = whole
        turned = state.new(words)
        state.emit(work, "rot", dst=turned, src=v, backward=True, **turn)
        v = turned
    _preset(state, node, work, VOLATILE, first, half if alone else words)
    z = state.new(words)
    state.emit(
        work,
        "charge",
        dst=z,
        src=v,
        words=words,
        node=first,
        rates=state.constant("rates", rates),
        window=float(state.graph.attributes.get("state_windows", {}).get(node.name, 0.0)),
        before=before,
        **_elapsed(dt),
    )
    if turning:
        x = state.new(words)
        state.emit(work, "rot", dst=x, src=z, before=before, **turn)
        z = x
    unreversed(state, node, work, z, half if alone else words)
    if state.used(1):
        last = state.new(words)
        state.emit(work.after, "read", dst=last, words=words, node=first, bank=VOLATILE)
        if turning:
            x = state.new(words)
            state.emit(work.after, "rot", dst=x, src=last, **turn)
            last = x
        state.bind(last, work.after, 1)


def _polar(decay: Any) -> tuple[Any, Any]:
    """Logarithm of |Abar| and revolutions a step, in (-1/2, 1/2]."""
    return np.log(np.abs(decay)), np.angle(decay) / (2 * np.pi)


def _preset(state: Lowering, node: Node, work: Context, bank: str, first: int, words: int) -> None:
    slot = {"tile.state": 2, "tile.recurrence": 2, "tile.ssm": 1}[node.op.name]
    if state.has(slot):
        before = Context(work.stage - 1)
        state.emit(before, "preset", src=state.read(slot, before), words=words, node=first, bank=bank)


def _digital(state: Lowering, node: Node, work: Context, v: Slot, dt: Slot | None) -> None:
    decay = node.op["decay"].array
    is_complex = np.iscomplexobj(decay)
    flat = np.concatenate([decay.real, decay.imag]) if is_complex else decay
    first = _nodes(state, DIGITAL, flat.size)
    _preset(state, node, work, DIGITAL, first, flat.size)
    x = state.new(flat.size)
    state.emit(
        work,
        "dstate",
        dst=x,
        src=v,
        words=flat.size,
        node=first,
        decay=state.constant("decay", flat),
        before=bool(node.op["read_before"]),
        complex=bool(is_complex),
        **_elapsed(dt),
    )
    unreversed(state, node, work, x, flat.size)
    _last(state, work, first, flat.size)


def _last(state: Lowering, work: Context, first: int, words: int) -> None:
    if state.used(1):
        state.emit(work.after, "read", dst=state.result(work.after, 1), words=words, node=first, bank=DIGITAL)


def lower_recurrence(state: Lowering, node: Node, work: Context) -> None:
    words = state.kind(1).shape[0]
    a, v = (operand_in_order(state, node, i, work) for i in range(2))
    first = _nodes(state, DIGITAL, words)
    _preset(state, node, work, DIGITAL, first, words)
    x = state.new(words)
    before, is_complex = bool(node.op["read_before"]), bool(node.op["is_complex"])
    state.emit(work, "sel", dst=x, a=a, src=v, words=words, node=first, before=before, complex=is_complex)
    unreversed(state, node, work, x, words)
    _last(state, work, first, words)


def lower_ssm(state: Lowering, node: Node, work: Context) -> None:
    """Single-input systems: spread the input over the states, hold them digitally, read them with the vector unit."""
    op = node.op
    decay, b, c, d = (op[name].array for name in ("decay", "b", "c", "d"))
    groups, states = decay.shape
    covered = np.zeros(decay.shape)
    for piece in op["pieces"]:
        covered[piece.k0 : piece.k1, piece.n0 : piece.n1] += 1
    b = b * covered
    is_complex = bool(np.iscomplexobj(decay))
    halves = (lambda m: np.concatenate([m.real.ravel(), m.imag.ravel()])) if is_complex else (lambda m: m.ravel())
    words = groups * states * (2 if is_complex else 1)
    u = operand_in_order(state, node, 0, work)
    spread = np.tile(np.repeat(positions((groups,)), states), 2 if is_complex else 1)
    drive = state.new(words)
    wide = arrange(state, work, u, spread, groups)
    state.emit(
        work, "binary", dst=drive, a=wide, b=_held(state, "b", halves(b.astype(decay.dtype))), words=words, fn="mul"
    )
    first = _nodes(state, DIGITAL, words)
    _preset(state, node, work, DIGITAL, first, words)
    x, read, y, through, total = (state.new(n) for n in (words, words, groups, groups, groups))
    before = bool(op["read_before"])
    data = state.constant("decay", halves(decay))
    state.emit(work, "dstate", dst=x, src=drive, words=words, node=first, decay=data, before=before, complex=is_complex)
    weights = halves(np.conj(c.astype(decay.dtype)))  # Re(c x) = Re c Re x - Im c Im x
    state.emit(work, "binary", dst=read, a=x, b=_held(state, "c", weights), words=words, fn="mul")
    if is_complex:
        half = words // 2
        state.emit(work, "binary", dst=read, a=read, b=read.at(half), words=half, fn="add")
    state.emit(work, "reduce", dst=y, src=read, outer=groups, words=states, inner=1, fn="sum")
    state.emit(work, "binary", dst=through, a=u, b=_held(state, "d", np.asarray(d)), words=groups, fn="mul")
    state.emit(work, "binary", dst=total, a=y, b=through, words=groups, fn="add")
    unreversed(state, node, work, total, groups)
    _last(state, work, first, words)


def _held(state: Lowering, name: str, array: Any) -> Slot:
    """A constant in registers of the node's core."""
    slot = state.new(array.size)
    state.emit(Context(0), "load", dst=slot, data=state.constant(name, array))
    return slot
