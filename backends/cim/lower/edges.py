"""Where the program meets the host: inputs, outputs, constants."""

from __future__ import annotations

from typing import Any

from backends.cim.lower.code import Slot
from backends.cim.lower.contexts import Context
from backends.cim.lower.lowering import Lowering, words_of
from isa import Port
from ssmc.ir import Node, StreamType, Value


def _port(state: Lowering, name: str, kind: Any, role: str, binding: dict[str, Any]) -> Port:
    what = "stream" if isinstance(kind, StreamType) else "state" if role == "state" else "sequence"
    dtype = {"complex": "complex128", "index": "int64", "bool": "bool"}.get(kind.element, "float64")
    return Port(name, kind.shape, what, dtype, {"role": role, "core": state.core, **binding})


def lower_input(state: Lowering, node: Node, work: Context) -> None:
    """The host's messages come on a channel of their own, to the first core that wants them."""
    kind = node.types[0]
    context = state.contexts[Value(node.name)]
    channel, state.channels = state.channels, state.channels + 1
    slot = state.result(context)
    state.emit(context, "recv", dst=slot, words=words_of(kind), channel=channel)
    binding: dict[str, Any] = {"channel": channel, "axes": node.op["axes"]}
    if isinstance(kind, StreamType):
        binding |= {"stride": context.stride, "offset": context.offset}
    state.inputs.append(_port(state, node.op["name"], kind, node.op["role"], binding))


def lower_output(state: Lowering, node: Node, work: Context) -> None:
    """Messages to the host, on a channel of their own."""
    kind = node.types[0]
    _, context, _ = state.home[state.graph.operand(node.name, 0)]
    channel, state.channels = state.channels, state.channels + 1
    state.emit(context, "emit", src=state.read(0, context), words=words_of(kind), channel=channel)
    binding = {"channel": channel, "axes": node.op["axes"]}
    state.outputs.append(_port(state, node.op["name"], kind, node.op["role"], binding))


def lower_constant(state: Lowering, node: Node, work: Context) -> None:
    """Constants are loaded by each core that reads them, when it does."""
    state.home[Value(node.name)] = (state.core, Context(0), Slot(-1))
