"""How a value changes with the state: translate the derivative of nodes that are affine in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssmc.frontend.graph.flow import Flow, Known, Refused, Tracked, Unsupported
from ssmc.frontend.rules.elementwise import binary
from ssmc.frontend.source.listing import Call
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value

# Linear in their first operand; the others are shapes, indices or weights.
LINEAR = frozenset(
    [
        "Identity",
        "Dropout",
        "Cast",
        "Neg",
        "Reshape",
        "Flatten",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Split",
        "Gather",
        "GatherElements",
        "GatherND",
        "Expand",
        "Tile",
        "Pad",
        "ReduceSum",
        "ReduceMean",
        "Conv",
    ]
)
SUMS = frozenset(["Add", "Sub", "Sum", "Concat"])
SIZES = frozenset(["Shape", "Size"])
WRITES = frozenset(["ScatterElements", "ScatterND"])
PRODUCTS = frozenset(["Mul", "MatMul", "Gemm", "Einsum", "Div", "FusedMatMul"])


def tangents(
    translator: Translator, calls: Sequence[Call], seeds: Mapping[Value, Tracked], wanted: Sequence[Value]
) -> list[Tracked]:
    """d(wanted) along `seeds`, a direction of the state, through `calls`, which are affine in it.

    `translator` knows every operand of the calls, those that depend on the state at state zero.
    Raises Unsupported where a node is not known to be affine.
    """
    known: dict[Value, Tracked] = dict(seeds)
    for call in calls:
        if call.kind in SIZES or not any(v in known for v in call.operands):
            continue
        with translator.builder.origin(call.provenance):
            for value, tracked in zip(call.results, _tangent(translator, call, known), strict=False):
                known[value] = tracked
    zero = Known(np.zeros(()))
    return [known.get(value, zero) for value in wanted]


def _tangent(translator: Translator, call: Call, known: Mapping[Value, Tracked]) -> list[Tracked]:
    items: list[Any] = [None if v is None else translator.lookup(v) for v in call.operands]
    if any(isinstance(item, Refused) for item in items):
        raise Unsupported("an operand could not be translated")
    moving = [slot for slot, v in enumerate(call.operands) if v is not None and v in known]
    parts = {slot: known[call.operands[slot]] for slot in moving}  # type: ignore[index]
    if call.kind in LINEAR and moving == [0]:
        operands = [parts[0], *items[1:]]
        if call.kind == "Conv":
            operands = operands[:2]
        return translator.apply(call, operands)
    if call.kind == "Where" and 0 not in moving:
        return translator.apply(call, [items[0], *(parts.get(slot, _zero_like(items[slot])) for slot in (1, 2))])
    if call.kind in SUMS:
        return translator.apply(call, [parts.get(slot, _zero_like(item)) for slot, item in enumerate(items)])
    if call.kind in WRITES and 1 not in moving:
        data, updates = (parts.get(slot, _zero_like(items[slot])) for slot in (0, 2))
        return translator.apply(call, [data, items[1], updates])
    if call.kind in PRODUCTS and not (call.kind == "Div" and 1 in moving):
        total: Flow | Known | None = None
        if call.kind == "Gemm":
            items = items[:2]
        for slot in moving:
            if slot >= len(items):
                term: Any = parts[slot]
            else:
                term = translator.apply(call, [parts[slot] if i == slot else item for i, item in enumerate(items)])[0]
            total = term if total is None else _added(translator, total, term)
        return [total if total is not None else Known(np.zeros(()))]
    raise Unsupported("it is not linear in the state")


def _added(translator: Translator, a: Flow | Known, b: Flow | Known) -> Flow | Known:
    if isinstance(a, Known) and isinstance(b, Known):
        return Known(np.asarray(a.array) + np.asarray(b.array))
    return binary(translator.builder, "add", a, b)


def _zero_like(item: Flow | Known) -> Known:
    return Known(np.zeros(item.shape))
