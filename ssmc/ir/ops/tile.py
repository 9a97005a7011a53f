"""Ops of the tile level: pieces with coordinates. Everything here is real; a complex vector is its halves re|im."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssmc.ir.op import Array, Attribute, Op, OpSpec, align
from ssmc.ir.ops.temporal import BANK, READ_BEFORE, REVERSE
from ssmc.ir.tensor import LARGE, Tensor
from ssmc.ir.types import SequenceType, StreamType, ValueType, with_shape

AT_ONCE = 1 << 14  # states that take a step together, of some channels: in the processor's caches, and worth a call


@dataclass(frozen=True)
class Piece:
    """Rows k0..k1 and columns n0..n1 of a matrix (or groups and states of a bank), and where they lie.

    `unit` is an array or a bank, -1 while unplaced; `row`, `col` its first cell there.
    """

    k0: int
    k1: int
    n0: int
    n1: int
    unit: int = -1
    row: int = 0
    col: int = 0

    @property
    def block(self) -> tuple[int, int, int, int]:
        """What it covers, wherever it lies."""
        return self.k0, self.k1, self.n0, self.n1


def _check_pieces(op: Op, rows: int, cols: int) -> None:
    """Pieces lie within the matrix. Raises ValueError; that they cover it is the interpreter's to show."""
    for piece in op["pieces"]:
        if not (0 <= piece.k0 < piece.k1 <= rows and 0 <= piece.n0 < piece.n1 <= cols):
            raise ValueError(f"{piece} lies outside {rows} x {cols}")


def _check_unit(op: Op, shape: tuple[int, ...]) -> None:
    """A unit for each state. Raises ValueError."""
    if op["unit"] is not None and op["unit"].shape != shape:
        raise ValueError(f"'unit' has the shape {op['unit'].shape}, the states {shape}")


def _matmul_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    rows, cols = op["weight"].shape
    if not kinds[0].shape or kinds[0].shape[-1] != rows:
        raise ValueError(f"a weight of shape {(rows, cols)} (inputs, outputs) does not fit features {kinds[0].shape}")
    _check_pieces(op, rows, cols)
    return (with_shape(kinds[0], (*kinds[0].shape[:-1], cols)),)


