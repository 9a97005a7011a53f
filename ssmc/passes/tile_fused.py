"""Systems whose states are driven and read where they are held: `tile.ssm`."""

from __future__ import annotations

import numpy as np

from ssmc.ir import Node, Piece, Tensor, Value
from ssmc.ir.op import Array
from ssmc.passes.grid import row_grid
from ssmc.passes.pieces import weights_per_array
from ssmc.passes.tiling import Ports, Tiling
from ssmc.statespace import StateSpace


def fits(t: Tiling, system: StateSpace) -> bool:
    """Whether a system has one input a group, and a bank that drives and reads its states itself.

    Several outputs are worth as many arrays of states where these take no more passes than bare states would: a row of
    an array, whose states go out to a matrix at every step.
    """
    banks = [bank for bank in t.machine.banks if bank.fused and not bank.liquid]
    if not (banks and system.diagonal and system.B.shape[2] == 1 and system.real_output) or system.asynchronous:
        return False
    outputs, (rows, cols) = system.C.shape[1], weights_per_array(t.machine)
    if outputs == 1:
        return True
    if all(bank.computed_decay for bank in banks):  # it has no states in place
        return False
    passes = -(-system.states // rows) * -(-system.groups // cols)
    return bool(outputs * passes <= -(-system.groups * system.states // cols))


def halves(array: Array, is_complex: bool) -> Array:
    """Halves re|im of the last axis, or the array as it is."""
    return np.concatenate([array.real, array.imag], -1) if is_complex else array


def fused(
    t: Tiling, node: Node, system: StateSpace, ports: Ports, bits: int | None, liquid: bool = False
) -> tuple[Value, Value]:
    """`tile.ssm`: one channel a group; pieces are channels x states, as many as an array has columns and rows.

    Of several outputs each has an array of states of its own.
    """
    outputs = system.C.shape[1]
    if outputs == 1:
        return _fused(t, node, system, ports, bits, liquid, 0, "")
    found = [_fused(t, node, system, ports, bits, liquid, output, f".{output}") for output in range(outputs)]
    wide = t.emit(node, "concat", [y for y, _ in found], ".outputs", axis=-1)
    index = np.arange(outputs * system.groups).reshape(outputs, system.groups).T.ravel()
    return t.emit(node, "take", [wide], axis=-1, index=Tensor(index)), found[0][1]


def _fused(
    t: Tiling, node: Node, system: StateSpace, ports: Ports, bits: int | None, liquid: bool, output: int, suffix: str
) -> tuple[Value, Value]:
    channels, states = system.groups, system.states
    kind = np.complex128 if ports.is_complex else np.float64
    decay = system.A.astype(kind)
    b, c = (
        system.B[:, :, 0].astype(kind),
        (system.C[:, output] * system.gain).astype(kind if ports.is_complex else system.C.dtype),
    )
    if not ports.is_complex:
        c = c.real
    rows, cols = weights_per_array(t.machine)
    native = any(bank.fused and bank.liquid == liquid and bank.native_complex for bank in t.machine.banks)
    rows = max(1, rows // 2) if ports.is_complex and not native else rows
    pieces = tuple(
        Piece(k, min(k + cols, channels), n, min(n + rows, states))
        for k in range(0, channels, cols)
        for n in range(0, states, rows)
    )
    y = t.emit(
        node,
        "tile.ssm",
        [ports.u] if ports.x0 is None else [ports.u, ports.x0],
        suffix,
        decay=Tensor(decay),
        b=row_grid(b, bits),
        c=row_grid(c, bits),
        d=Tensor(system.D[:, output, 0]),
        liquid=liquid,
        pieces=pieces,
        read_before=system.read_before,
        reverse=ports.reverse,
    )
    return y, Value(y.node, 1)
