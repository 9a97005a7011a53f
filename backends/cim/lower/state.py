"""States in their banks: volatile nodes that decay by themselves, rotating frames, registers with multipliers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from backends.cim.lower.banks import DIGITAL, VOLATILE, fetch, sent, take_nodes
from backends.cim.lower.code import Slot
from backends.cim.lower.contexts import Context
from backends.cim.lower.lowering import Lowering
from backends.cim.lower.nodes import Nodes, Share
from backends.cim.lower.shape import arrange, positions
from backends.cim.lower.time import operand_in_order, unreversed
from ssmc.diagnostics import Misfit, UserError
from ssmc.ir import Node
from ssmc.ir.ops.rounded import rows_of
from ssmc.ir.ops.rounded_sums import TERM, islands, part_of
from ssmc.ir.ops.spiking import ROWS


def lower_state(state: Lowering, node: Node, work: Context) -> None:
    """States with a constant decay, or one that follows the elapsed time: in the bank that the passes named, else in
    the volatile one where they can decay there."""
    op = node.op
    decay, timed = op["decay"].array, bool(op["asynchronous"])
    bank = op["bank"] or (VOLATILE if decays(decay, timed) else DIGITAL)
    if bank not in (VOLATILE, DIGITAL):
        raise UserError(
            f"this chip has no bank '{bank}'", where=state.node.where, hint=f"its banks are: {VOLATILE}, {DIGITAL}"
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
    held, driven = state.held(state.constant("covered", mask), work), state.new(mask.size)
    state.emit(work, "binary", dst=driven, a=v, b=held, words=mask.size, fn="mul")
    return driven


def _charge(state: Lowering, work: Context, nodes: Nodes, v: Slot, rates: Any, dt: Slot | None) -> Slot:
    """Volatile states, each share on its core; returns what is read, on the layer's core."""
    window = state.graph.attributes.get("state_windows", {}).get(state.node.name, 0.0)

    def more(share: Share) -> dict[str, Any]:
        own = state.constant("rates", rates[share.start : share.stop])
        return {"rates": own, "window": float(window), **_elapsed(state, work, dt, nodes, share.core)}

    return _by_share(state, work, nodes, rates.size, "charge", {"src": v}, more)


def _by_share(
    state: Lowering,
    work: Context,
    nodes: Nodes,
    words: int,
    mnemonic: str,
    vectors: Mapping[str, Slot],
    more: Callable[[Share], dict[str, Any]],
) -> Slot:
    """An instruction on the states of every share, on its core; `vectors` are whole, on the layer's core, `more` are a
    share's other operands. Returns the `words` read, on the layer's core."""
    x = _onto(state, words, vectors["src"])
    for share in nodes.shares:
        parts = {name: sent(state, work, slot, nodes, share) for name, slot in vectors.items()}
        whole = nodes.whole(share)
        part = x if whole else state.new(nodes.words(share), share.core)
        common = {"words": nodes.words(share), "node": share.first, "before": bool(state.node.op["read_before"])}
        state.emit(work, mnemonic, on=share.core, dst=part, **parts, **common, **more(share))
        if not whole:
            fetch(state, work, part, nodes, share, x)
    return x


def _onto(state: Lowering, words: int, source: Slot) -> Slot:
    """Where the states go: onto lines where they drive rows, those by which they are charged where there are such."""
    if not state.coupling.drives(state.node.name):
        return state.new(words)
    return source if source.register in state.code().lines else state.code().new_lines(words)


def _elapsed(state: Lowering, work: Context, dt: Slot | None, nodes: Nodes, core: int) -> dict[str, Any]:
    if dt is None:
        return {}
    return {"dt": dt if core == nodes.home else state.send(dt, 1, nodes.home, work, core, work), "timed": True}


