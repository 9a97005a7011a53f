"""The standard's recurrent networks: `RNN` is a linear system where its activation is affine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmc.frontend.findings import Lift
from ssmc.frontend.graph.builder import Operand
from ssmc.frontend.graph.contraction import einsum
from ssmc.frontend.graph.flow import Flow, Known, Tracked, Unsupported, known_operand, wrap
from ssmc.frontend.rules.context import Context, Rule, flow_of, known_of
from ssmc.frontend.rules.elementwise import binary
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import text
from ssmc.frontend.source.refused import refused_for
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.statespace import StateSpace


@dataclass(frozen=True)
class _Weights:
    """h <- A h + B x + b of one direction."""

    A: Array
    B: Array
    b: Array


def _rnn(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """h_t = f(W x_t + R h_{t-1} + Wb + Rb) with f(x) = alpha x + beta (ONNX operator RNN-14)."""
    reason = refused_for(call.kind, call.attrs)
    if reason is not None:
        raise Unsupported(reason)
    items = [*items, *[None] * (6 - len(items))]
    flow, batch_first = flow_of(items[0]), bool(call.attrs.get("layout", 0))
    if flow.axes != ("btf" if batch_first else "tbf"):
        raise Unsupported(f"its axes are not {'batch, time' if batch_first else 'time, batch'}, features")
    if "clip" in call.attrs:
        raise Unsupported("it clips what enters its activation, so that its state is not linear")
    length = flow.shape[flow.axes.index("t")]
    if items[4] is not None and bool((np.asarray(known_of(items[4], "sequence_lens")) != length).any()):
        raise Unsupported("some of its sequences end before the others")
    direction = text(call.attrs.get("direction", b"forward"))
    backward = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    found = [
        _direction(context, call, flow, _weights(call, items, d), _initial(context, items[5], d, batch_first), back)
        for d, back in enumerate(backward)
    ]
    builder, states = context.builder, found[0][2]
    batch = flow.shape[flow.axes.index("b")]
    whole = builder.concat([builder.reshape(y, (1, states)) for y, _, _ in found], -2)
    last = builder.concat([builder.reshape(x, (1, states)) for _, x, _ in found], -2)
    if batch_first:
        return [
            wrap(whole, "btff", (batch, length, len(found), states)),
            wrap(last, "bff", (batch, len(found), states)),
        ]
    return [wrap(whole, "tfbf", (length, len(found), batch, states)), wrap(last, "fbf", (len(found), batch, states))]


def _weights(call: Call, items: Sequence[Any], d: int) -> _Weights:
    wide, states = (np.asarray(known_of(items[k], "weights"), np.float64)[d] for k in (1, 2))
    bias = np.zeros(2 * len(states)) if items[3] is None else np.asarray(known_of(items[3], "bias"), np.float64)[d]
    alpha, beta = (list(call.attrs.get(f"activation_{name}") or []) for name in ("alpha", "beta"))
    if d >= len(alpha):
        raise Unsupported("its activation has no activation_alpha: onnxruntime takes 0, so that its state is constant")
    gain, shift = alpha[d], beta[d] if d < len(beta) else 0.0
    return _Weights(gain * states, gain * wide, gain * bias.reshape(2, -1).sum(axis=0) + shift)


def _initial(context: Context, item: Flow | Known | None, d: int, batch_first: bool) -> Operand | None:
    """The states of one direction before its first step; None where they are zero."""
    if item is None or (isinstance(item, Known) and not np.any(item.array)):
        return None
    builder = context.builder
    if isinstance(item, Known):
        one = np.take(np.asarray(item.array, np.float64), d, axis=1 if batch_first else 0)
        return builder.constant(known_operand(builder, one, "bf"))  # type: ignore[arg-type]
    if item.axes != ("bff" if batch_first else "fbf"):
        raise Unsupported("the axes of its initial states are not directions, batch, states")
    return builder.reshape(builder.slice(item.value, -2, d, d + 1), item.features[1:])


def _direction(
    context: Context, call: Call, flow: Flow, weights: _Weights, x0: Operand | None, backward: bool
) -> tuple[Value, Value, int]:
    """(states of all steps, the last ones, how many there are)."""
    builder, states = context.builder, len(weights.A)
    driven = einsum(builder, [flow.axes[:2] + "i", "hi"], flow.axes[:2] + "h", [flow, Known(weights.B)])
    driven = binary(builder, "add", driven, Known(weights.b))
    assert isinstance(driven, Flow)
    one = np.eye(states)[None]
    system = StateSpace(A=weights.A[None], B=one, C=one, D=0 * one)
    y, last = builder.recurrent("ssm", [driven.value, None, x0], system=system, reverse=backward)
    context.findings.lifts.append(Lift(last.node, call.kind, call.provenance, 0.0))
    return y, last, states


RULES: dict[str, Rule] = {"RNN": _rnn}
