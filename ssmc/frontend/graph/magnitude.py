"""How large a value can become, as far as the last few ops that make it tell."""

from __future__ import annotations

from math import inf, sqrt

import numpy as np

from ssmc.frontend.graph.builder import features_of
from ssmc.ir.graph import Graph, Value
from ssmc.ir.op import Op

DEPTH = 12  # ops that are looked back (ours)
BELOW_ONE = frozenset(["tanh", "sigmoid", "hardsigmoid", "erf", "sin", "cos", "softsign", "sign", "heaviside"])
NOT_LARGER = frozenset(["identity", "neg", "abs", "relu", "gelu", "gelu_tanh", "silu", "hardswish", "mish"])
MOVES = frozenset(["reshape", "transpose", "take", "slice", "broadcast", "concat", "spread", "delay", "reverse"])


def magnitude(graph: Graph, value: Value, depth: int = DEPTH) -> float:
    """A bound on the absolute value of every entry, whatever the model is given; `inf` where none is seen."""
    op = graph.op(value.node)
    if op.name == "constant":
        return _largest(op, "value")
    if op.name == "unary" and op["fn"] in BELOW_ONE:
        return 1.0
    operands = [v for v in graph.operands(value.node) if v is not None]
    if op.name == "norm":  # of a row of n numbers with mean square one
        return sqrt(features_of(graph, operands[0])[-1]) * _largest(op, "scale", 1.0) + _largest(op, "shift", 0.0)
    if depth == 0 or op.name not in {"linear", "binary", "unary", *MOVES}:
        return inf
    bounds = [magnitude(graph, v, depth - 1) for v in operands]
    if op.name == "linear":
        columns = float(np.abs(op["weight"].array).sum(axis=0).max(initial=0.0))
        return (bounds[0] * columns if columns else 0.0) + _largest(op, "bias", 0.0)
    if op.name == "binary":
        return sum(bounds) if op["fn"] in ("add", "sub") else inf
    if op.name == "unary":
        return bounds[0] if op["fn"] in NOT_LARGER else inf
    return max(bounds)


def _largest(op: Op, name: str, otherwise: float = inf) -> float:
    tensor = op.get(name)
    return otherwise if tensor is None else float(np.abs(tensor.array).max(initial=0.0))
