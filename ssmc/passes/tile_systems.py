"""Linear systems and recurrences as tile ops: how inputs reach the states, how they are held, how they are read."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from ssmc.ir import Node, Piece, SequenceType, StreamType, Tensor, Value
from ssmc.ir.op import Array
from ssmc.passes.feedback import tile_feedback
from ssmc.passes.grid import column_grid
from ssmc.passes.pieces import Block
from ssmc.passes.rewrite import constant_sources
from ssmc.passes.stacks import Matrix, block_diagonal, blocks_of, is_identity
from ssmc.passes.tile_fused import fits, fused, halves
from ssmc.passes.tile_triangular import cascade, levels
from ssmc.passes.tiling import Halves, Ports, Tiling
from ssmc.statespace import StateSpace
from ssmc.statespace.system import rates

ONE_DECAY = 1e-12  # relative to the kernel


def tile_ssm(t: Tiling, node: Node, fold_input: bool, fold_output: bool) -> None:
    """One system. Raises UserError for a continuous one, and for a dense one that is not triangular."""
    system: StateSpace = node.op["system"]
    _check(t, node, system)
    ports = _ports(t, node, system)
    bits = node.op["weight_bits"]
    if fold_output and bits is None and ports.x0 is None and not ports.last_used and _has_one_decay(system):
        system = fold_c(system)
    single_input = system.B.shape[2] == 1
    if fold_input and system.diagonal and bits is None and single_input and ports.x0 is None and not ports.last_used:
        system = fold_b(system)
        ports = replace(ports, is_complex=system.is_complex)
    if fits(t, system):
        y, last = fused(t, node, system, ports, bits)
    else:
        if system.diagonal:
            x, last = _states(t, node, system, ports, _drive(t, node, system, ports, bits))
        elif levels(system.A) is None:
            x, last = tile_feedback(t, node, system, _drive(t, node, system, ports, bits), ports, bits)
        else:
            matrix, _ = _drive_matrix(system, ports.is_complex)
            x, last = cascade(t, node, system, column_grid(matrix, bits), ports)
        y = read(t, node, system, ports, x, bits)
    if system.real_output:
        t.real[Value(node.name)] = y
    else:
        t.pairs[Value(node.name)] = Halves(t, node, whole=y)
    if ports.is_complex:
        t.pairs[Value(node.name, 1)] = Halves(t, node, whole=last)
    else:
        t.real[Value(node.name, 1)] = last


def fold_b(system: StateSpace) -> StateSpace:
    """The same input-output behaviour of a single-input system with B = 1: the states in units of B, `C B` for C.

    Only where nobody sees the states and they start from zero.
    """
    return replace(system, B=np.ones_like(system.B, np.float64), C=system.C * system.B.swapaxes(1, 2))


def fold_c(system: StateSpace) -> StateSpace:
    """The same input-output behaviour with C = I: where all states of a group decay alike, C commutes with the decay.

    `C x_k = a C x_{k-1} + C B u_k`: the outputs are states themselves, driven by `C B u`. Only where nobody sees the
    states and they start from zero.
    """
    groups, high, _ = system.C.shape
    same = np.repeat(system.A[:, :1], high, 1)
    delta = system.delta if system.delta is None else system.delta[:, :1]
    identity = np.broadcast_to(np.eye(high), (groups, high, high))
    return replace(system, A=same, B=system.C @ system.B, C=identity, delta=delta)


def _has_one_decay(system: StateSpace) -> bool:
    """Real states, at least as many as outputs, with the same decay all over a group.

    Decays may differ in their last digits, as long as that is nothing beside the kernel: a difference e moves a kernel
    c a^k b by at most |c| |b| e / (1 - |a|) of its sum.
    """
    if system.is_complex or np.iscomplexobj(system.C) or not system.diagonal or system.C.shape[1] > system.states:
        return False
    decay = rates(system) if system.asynchronous else system.A
    room = np.abs(decay[:, 0]) if system.asynchronous else np.abs(1.0 - np.abs(decay[:, 0]))
    spread = np.abs(decay - decay[:, :1]).max(1)
    moved = (np.abs(system.C) @ np.abs(system.B)).max((1, 2)) * spread
    return bool((moved <= ONE_DECAY * room * np.abs(system.C @ system.B).max((1, 2))).all())


def _check(t: Tiling, node: Node, system: StateSpace) -> None:
    if not (system.discrete or system.asynchronous):
        raise t.refuse(node, "the system is continuous", hint="run the pass 'discretize' before 'tile'")
    if system.diagonal:
        return
    if system.asynchronous:
        raise t.refuse(
            node,
            "the system's A is dense and its decay follows the elapsed time",
            why="exp(A dt) is another matrix at every step, and no bank of the target computes it",
            hint="run 'diagonalize' before 'tile', or let it accept a worse condition: diagonalize{max_condition=1e8}",
        )
    if levels(system.A) is None and not any(bank.dense for bank in t.machine.banks):
        raise t.refuse(
            node,
            "the system's A is dense: its states feed each other in cycles, and no bank of the target does that",
            hint="run 'diagonalize' before 'tile'; what has no eigenbasis it makes triangular, which has tiles",
        )


def _ports(t: Tiling, node: Node, system: StateSpace) -> Ports:
    u, dt, x0 = t.operands(node, 3)
    assert u is not None
    is_complex = system.is_complex or (x0 is not None and t.is_complex(x0))
    start: Value | None = None
    if x0 is not None:
        start = t.parts(x0, node).joined() if is_complex else t.real[x0]
    elif system.x0 is not None:
        start = t.constant(node, halves(system.x0.reshape(-1), is_complex), ".x0")
    elapsed = None if dt is None else t.real[dt]
    last_used = bool(t.source.users(Value(node.name, 1)))
    return Ports(t.real[u], elapsed, start, is_complex, last_used, bool(node.op["reverse"]))


def _drive(t: Tiling, node: Node, system: StateSpace, ports: Ports, bits: int | None) -> Value:
    """`B u` for all states, halves re|im where they are complex."""
    if system.B.shape[2] == 1:
        return spread(t, node, system, ports)
    matrix, blocks = _drive_matrix(system, ports.is_complex)
    return t.matmul(node, ports.u, column_grid(matrix, bits), ".drive", blocks=None if system.groups == 1 else blocks)


def _drive_matrix(system: StateSpace, is_complex: bool) -> tuple[Matrix, list[Block]]:
    """B of all groups as one matrix (inputs, states), and its blocks, group by group."""
    groups, states, _ = system.B.shape
    b, count = system.B.swapaxes(1, 2), groups * states
    stacks = [(0, 0, b.real), *([(0, count, np.imag(b))] if is_complex else [])]
    matrix = block_diagonal((system.inputs, count * len(stacks)), stacks)
    blocks = blocks_of(stacks)
    return matrix, [block for g in range(groups) for block in blocks[g::groups]]


def spread(t: Tiling, node: Node, system: StateSpace, ports: Ports) -> Value:
    """A single input reaches all states of its group."""
    groups, states, _ = system.B.shape
    b = system.B.reshape(-1)
    index = np.repeat(np.arange(groups), states)
    if (b == 1).all():
        v = t.emit(node, "take", [ports.u], ".spread", axis=-1, index=Tensor(index))
        if not ports.is_complex:
            return v
        zeros = t.constant(node, np.zeros(b.size), ".zeros")
        return t.emit(node, "concat", [v, zeros], ".drive", axis=-1)
    index = np.tile(index, 2 if ports.is_complex else 1)
    v = t.emit(node, "take", [ports.u], ".spread", axis=-1, index=Tensor(index))
    return t.binary(node, "mul", v, t.constant(node, halves(b, ports.is_complex), ".b"), ".drive")


def _states(t: Tiling, node: Node, system: StateSpace, ports: Ports, v: Value) -> tuple[Value, Value]:
    """The states in time: (x, last)."""
    a = (rates(system) if system.asynchronous else system.A).reshape(-1)
    if ports.is_complex and not np.iscomplexobj(a):
        a = np.concatenate([a, a])  # a real decay of complex states: each half by itself
    if system.asynchronous and not _decays_by_itself(t, a):
        return _computed(t, node, system, ports, a, v)
    x = t.emit(
        node,
        "tile.state",
        [v, ports.dt, ports.x0],
        ".x",
        decay=Tensor(a),
        asynchronous=system.asynchronous,
        bank=node.op["bank"],
        pieces=(Piece(0, a.size, 0, 1),),
        read_before=system.read_before,
        reverse=ports.reverse,
    )
    return x, Value(x.node, 1)


def _decays_by_itself(t: Tiling, a: Array) -> bool:
    """Whether time itself makes these states decay on the target: `a` are rates, A delta."""
    return any(bank.decay_only for bank in t.machine.banks) and bool((a.real < 0).all())


def _computed(t: Tiling, node: Node, system: StateSpace, ports: Ports, a: Array, v: Value) -> tuple[Value, Value]:
    """`exp(A delta dt)` by the vector unit, `e^re (cos im | sin im)`, then a recurrence with a streamed decay."""
    if not any(bank.computed_decay for bank in t.machine.banks):
        grown = np.unique(a[a.real >= 0])[:4]
        raise t.refuse(
            node,
            "the decay follows the elapsed time, and no bank of the target can do that for these states",
            why=f"the states do not decay: A delta = {', '.join(f'{p:.6g}' for p in grown)}"
            if grown.size
            else "no bank decays by itself, and none takes a computed decay",
            hint="choose a target with a bank of computed decay, or train the model with decaying states",
        )
    assert ports.dt is not None
    elapsed = t.reshape(node, ports.dt, (1,), ".dt")

    def scaled(rate: Array, suffix: str) -> Value:
        return t.binary(node, "mul", elapsed, t.constant(node, rate, suffix), suffix)

    decay = t.unary(node, "exp", scaled(a.real, ".rate"), ".decay")
    if np.iscomplexobj(a):
        angle = scaled(a.imag, ".angle")
        turned = [t.binary(node, "mul", decay, t.unary(node, f, angle, f".{f}"), f".{f}") for f in ("cos", "sin")]
        decay = t.emit(node, "concat", turned, ".decay", axis=-1)
    x = t.emit(
        node,
        "tile.recurrence",
        [decay, v] if ports.x0 is None else [decay, v, ports.x0],
        ".x",
        is_complex=bool(np.iscomplexobj(a)),
        read_before=system.read_before,
        reverse=ports.reverse,
    )
    return x, Value(x.node, 1)


def read(t: Tiling, node: Node, system: StateSpace, ports: Ports, x: Value, bits: int | None) -> Value:
    """`y = gain Re(C x) + D u`, or all of `C x + D u` as halves where the output is complex."""
    groups, _, states = system.C.shape
    count, outputs = groups * states, system.outputs
    c = (system.C * system.gain).swapaxes(1, 2)
    both = not system.real_output
    # (rows from, columns from, part of C): y_re = Cr x_re - Ci x_im, y_im = Ci x_re + Cr x_im
    parts = [(0, 0, c.real)] + ([(count, 0, -c.imag)] if ports.is_complex else [])
    if both:
        parts += [(0, outputs, c.imag)] + ([(count, outputs, c.real)] if ports.is_complex else [])
    matrix = block_diagonal((count * (2 if ports.is_complex else 1), outputs * (2 if both else 1)), parts)
    blocks_or_whole = None if groups == 1 else blocks_of(parts)
    through = _through(t, node, system, ports, bits)
    plain = is_identity(matrix)
    if through is None:
        return x if plain else t.matmul(node, x, column_grid(matrix, bits), blocks=blocks_or_whole)
    seen = x if plain else t.matmul(node, x, column_grid(matrix, bits), ".read", blocks=blocks_or_whole)
    return t.binary(node, "add", seen, through)


def _through(t: Tiling, node: Node, system: StateSpace, ports: Ports, bits: int | None) -> Value | None:
    """`D u`, None where D is zero; elementwise where each output sees its own input only."""
    if not system.D.any():
        return None
    groups, high, wide = system.D.shape
    d = system.D.swapaxes(1, 2)
    if system.real_output and high == wide and not d[:, ~np.eye(high, dtype=bool)].any():
        each = np.diagonal(d, axis1=1, axis2=2).reshape(-1)
        return t.binary(node, "mul", ports.u, t.constant(node, each, ".d"), ".through")
    parts = [(0, 0, d)] if system.real_output else [(0, 0, d.real), (0, system.outputs, np.imag(d))]
    matrix = column_grid(block_diagonal((system.inputs, system.outputs * len(parts)), parts), bits)
    return t.matmul(node, ports.u, matrix, ".through", blocks=None if groups == 1 else blocks_of(parts))


def tile_recurrence(t: Tiling, node: Node) -> None:
    """A recurrence over flat vectors; a decay that is constant makes it a `tile.state`."""
    a, v, x0 = t.operands(node, 3)
    assert a is not None and v is not None
    kind = node.types[0]
    assert isinstance(kind, StreamType)
    shape = kind.shape
    width = prod(shape)
    turning = t.is_complex(a)
    is_complex = turning or t.is_complex(v) or (x0 is not None and t.is_complex(x0))

    def flat(value: Value, suffix: str, twice: bool = False) -> Value:
        """(width,), or halves (2 width,); a real decay of complex states acts on both halves: `twice`."""
        pair = t.parts(value, node)
        parts = [pair.real_part()] if not is_complex or pair.is_real else [pair.real_part(), pair.imag_part()]
        flats = []
        for part in parts:
            wide = part if t.shape(part) == shape else t.emit(node, "broadcast", [part], suffix, shape=shape)
            flats.append(t.reshape(node, wide, (width,), suffix))
        if is_complex and len(flats) == 1:
            flats.append(flats[0] if twice else t.constant(node, np.zeros(width), ".zeros"))
        return t.emit(node, "concat", flats, suffix, axis=-1) if is_complex else flats[0]

    drive, start = flat(v, ".drive"), None if x0 is None else flat(x0, ".x0")
    attrs = {name: node.op[name] for name in ("read_before", "reverse", "bank")}
    direct = not is_complex and shape == (width,)
    suffix = "" if direct else ".x"
    source = t.source.op(a.node)
    if source.name == "constant":
        decay = np.broadcast_to(source["value"].array, shape).reshape(-1)
        decay = np.concatenate([decay, decay]) if is_complex and not turning else decay
        pieces = (Piece(0, decay.size, 0, 1),)
        x = t.emit(node, "tile.state", [drive, None, start], suffix, decay=Tensor(decay), pieces=pieces, **attrs)
    else:
        operands = [flat(a, ".decay", twice=not turning), drive, *([] if start is None else [start])]
        x = t.emit(node, "tile.recurrence", operands, suffix, is_complex=turning, **attrs)
    t.out.add_provenance(x.node, *constant_sources(t.source, node))
    for index, value in enumerate((x, Value(x.node, 1))):
        _store(t, node, index, value, shape, is_complex)


def _store(t: Tiling, node: Node, index: int, value: Value, shape: tuple[int, ...], is_complex: bool) -> None:
    """Result `index` of a recurrence in the source's shape."""
    result = Value(node.name, index)
    last = isinstance(t.out.type(value), SequenceType)
    suffix = ".last" if last else ""
    if not is_complex:
        t.real[result] = t.reshape(node, value, shape, suffix)
        return
    flat = Halves(t, node, whole=value)
    if shape == (t.shape(value)[0] // 2,):
        t.pairs[result] = flat
        return
    re = t.reshape(node, flat.real_part(), shape, f"{suffix}.re")
    t.pairs[result] = Halves(t, node, re, t.reshape(node, flat.imag_part(), shape, f"{suffix}.im"))
