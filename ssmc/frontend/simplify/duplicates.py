"""Nodes that compute the same thing become one."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmc.frontend.graph.builder import PER_STEP
from ssmc.ir.graph import Graph, Value
from ssmc.ir.tensor import Tensor
from ssmc.ir.types import ConstantType, StreamType
from ssmc.statespace import StateSpace

SAME_STEPS = PER_STEP | {"ssm", "recurrence", "fir", "delay", "reverse", "spike", "rounded", "rounded_sums"}


def merge_duplicates(graph: Graph) -> dict[str, str]:
    """Merge equal nodes with equal operands, in place; removed name -> the name of the one that stays."""
    first: dict[Any, str] = {}
    renamed: dict[str, str] = {}
    for name in graph.order():
        node = graph.node(name)
        if node.op.name in ("input", "output"):
            continue
        attrs = tuple((key, _key(value)) for key, value in sorted(node.op.attrs.items()))
        key = (node.op.name, attrs, _operands(graph, name))
        same = first.setdefault(key, name)
        if same == name:
            continue
        for index in range(len(node.types)):
            graph.replace_uses(Value(name, index), Value(same, index))
        graph.add_provenance(same, *node.provenance)
        graph.remove(name)
        renamed[name] = same
    return renamed


def merge_last_states(graph: Graph) -> dict[str, str]:
    """Let a recurrence of which only the last state is used take that of one that is read at another place of a step.

    In place; removed name -> the name of the one that stays.
    """
    by_system: dict[Any, list[str]] = {}
    for node in graph.nodes("recurrence", "spike", "rounded", "rounded_sums"):
        attrs = sorted(
            (key, _key(value)) for key, value in node.op.attrs.items() if key not in ("reached", "read_before")
        )
        key = (node.op.name, tuple(attrs), tuple(graph.operands(node.name)))
        by_system.setdefault(key, []).append(node.name)
    renamed: dict[str, str] = {}
    for names in by_system.values():
        read = [name for name in names if graph.users(Value(name))]
        for name in names:
            if read and name not in read:
                graph.replace_uses(Value(name, 1), Value(read[0], 1))
                graph.add_provenance(read[0], *graph.node(name).provenance)
                graph.remove(name)
                renamed[name] = read[0]
    return renamed


def _operands(graph: Graph, name: str) -> tuple[Value | None, ...]:
    """Operands of a node; of one that repeats a constant for the steps of a stream, where these steps come from."""
    values = graph.operands(name)
    if graph.op(name).name == "spread" and isinstance(graph.type(graph.operand(name, 0)), ConstantType):
        return values[0], _steps_of(graph, graph.operand(name, 1))
    return tuple(values)


def _steps_of(graph: Graph, stream: Value) -> Value:
    """The first stream with the same steps, as far as the ops that make this one tell."""
    while graph.op(stream.node).name in SAME_STEPS and stream.index == 0:
        before = (v for v in graph.operands(stream.node) if v is not None)
        found = next((v for v in before if isinstance(graph.type(v), StreamType)), None)
        if found is None:
            break
        stream = found
    return stream


def _key(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.digest
    if isinstance(value, StateSpace):
        arrays = (value.A, value.B, value.C, value.D, value.delta, value.x0)
        flags = (value.halved, value.real_output, value.read_before, value.asynchronous)
        return (*(None if a is None else (a.shape, np.asarray(a).tobytes()) for a in arrays), *flags)
    return value