def _volatile(state: Lowering, node: Node, work: Context, v: Slot, dt: Slot | None) -> None:
    """Real decays in the devices; what turns (complex, or negative) turns in a rotating frame around them.

    `z_k = e^{-i w t_k} x_k` obeys `z_k = e^{-a dt_k} z_{k-1} + e^{-i w t_k} v_k`, whose decay is real.
    """
    decay = node.op["decay"].array
    if not decays(decay, dt is not None):
        worst = decay[np.argmax(decay.real if dt is not None else np.abs(decay))]
        raise UserError(
            "a volatile state can only decay, and this one does not",
            where=state.node.where,
            why=f"its slowest pole is {worst:.6g}; it must shrink and not vanish at once",
            hint="leave the choice of the bank to 'map-weights': a digital bank holds any pole",
        )
    rates, turns = (decay.real, decay.imag / (2 * np.pi)) if dt is not None else _polar(decay)
    turning, half = bool(turns.any()), len(decay)
    alone = turning and not np.iscomplexobj(decay)  # negative real poles: the imaginary half stays empty
    words = 2 * half if turning or np.iscomplexobj(decay) else half
    rates = np.concatenate([rates] * (words // half))
    if not state.ideal:
        _check_devices(state, rates)
    nodes, before = take_nodes(state, VOLATILE, words), bool(node.op["read_before"])
    turn: dict[str, Any] = {}
    if turning:
        clock = state.code().serial("clock")
        turn = {"words": words, "turns": state.constant("turns", turns), "clock": clock}
        state.emit(work, "tick", clock=clock, **_elapsed(state, work, dt, nodes, state.core))
        v = _padded(state, work, v, half, words) if alone else v
        turned = state.new(words)
        state.emit(work, "rot", dst=turned, src=v, backward=True, **turn)
        v = turned
    _preset(state, node, work, nodes, half if alone else words)
    z = _charge(state, work, nodes, v, rates, dt)
    if turning:
        x = state.new(words)
        state.emit(work, "rot", dst=x, src=z, before=before, **turn)
        z = x
    unreversed(state, node, work, z, half if alone else words)
    if state.used(1):
        last = _standing(state, work.after, nodes, words)
        if turning:
            x = state.new(words)
            state.emit(work.after, "rot", dst=x, src=last, **turn)
            last = x
        state.bind(last, work.after, 1)


def _check_devices(state: Lowering, rates: Any) -> None:
    """Whether devices can be made that decay so. Raises Misfit."""
    bank, unit = state.arch.volatile, state.arch.time.unit(timed=bool(state.node.op["asynchronous"]))
    different = np.unique(np.round(rates, 12)).size
    if different > bank.time_constants:
        raise Misfit(
            "time constants of one layer",
            different,
            bank.time_constants,
            where=state.node.where,
            levers="run 'share-decays', or raise volatile.time_constants in the architecture",
        )
    for tau, bound, name in (
        (unit / -rates.min(), bank.tau_min, "tau_min"),
        (unit / -rates.max(), bank.tau_max, "tau_max"),
    ):
        if (tau < bound * (1 - 1e-9)) if name == "tau_min" else (tau > bound * (1 + 1e-9)):
            raise Misfit(
                f"{'shortest' if name == 'tau_min' else 'longest'} time constant of a volatile state",
                tau,
                bound,
                unit="s",
                where=state.node.where,
                levers=f"change time.step_seconds (time.unit_seconds) or volatile.{name} in the architecture",
            )


def _polar(decay: Any) -> tuple[Any, Any]:
    """Logarithm of |Abar| and revolutions a step, in (-1/2, 1/2]."""
    return np.log(np.abs(decay)), np.angle(decay) / (2 * np.pi)


def _padded(state: Lowering, context: Context, slot: Slot, words: int, total: int) -> Slot:
    """The words at `slot`, and zeros after them up to `total`."""
    if words == total:
        return slot
    whole = state.new(total)
    state.emit(context, "copy", dst=whole, src=slot, words=words)
    state.emit(context, "fill", dst=whole.at(words), words=total - words)
    return whole


def _preset(state: Lowering, node: Node, work: Context, nodes: Nodes, given: int) -> None:
    """Initial states, where the op has them; `given` words, zeros in further nodes."""
    slot = 2 if node.op.name in ("tile.state", "tile.recurrence") else 1
    before = Context(work.stage - 1)
    if not state.has(slot):
        if state.load:
            _emptied(state, before, nodes)
        return
    x0 = _padded(state, before, state.read(slot, before), given, sum(nodes.words(share) for share in nodes.shares))
    for share in nodes.shares:
        part = sent(state, before, x0, nodes, share)
        words = nodes.words(share)
        state.emit(before, "preset", on=share.core, src=part, words=words, node=share.first, bank=nodes.bank)


def _emptied(state: Lowering, context: Context, nodes: Nodes) -> None:
    """Nodes that the states of an earlier sweep have left begin at zero."""
    for share in nodes.shares:
        words = nodes.words(share)
        zeros = state.new(words, share.core)
        state.emit(context, "fill", on=share.core, dst=zeros, words=words)
        state.emit(context, "preset", on=share.core, src=zeros, words=words, node=share.first, bank=nodes.bank)


def _standing(state: Lowering, context: Context, nodes: Nodes, words: int) -> Slot:
    """The states as they stand, on the layer's core."""
    last = state.new(words)
    for share in nodes.shares:
        whole = nodes.whole(share)
        part = last if whole else state.new(nodes.words(share), share.core)
        words = nodes.words(share)
        state.emit(context, "read", on=share.core, dst=part, words=words, node=share.first, bank=nodes.bank)
        if not whole:
            fetch(state, context, part, nodes, share, last)
    return last


def _digital(state: Lowering, node: Node, work: Context, v: Slot, dt: Slot | None) -> None:
    decay = node.op["decay"].array
    x = _held_digitally(state, work, v, decay, dt)
    unreversed(state, node, work, x, decay.size * (2 if np.iscomplexobj(decay) else 1))


def _held_digitally(state: Lowering, work: Context, v: Slot, decay: Any, dt: Slot | None = None) -> Slot:
    """States in registers with multipliers; `decay` (states,) real or complex. Binds the last state too."""
    node, is_complex = state.node, bool(np.iscomplexobj(decay))
    nodes = take_nodes(state, DIGITAL, decay.size, pairs=is_complex)
    words = decay.size * (2 if is_complex else 1)
    _preset(state, node, work, nodes, words)

    def more(share: Share) -> dict[str, Any]:
        own = decay[share.start : share.stop]
        held = state.constant("decay", np.concatenate([own.real, own.imag]) if is_complex else own)
        return {"decay": held, "complex": is_complex, **_elapsed(state, work, dt, nodes, share.core)}

    x = _by_share(state, work, nodes, words, "dstate", {"src": v}, more)
    _last(state, work, nodes, words)
    return x


def _last(state: Lowering, work: Context, nodes: Nodes, words: int) -> None:
    if state.used(1):
        state.bind(_standing(state, work.after, nodes, words), work.after, 1)


def lower_recurrence(state: Lowering, node: Node, work: Context) -> None:
    """States whose decay is computed: digital nodes, one multiplication a step."""
    words, is_complex = state.kind(1).shape[0], bool(node.op["is_complex"])
    a, v = (operand_in_order(state, node, i, work) for i in range(2))
    nodes = take_nodes(state, DIGITAL, words // (2 if is_complex else 1), pairs=is_complex)
    _preset(state, node, work, nodes, words)
    x = _by_share(state, work, nodes, words, "sel", {"a": a, "src": v}, lambda share: {"complex": is_complex})
    unreversed(state, node, work, x, words)
    _last(state, work, nodes, words)


def lower_spike(state: Lowering, node: Node, work: Context) -> None:
    """Neurons that fire, in digital nodes."""
    rows = np.stack([node.op[name].array.reshape(-1) for name in ROWS])
    _stepped(state, node, work, rows, {name: bool(node.op[name]) for name in ("or_equal", "immediate")})


def lower_rounded(state: Lowering, node: Node, work: Context) -> None:
    """States that are rounded at every step, in digital nodes."""
    rows, fields = rows_of(node.op)
    _stepped(state, node, work, rows, fields, is_complex=bool(node.op["is_complex"]))


def _stepped(
    state: Lowering, node: Node, work: Context, rows: Any, fields: dict[str, Any], is_complex: bool = False
) -> None:
    """A recurrence that is not linear, held digitally: `rows` (numbers of a state, words)."""
    words = rows.shape[1]
    v = operand_in_order(state, node, 0, work)
    nodes = take_nodes(state, DIGITAL, words // (2 if is_complex else 1), pairs=is_complex)
    _preset(state, node, work, nodes, words)

    def more(share: Share) -> dict[str, Any]:
        halves = np.split(rows, 2, axis=1) if is_complex else [rows]
        own = np.concatenate([half[:, share.start : share.stop] for half in halves], axis=1)
        return {"rows": state.table("rows", own), **fields}

    x = _by_share(state, work, nodes, words, node.op.name, {"src": v}, more)
    unreversed(state, node, work, x, words)
    _last(state, work, nodes, words)


def lower_rounded_sums(state: Lowering, node: Node, work: Context) -> None:
    """Numbers that depend on each other lie in one core: in blocks where they are so many each, one after the other."""
    grid, terms = node.op["grid"].array, node.op["terms"].array
    words, parts = grid.shape[1], islands(grid.shape[1], node.op["terms"].array)
    even = len({len(part) for part in parts}) == 1 and np.array_equal(np.concatenate(parts), np.arange(words))
    nodes = take_nodes(state, DIGITAL, words, block=len(parts[0]) if even else words)
    v = operand_in_order(state, node, 0, work)
    _preset(state, node, work, nodes, words)

    def more(share: Share) -> dict[str, Any]:
        own = np.arange(share.start, share.stop)
        held = {"rows": grid[:, own], "terms": part_of(words, terms, own)}
        return {**{name: state.table(name, array, share.core) for name, array in held.items()}, **flags}

    gated = len(terms) > len(TERM)
    flags = {"rounding": node.op["rounding"], "reached": node.op["reached"], "gated": gated}
    x = _by_share(state, work, nodes, words, "rounded.sums", {"src": v}, more)
    unreversed(state, node, work, x, words)
    _last(state, work, nodes, words)


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
    parts = {"b": halves(b.astype(decay.dtype)), "d": np.asarray(d)}
    parts["c"] = halves(np.conj(c.astype(decay.dtype)))  # Re(c x) = Re c Re x - Im c Im x
    held = {name: state.held(state.constant(name, array), work) for name, array in parts.items()}
    drive = state.new(words)
    wide = arrange(state, work, u, spread, groups)
    state.emit(work, "binary", dst=drive, a=wide, b=held["b"], words=words, fn="mul")
    read, y, through, total = (state.new(n) for n in (words, groups, groups, groups))
    x = _held_digitally(state, work, drive, decay.ravel())
    state.emit(work, "binary", dst=read, a=x, b=held["c"], words=words, fn="mul")
    if is_complex:
        half = words // 2
        state.emit(work, "binary", dst=read, a=read, b=read.at(half), words=half, fn="add")
    state.emit(work, "reduce", dst=y, src=read, outer=groups, words=states, inner=1, fn="sum")
    state.emit(work, "binary", dst=through, a=u, b=held["d"], words=groups, fn="mul")
    state.emit(work, "binary", dst=total, a=y, b=through, words=groups, fn="add")
    unreversed(state, node, work, total, groups)