def _matmul(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    x, weight = arrays[0], op["weight"]
    y = np.zeros((*x.shape[:-1], weight.shape[1]))
    for k0, k1, n0, n1 in _side_by_side(op["pieces"]):
        y[..., n0:n1] += x[..., k0:k1] @ weight.part(slice(k0, k1), slice(n0, n1))
    return (y if op["bias"] is None else y + op["bias"].array,)


def _side_by_side(pieces: Sequence[Piece]) -> Iterator[tuple[int, int, int, int]]:
    """Blocks of a matrix that its pieces cover: pieces of the same rows that touch as one, up to a size."""
    held: tuple[int, int, int, int] | None = None
    for k0, k1, n0, n1 in sorted(piece.block for piece in pieces):
        if held is not None and (k0, k1, n0) == (held[0], held[1], held[3]) and (k1 - k0) * (n1 - held[2]) <= LARGE:
            held = k0, k1, held[2], n1
            continue
        if held is not None:
            yield held
        held = k0, k1, n0, n1
    if held is not None:
        yield held


def join_halves(x: Array, is_complex: bool) -> NDArray[Any]:
    """Halves re|im of the last axis as complex numbers; real ones as they are."""
    if not is_complex:
        return x
    half = x.shape[-1] // 2
    joined = np.empty((*x.shape[:-1], half), np.complex128)
    joined.real, joined.imag = x[..., :half], x[..., half:]
    return joined


def split_halves(x: Array, is_complex: bool) -> NDArray[Any]:
    """The inverse of `join_halves`."""
    return np.concatenate([x.real, x.imag], -1) if is_complex else np.asarray(x)


def _state_width(op: Op) -> int:
    return int(op["decay"].shape[0]) * (2 if op["decay"].is_complex else 1)


def _state_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    v, dt, x0 = kinds
    width = (_state_width(op),)
    if not isinstance(v, StreamType) or v.shape != width:
        raise ValueError(f"a drive of {v.shape} does not fit {op['decay'].shape[0]} states of width {width[0]}")
    if op["asynchronous"] != (dt is not None):
        raise ValueError("asynchronous states, and no others, need the elapsed time 'dt'")
    if x0 is not None and x0.shape != width:
        raise ValueError(f"'x0' has the shape {x0.shape}, the states {width}")
    _check_unit(op, op["decay"].shape)
    _check_pieces(op, op["decay"].shape[0], 1)
    return (v, SequenceType(width))


def _recur(a: Array, v: Array, x0: Array | None, read_before: bool) -> tuple[Array, Array]:
    """x_k = a_k x_{k-1} + v_k over axis 1, `a` broadcast to `v`; returns all that is read, and the last state."""
    a = np.broadcast_to(a, v.shape)
    x = np.zeros((len(v), *v.shape[2:])) if x0 is None else x0
    kind = np.result_type(a, v, x)
    y = np.empty(v.shape, kind)
    for k in range(v.shape[1]):
        following = np.empty(x.shape, kind) if read_before else y[:, k]  # large states are written once, to their place
        np.multiply(a[:, k], x, out=following)
        following += v[:, k]
        if read_before:
            y[:, k] = x
        x = following
    return y, np.array(x)


def _state(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    v, dt, x0 = (*arrays, None, None)[:3]
    decay, is_complex = op["decay"].array, op["decay"].is_complex
    if op["reverse"]:
        v, dt = v[:, ::-1], None if dt is None else dt[:, ::-1]
    covered = np.zeros(len(decay), bool)
    for p in op["pieces"]:
        covered[p.k0 : p.k1] = True
    drive = join_halves(v, is_complex)
    drive = drive if covered.all() else drive * covered
    a = np.exp(decay * dt[..., None]) if op["asynchronous"] else decay[None, None]
    start = None if x0 is None else join_halves(np.broadcast_to(x0, (len(v), v.shape[2])), is_complex)
    y, last = _recur(a, drive, start, op["read_before"])
    y = y[:, ::-1] if op["reverse"] else y
    return (split_halves(y, is_complex), split_halves(last, is_complex))


def _ssm_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    u, x0 = kinds
    groups, states = op["decay"].shape
    if not isinstance(u, StreamType) or u.shape != (groups,):
        raise ValueError(f"{groups} channels do not fit features {u.shape}")
    for name in ("b", "c"):
        if op[name].shape != (groups, states):
            raise ValueError(f"'{name}' has the shape {op[name].shape}, 'decay' {(groups, states)}")
    width = (groups * states * (2 if op["decay"].is_complex else 1),)
    if x0 is not None and x0.shape != width:
        raise ValueError(f"'x0' has the shape {x0.shape}, the states {width}")
    _check_unit(op, (groups, states))
    _check_pieces(op, groups, states)
    return (u, SequenceType(width))


def _ssm(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    u, x0 = (*arrays, None)[:2]
    a, b, c = (op[name].array for name in ("decay", "b", "c"))
    covered = np.zeros(a.shape)
    for p in op["pieces"]:
        covered[p.k0 : p.k1, p.n0 : p.n1] += 1
    u = u[:, ::-1] if op["reverse"] else u
    halves, y = op["decay"].is_complex, np.empty(u.shape)
    last = np.empty((len(u), *a.shape), np.result_type(a, b, u))
    start = None
    if x0 is not None:
        start = join_halves(np.broadcast_to(x0, (len(u), x0.shape[-1])), halves).reshape(-1, *a.shape)
    some = max(1, AT_ONCE // max(1, len(u) * a.shape[1]))
    for h in range(0, len(a), some):
        own = slice(h, h + some)
        drive = u[..., own, None] * (b * covered)[own]
        decay = a[own] + drive if op["liquid"] else a[own][None, None]
        states, last[:, own] = _recur(decay, drive, None if start is None else start[:, own], op["read_before"])
        y[..., own] = np.real(np.einsum("btgn,gn->btg", states, c[own])) + u[..., own] * op["d"].array[own]
    y = y[:, ::-1] if op["reverse"] else y
    return (np.ascontiguousarray(y), split_halves(last.reshape(len(last), -1), halves))


def _recurrence_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    a, v, x0 = kinds
    if not isinstance(v, StreamType) or len(v.shape) != 1 or a.shape != v.shape:
        raise ValueError(f"decay {a.shape} and drive {v.shape} must be the same vector")
    if x0 is not None and x0.shape != v.shape:
        raise ValueError(f"'x0' has the shape {x0.shape}, the drive {v.shape}")
    _check_unit(op, (v.shape[0] // (2 if op["is_complex"] else 1),))
    return (v, SequenceType(v.shape))


def _recurrence(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    a, v, x0 = (*arrays, None)[:3]
    a = np.broadcast_to(align(a, kinds[0], kinds[1]), v.shape)
    if op["reverse"]:
        a, v = a[:, ::-1], v[:, ::-1]
    is_complex = op["is_complex"]
    start = None if x0 is None else join_halves(np.broadcast_to(x0, (len(v), v.shape[2])), is_complex)
    y, last = _recur(join_halves(a, is_complex), join_halves(v, is_complex), start, op["read_before"])
    y = y[:, ::-1] if op["reverse"] else y
    return (split_halves(y, is_complex), split_halves(last, is_complex))


def _feedback_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    v, x0 = kinds
    rows, cols = op["weight"].shape
    if rows != cols or not isinstance(v, StreamType) or v.shape != (cols,):
        raise ValueError(f"a weight of shape {(rows, cols)} does not feed back {v.shape}")
    if x0 is not None and x0.shape != (cols,):
        raise ValueError(f"'x0' has the shape {x0.shape}, the states {(cols,)}")
    _check_pieces(op, rows, cols)
    return (v, SequenceType((cols,)))


def _feedback(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    v, x0 = (*arrays, None)[:2]
    v = v[:, ::-1] if op["reverse"] else v
    x = np.zeros((len(v), v.shape[2])) if x0 is None else np.broadcast_to(x0, (len(v), v.shape[2]))
    y = np.empty(v.shape)
    for k in range(v.shape[1]):
        following = v[:, k].copy()
        for p in op["pieces"]:
            following[:, p.n0 : p.n1] += x[:, p.k0 : p.k1] @ op["weight"].array[p.k0 : p.k1, p.n0 : p.n1]
        y[:, k] = x if op["read_before"] else following
        x = following
    return (np.ascontiguousarray(y[:, ::-1] if op["reverse"] else y), x)


PIECES = Attribute("pieces", tuple, "placed `Piece`s")
UNIT = Attribute("unit", Tensor, "what a count of a fixed-point state is worth, powers of two; None is open", None)

SPECS = (
    OpSpec(
        "tile.matmul",
        "tile",
        ("x",),
        ("y",),
        (
            Attribute("weight", Tensor, "(inputs, outputs)"),
            Attribute("bias", Tensor, "(outputs,), added digitally", None),
            PIECES,
        ),
        _matmul_type,
        _matmul,
        "y = sum over pieces of x[k0:k1] weight[k0:k1, n0:n1], plus bias; what no piece covers is zero.",
    ),
    OpSpec(
        "tile.state",
        "tile",
        ("v", "dt?", "x0?"),
        ("x", "last"),
        (
            Attribute("decay", Tensor, "(states,) Abar; A delta where asynchronous: then Abar = exp(decay dt)"),
            Attribute("asynchronous", bool, "the decay follows the elapsed time 'dt'", False),
            UNIT,
            BANK,
            PIECES,
            READ_BEFORE,
            REVERSE,
        ),
        _state_type,
        _state,
        "x_k = Abar x_{k-1} + v_k, a state each; pieces are (k0, k1) states; complex states are halves re|im.",
    ),
    OpSpec(
        "tile.ssm",
        "tile",
        ("u", "x0?"),
        ("y", "last"),
        (
            Attribute("decay", Tensor, "(channels, states) Abar"),
            Attribute("b", Tensor, "(channels, states)"),
            Attribute("c", Tensor, "(channels, states); y = Re(sum c x) + d u, a factor 2 of halving included"),
            Attribute("d", Tensor, "(channels,)"),
            Attribute("liquid", bool, "the drive adds to the decay: x_k = (Abar + b u_k) x_{k-1} + b u_k", False),
            UNIT,
            PIECES,
            READ_BEFORE,
            REVERSE,
        ),
        _ssm_type,
        _ssm,
        "Single-input single-output systems, a channel each, states in place; pieces are channels x states.",
    ),
    OpSpec(
        "tile.recurrence",
        "tile",
        ("a", "v", "x0?"),
        ("x", "last"),
        (Attribute("is_complex", bool, "halves re|im", False), UNIT, BANK, READ_BEFORE, REVERSE),
        _recurrence_type,
        _recurrence,
        "x_k = a_k x_{k-1} + v_k with both streamed.",
    ),
    OpSpec(
        "tile.feedback",
        "tile",
        ("v", "x0?"),
        ("x", "last"),
        (
            Attribute("weight", Tensor, "(states, states) A transposed: row i is what state i feeds"),
            BANK,
            PIECES,
            READ_BEFORE,
            REVERSE,
        ),
        _feedback_type,
        _feedback,
        "x_k = A x_{k-1} + v_k with A in arrays; complex states are halves re|im, A in real form.",
    ),
)
