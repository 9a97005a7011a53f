"""The SSM-shaped ops of the ONNX standard (opset 27) and of com.microsoft: LinearAttention, CausalConvWithState."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ssmc.frontend.findings import Lift
from ssmc.frontend.graph.builder import Operand
from ssmc.frontend.graph.contraction import einsum
from ssmc.frontend.graph.flow import Flow, Known, Tracked, Unsupported, known_operand, wrap
from ssmc.frontend.rules.context import Context, Rule, flow_of, known_of
from ssmc.frontend.rules.elementwise import binary, scalar, unary
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import text
from ssmc.ir.graph import Value
from ssmc.ir.tensor import Tensor


def _linear_attention(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """S_k = exp(g_k) S_{k-1} + k_k v_k^T, o_k = scale q_k^T S_k, a head at a time; decays and keys may be constants."""
    rule = text(call.attrs.get("update_rule", b"gated_delta"))
    if rule not in ("linear", "gated"):
        raise Unsupported(f"its update rule '{rule}' multiplies the state by a matrix that depends on the data")
    items = [*items, *[None] * (6 - len(items))]
    if all(isinstance(item, Known) for item in items[1:3]):
        raise Unsupported("neither its keys nor its values depend on the input")
    heads, readers = int(call.attrs["kv_num_heads"]), int(call.attrs["q_num_heads"])
    query, key, value = (
        _heads(context, item, shape)
        for item, shape in zip(items[:3], ((heads, readers // heads), (heads,), (heads,)), strict=True)
    )
    written = einsum(context.builder, ["bthk", "bthv"], "bthkv", [key, value])
    assert isinstance(written, Flow)
    decay: Operand = np.ones(())
    if rule == "gated":
        per_head = items[4].shape[-1] == heads
        gate = _heads(context, items[4], (heads,), 1 if per_head else 0)
        grown = Known(np.exp(gate.array)) if isinstance(gate, Known) else unary(context.builder, "exp", gate)
        if isinstance(grown, Known):
            decay = known_operand(context.builder, np.asarray(grown.array), "btff")
        else:
            assert isinstance(grown, Flow)
            decay = grown.value
        decay = context.builder.reshape(decay, (*context.builder.features(decay), 1))
    y, last = _recurrence(context, decay, written, items[3])
    context.findings.lifts.append(Lift(last.node, "LinearAttention", call.provenance, 0.0))
    scale = float(call.attrs.get("scale", 0.0)) or query.shape[-1] ** -0.5
    read = einsum(context.builder, ["bthrk", "bthkv"], "bthrv", [query, Flow(y, written.axes, written.shape)])
    assert isinstance(read, Flow)
    flat = (*read.shape[:2], prod(read.shape[2:]))
    found = wrap(context.builder.reshape(read.value, flat[2:]), "btf", flat)
    final = Flow(last, "bfff", (written.shape[0], *written.features))
    return [binary(context.builder, "mul", found, scalar(scale)), final]


def _recurrence(context: Context, decay: Operand, written: Flow, past: Any) -> tuple[Value, Value]:
    x0: Operand | None = None
    if isinstance(past, Flow):
        x0 = past.value
    elif isinstance(past, Known) and np.any(past.array):
        x0 = context.builder.constant(known_operand(context.builder, np.asarray(past.array), "bfff"))  # type: ignore[arg-type]
    full = context.builder.broadcast(decay, written.features)
    return context.builder.recurrent("recurrence", [full, written.value, x0])


def _heads(context: Context, item: Flow | Known, heads: tuple[int, ...], width: int = 0) -> Flow | Known:
    """The last axis (heads * width) taken apart."""
    if isinstance(item, Flow) and item.axes != "btf":
        raise Unsupported("its axes are not batch, time, features")
    width = width or item.shape[-1] // prod(heads)
    shape = (*item.shape[:2], *heads, width)
    if isinstance(item, Known):
        return Known(np.asarray(item.array).reshape(shape))
    found = wrap(context.builder.reshape(item.value, shape[2:]), "bt" + "f" * (len(shape) - 2), shape)
    assert isinstance(found, Flow)
    return found


def _causal_conv(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    items = [*items, *[None] * (4 - len(items))]
    flow, builder = flow_of(items[0]), context.builder
    weight = np.asarray(known_of(items[1], "kernel"))
    if flow.axes != "bft":
        raise Unsupported("its axes are not batch, channels, time")
    history: Operand | None = None
    if isinstance(items[3], Flow):
        history = items[3].value
    elif isinstance(items[3], Known) and np.any(items[3].array):
        history = builder.constant(known_operand(builder, np.asarray(items[3].array), "bff"))  # type: ignore[arg-type]
    y, last = builder.recurrent("fir", [flow.value, history], kernel=Tensor(weight[:, 0, ::-1]))
    found: Flow | Known = Flow(y, flow.axes, flow.shape)
    if items[2] is not None:
        found = binary(builder, "add", found, Known(np.asarray(known_of(items[2], "bias")).reshape(-1, 1)))
    assert isinstance(found, Flow)
    result: Tracked = found
    if text(call.attrs.get("activation", b"none")) in ("silu", "swish"):
        result = unary(builder, "silu", found)
    return [result, Flow(last, "bff", (flow.shape[0], flow.shape[1], weight.shape[2] - 1))]


RULES: dict[str, Rule] = {"LinearAttention": _linear_attention, "CausalConvWithState": _causal_conv}
