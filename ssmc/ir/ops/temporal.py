"""Ops that carry something through time: systems, recurrences, filters, pooling, order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.ir.functions import REDUCE, mean
from ssmc.ir.op import Array, Attribute, Op, OpSpec, align
from ssmc.ir.tensor import Tensor
from ssmc.ir.types import ConstantType, SequenceType, StreamType, ValueType, join, outer_axes
from ssmc.statespace import StateSpace, simulate_in_chunks


def _stream(kind: Any, what: str) -> StreamType:
    if not isinstance(kind, StreamType):
        raise ValueError(f"'{what}' must be a stream")
    return kind


def _ssm_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    system: StateSpace = op["system"]
    u = _stream(kinds[0], "u")
    if u.shape != (system.inputs,):
        raise ValueError(f"a system of {system.inputs} inputs does not fit features {u.shape}")
    if system.asynchronous != (kinds[1] is not None):
        raise ValueError("an asynchronous system, and no other, needs the elapsed time 'dt'")
    if kinds[1] is not None and kinds[1].shape != ():
        raise ValueError(f"'dt' must be one number a step, not features {kinds[1].shape}")
    if isinstance(kinds[1], StreamType) and kinds[1].rate != u.rate:
        raise ValueError(f"'dt' has the rate {kinds[1].rate}, 'u' {u.rate}")
    states = (system.groups * system.states,)
    if kinds[2] is not None and kinds[2].shape != states:
        raise ValueError(f"'x0' has the shape {kinds[2].shape}, the system {states} states")
    last = SequenceType(states, "complex" if system.is_complex else "real")
    y = StreamType((system.outputs,), "real" if system.real_output else "complex", u.rate)
    return (y, last)


def _ssm(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    system: StateSpace = op["system"]
    u, dt, x0 = (*arrays, None, None)[:3]
    if x0 is not None:
        outer = x0.shape[: outer_axes(kinds[2])]  # a constant is the same for every sequence
        x0 = x0.reshape(*outer, system.groups, system.states)
    reverse = bool(op["reverse"])
    if reverse:
        u, dt = u[:, ::-1], None if dt is None else dt[:, ::-1]
    y, last = simulate_in_chunks(system, u, x0=x0, dt=dt)
    return (y[:, ::-1] if reverse else y, last.reshape(len(last), -1))


def _liquid_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    system: StateSpace = op["system"]
    single = system.B.shape[2] == 1 and system.C.shape[1] == 1 and system.real_output
    if not (single and system.diagonal and system.discrete):
        raise ValueError("a liquid system is discrete and diagonal, with one input and one real output a group")
    return _ssm_type(op, [kinds[0], None, kinds[1]])


def _liquid(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    system: StateSpace = op["system"]
    u = arrays[0][:, ::-1] if op["reverse"] else arrays[0]
    b, c = system.B[:, :, 0], system.gain * system.C[:, 0]
    x = np.zeros((len(u), *system.A.shape), np.result_type(system.A, b))
    if arrays[1] is not None:
        x = x + arrays[1].reshape(-1, *system.A.shape)  # a constant is the same for every sequence
    elif system.x0 is not None:
        x = x + system.x0
    y = np.empty(u.shape)
    for k in range(u.shape[1]):
        v = b * u[:, k, :, None]
        following = (system.A + v) * x + v
        y[:, k] = np.real((c * (x if system.read_before else following)).sum(-1))
        x = following
    y = y + u * system.D[:, 0, 0]
    return (np.ascontiguousarray(y[:, ::-1]) if op["reverse"] else y, x.reshape(len(x), -1))


def _recurrence_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    a, v, x0 = kinds
    v = _stream(v, "v")
    joined = join(a, v)
    if joined.shape != v.shape:
        raise ValueError(f"a decay of features {a.shape} does not fit a drive of features {v.shape}")
    if x0 is not None and x0.shape != v.shape:
        raise ValueError(f"'x0' has the shape {x0.shape}, the drive {v.shape}")
    element = joined.element
    return (StreamType(v.shape, element, v.rate), SequenceType(v.shape, element))


def _recurrence(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    a, v, x0 = (*arrays, None)[:3]
    a = np.broadcast_to(align(a, kinds[0], kinds[1]), v.shape)
    reverse, before = op["reverse"], op["read_before"]
    if reverse:
        a, v = a[:, ::-1], v[:, ::-1]
    dtype = np.result_type(a, v, np.float64)
    x = np.zeros(v.shape[:1] + v.shape[2:], dtype) if x0 is None else np.asarray(x0, dtype)
    y = np.empty(v.shape, dtype)
    for k in range(v.shape[1]):
        following = a[:, k] * x + v[:, k]
        y[:, k] = x if before else following
        x = following
    return (
        np.ascontiguousarray(y[:, ::-1]) if reverse else y,
        np.array(np.broadcast_to(x, v.shape[:1] + v.shape[2:])),
    )


def _fir_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    u, kernel = _stream(kinds[0], "u"), op["kernel"]
    if len(kernel.shape) != 2 or u.shape != (kernel.shape[0],):
        raise ValueError(f"a kernel of shape {kernel.shape} (channels, taps) does not fit features {u.shape}")
    if kinds[1] is not None and kinds[1].shape != (kernel.shape[0], kernel.shape[1] - 1):
        raise ValueError(f"'history' has the shape {kinds[1].shape}; it holds the last {kernel.shape[1] - 1} inputs")
    return (u, SequenceType((kernel.shape[0], kernel.shape[1] - 1)))


def _fir(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    u, history = (*arrays, None)[:2]
    kernel = op["kernel"].array
    taps = kernel.shape[1]
    if op["reverse"]:
        u = u[:, ::-1]
    past = np.zeros((len(u), taps - 1, u.shape[2])) if history is None else history.transpose(0, 2, 1)
    padded = np.concatenate([past, u], axis=1)
    y = _filtered(padded, kernel)
    last = padded[:, padded.shape[1] - (taps - 1) :].transpose(0, 2, 1)
    return (np.ascontiguousarray(y[:, ::-1]) if op["reverse"] else y, np.ascontiguousarray(last))


_FEW = 64  # taps that are added up one by one
_AT_ONCE = 1 << 22  # numbers of one transform


def _filtered(x: Array, kernel: Array) -> Array:
    """`y[k] = sum_l kernel[c, l] x[k + L - 1 - l]` of (batch, time + L - 1, channels), L taps."""
    channels, taps = kernel.shape
    time = x.shape[1] - taps + 1
    if taps <= _FEW:
        y = kernel[:, 0] * x[:, taps - 1 :]
        for lag in range(1, taps):
            y += kernel[:, lag] * x[:, taps - 1 - lag : taps - 1 - lag + time]
        return np.asarray(y)
    from scipy.fft import irfft, next_fast_len, rfft

    size = next_fast_len(x.shape[1], real=True)  # what wraps around meets only the first L - 1 steps, left out
    y = np.empty((len(x), time, channels))
    width = max(1, _AT_ONCE // (size * max(1, len(x))))
    for start in range(0, channels, width):
        some = slice(start, start + width)
        spectrum = rfft(x[:, :, some], size, axis=1) * rfft(kernel[some].T, size, axis=0)
        y[:, :, some] = irfft(spectrum, size, axis=1)[:, taps - 1 : taps - 1 + time]
    return y


POOLS = ("mean", "last", "first", "max", "sum", "weighted_mean")


def _pool_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    x = _stream(kinds[0], "x")
    if op["kind"] not in POOLS:
        raise ValueError(f"no pooling '{op['kind']}'; there are: {', '.join(POOLS)}")
    if (op["kind"] == "weighted_mean") != (kinds[1] is not None):
        raise ValueError("'weighted_mean', and no other pooling, needs the operand 'weight'")
    return (SequenceType(x.shape, x.element),)


def _pool(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    x, weight = (*arrays, None)[:2]
    match op["kind"]:
        case "last":
            return (x[:, -1],)
        case "first":
            return (x[:, 0],)
        case "max":
            return (x.max(1),)
        case "sum":
            return (x.sum(1),)
        case "mean":
            return (mean(x, axis=1),)  # NaN where there are no steps
    weight = align(weight, kinds[1], kinds[0])
    with np.errstate(invalid="ignore"):  # NaN where there are no steps, here too
        return ((x * weight).sum(1) / weight.sum(1),)


def _downsample_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    x = _stream(kinds[0], "x")
    if op["kind"] not in ("take", "mean", "sum", "max"):
        raise ValueError(f"no downsampling '{op['kind']}'; there are: take, mean, sum, max")
    return (StreamType(x.shape, x.element, x.rate / op["stride"]),)


def _downsample(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    x, stride = arrays[0], op["stride"]
    if op["kind"] == "take":
        return (np.ascontiguousarray(x[:, op["offset"] :: stride]),)
    steps = x.shape[1] // stride
    windows = x[:, : steps * stride].reshape(len(x), steps, stride, *x.shape[2:])
    return (np.asarray(REDUCE[op["kind"]](windows, axis=2)),)


def _reverse(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    return (np.ascontiguousarray(arrays[0][:, ::-1]),)


def _delay_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    return (_stream(kinds[0], "x"),)


def _delay(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    y, steps = np.zeros_like(arrays[0]), op["steps"]
    y[:, steps:] = arrays[0][:, : max(arrays[0].shape[1] - steps, 0)]
    return (y,)


def _spread_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    if isinstance(kinds[0], StreamType):
        raise ValueError("the value is a stream already")
    return (StreamType(kinds[0].shape, kinds[0].element, _stream(kinds[1], "like").rate),)


def _spread(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    x, like = arrays
    x = x if isinstance(kinds[0], ConstantType) else np.expand_dims(x, 1)
    return (np.array(np.broadcast_to(x, (*like.shape[:2], *kinds[0].shape))),)


REVERSE = Attribute("reverse", bool, "runs from the last step to the first", False)
READ_BEFORE = Attribute("read_before", bool, "x_k is the state before step k", False)
BANK = Attribute("bank", str, "what holds the states: a kind of the target's, empty while that is open", "")

SPECS = (
    OpSpec(
        "ssm",
        "ssm",
        ("u", "dt?", "x0?"),
        ("y", "last"),
        (
            Attribute("system", StateSpace, "the linear system"),
            REVERSE,
            Attribute("weight_bits", int, "B and C lie on symmetric grids of so many bits (none: not rounded)", None),
            BANK,
        ),
        _ssm_type,
        _ssm,
        "A linear state-space system; `last` and `x0` are its states (groups * states) after and before the sequence.",
    ),
    OpSpec(
        "liquid_ssm",
        "ssm",
        ("u", "x0?"),
        ("y", "last"),
        (Attribute("system", StateSpace, "the linear system: discrete, diagonal, a channel a group"), REVERSE),
        _liquid_type,
        _liquid,
        "Liquid-S4 (arXiv 2209.12951, equation 4): x_k = (Abar + Bbar u_k) x_{k-1} + Bbar u_k, otherwise as `ssm`.",
    ),
    OpSpec(
        "recurrence",
        "ssm",
        ("a", "v", "x0?"),
        ("x", "last"),
        (REVERSE, READ_BEFORE, BANK),
        _recurrence_type,
        _recurrence,
        "x_k = a_k x_{k-1} + v_k, elementwise, with a decay that is computed: selective, liquid and gated systems.",
    ),
    OpSpec(
        "fir",
        "ssm",
        ("u", "history?"),
        ("y", "last"),
        (Attribute("kernel", Tensor, "(channels, taps), tap 0 meets the present input"), REVERSE),
        _fir_type,
        _fir,
        "y_k = sum_j kernel_j u_{k-j}, a channel at a time; `history` and `last` hold taps-1 inputs, oldest first.",
    ),
    OpSpec(
        "pool",
        "ssm",
        ("x", "weight?"),
        ("y",),
        (Attribute("kind", str, ", ".join(POOLS)),),
        _pool_type,
        _pool,
        "A stream becomes one value per sequence.",
    ),
    OpSpec(
        "downsample",
        "ssm",
        ("x",),
        ("y",),
        (
            Attribute("stride", int, "steps that become one"),
            Attribute(
                "kind",
                str,
                "'take' one of them, or their 'mean', 'sum', 'max' (a broken last window is dropped)",
                "take",
            ),
            Attribute("offset", int, "which step 'take' takes", 0),
        ),
        _downsample_type,
        _downsample,
        "Event pooling: the stream's rate falls by `stride`.",
    ),
    OpSpec(
        "reverse",
        "ssm",
        ("x",),
        ("y",),
        (),
        lambda op, kinds: (_stream(kinds[0], "x"),),
        _reverse,
        "The stream from its last step to its first.",
    ),
    OpSpec(
        "delay",
        "ssm",
        ("x",),
        ("y",),
        (Attribute("steps", int, "at least one", 1),),
        _delay_type,
        _delay,
        "The stream some steps later, zeros first.",
    ),
    OpSpec(
        "spread",
        "ssm",
        ("x", "like"),
        ("y",),
        (),
        _spread_type,
        _spread,
        "A sequence value (or constant) repeated at every step of the stream `like`.",
    ),
)
