"""Neurons that integrate, leak and fire: the one recurrence here that is not linear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmc.ir.op import Array, Attribute, Op, OpSpec
from ssmc.ir.ops.temporal import READ_BEFORE, REVERSE
from ssmc.ir.tensor import Tensor
from ssmc.ir.types import SequenceType, StreamType, ValueType

ROWS = ("decay", "threshold", "fired_decay", "fired_gain", "fired_offset")


def _spike_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    v, x0 = kinds
    if not isinstance(v, StreamType) or v.element != "real":
        raise ValueError("'v' must be a stream of real numbers")
    for name in ROWS:
        if op[name].shape != v.shape or op[name].is_complex:
            raise ValueError(f"'{name}' has the shape {op[name].shape}, the drive {v.shape}")
    if x0 is not None and x0.shape != v.shape:
        raise ValueError(f"'x0' has the shape {x0.shape}, the drive {v.shape}")
    return (v, SequenceType(v.shape))


def neuron_step(rows: Sequence[Array], or_equal: bool, immediate: bool, x: Array, v: Array) -> tuple[Array, Array]:
    """(potentials reached, potentials kept) in a step of neurons with `rows` as in ROWS, from `x` and the drive `v`."""
    decay, threshold, fired_decay, fired_gain, fired_offset = rows
    leaked = decay * x + v
    if immediate:
        fired = leaked >= threshold if or_equal else leaked > threshold
        return leaked, np.where(fired, fired_decay * leaked + fired_offset, leaked)
    fired = x >= threshold if or_equal else x > threshold
    following = np.where(fired, fired_decay * x + fired_gain * v + fired_offset, leaked)
    return following, following


def _spike(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    v, x0 = (*arrays, None)[:2]
    rows = [op[name].array for name in ROWS]
    v = v[:, ::-1] if op["reverse"] else v
    x = np.broadcast_to(0.0 if x0 is None else np.asarray(x0, np.float64), (len(v), *v.shape[2:]))
    y = np.empty(v.shape)
    for k in range(v.shape[1]):
        reached, following = neuron_step(rows, op["or_equal"], op["immediate"], x, v[:, k])
        y[:, k] = x if op["read_before"] else reached
        x = following
    return (np.ascontiguousarray(y[:, ::-1]) if op["reverse"] else y, np.array(x))


SPECS = (
    OpSpec(
        "spike",
        "ssm",
        ("v", "x0?"),
        ("x", "last"),
        (
            Attribute("decay", Tensor, "a, a number for each neuron, as all the rows"),
            Attribute("threshold", Tensor, "theta: a neuron fires where its potential is above"),
            Attribute("fired_decay", Tensor, "a after firing: 0 resets to a value, a subtracts from the potential"),
            Attribute("fired_gain", Tensor, "what the drive counts after firing: 1, or 0 where the reset swallows it"),
            Attribute("fired_offset", Tensor, "added after firing: minus the threshold, or the value reset to"),
            Attribute("or_equal", bool, "a potential equal to the threshold fires", False),
            Attribute("immediate", bool, "a potential that is reached is reset in the same step", False),
            REVERSE,
            READ_BEFORE,
        ),
        _spike_type,
        _spike,
        "Leaky integrate-and-fire: x_k = a x_{k-1} + v_k, and after firing (x_{k-1} > theta) "
        "x_k = fired_decay x_{k-1} + fired_gain v_k + fired_offset. Where `immediate`, x_k = a s_{k-1} + v_k, and what "
        "is kept is s_k = x_k, or fired_decay x_k + fired_offset where x_k > theta. The spikes are x_k > theta.",
    ),
)
