"""Nodes that compute the same thing become one."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmc.ir.graph import Graph, Value
from ssmc.ir.tensor import Tensor
from ssmc.statespace import StateSpace


def merge_duplicates(graph: Graph) -> dict[str, str]:
    """Merge equal nodes with equal operands, in place; removed name -> the name of the one that stays."""
    first: dict[Any, str] = {}
    renamed: dict[str, str] = {}
    for name in graph.order():
        node = graph.node(name)
        if node.op.name in ("input", "output"):
            continue
        attrs = tuple((key, _key(value)) for key, value in sorted(node.op.attrs.items()))
        key = (node.op.name, attrs, tuple(graph.operands(name)))
        same = first.setdefault(key, name)
        if same == name:
            continue
        for index in range(len(node.types)):
            graph.replace_uses(Value(name, index), Value(same, index))
        graph.add_provenance(same, *node.provenance)
        graph.remove(name)
        renamed[name] = same
    return renamed


def _key(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.digest
    if isinstance(value, StateSpace):
        arrays = (value.A, value.B, value.C, value.D, value.delta, value.x0)
        flags = (value.halved, value.real_output, value.read_before, value.asynchronous)
        return (*(None if a is None else (a.shape, np.asarray(a).tobytes()) for a in arrays), *flags)
    return value
