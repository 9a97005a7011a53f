"""How large values can get, whatever the input: interval arithmetic around zero, from norms and tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ssmc.ir import Graph, Node, Tensor, Value
from ssmc.ir.op import Array
from ssmc.ir.tensor import LARGE

UNKNOWN = math.inf

# |f(x)| <= 1, and |f(x)| <= gain |x| + offset.
_BOUNDED = (
    "tanh",
    "sigmoid",
    "erf",
    "softsign",
    "sin",
    "cos",
    "sign",
    "heaviside",
    "heaviside_or_equal",
    "hardsigmoid",
)
_AFFINE = {
    **dict.fromkeys(
        ("identity", "neg", "abs", "relu", "gelu", "gelu_tanh", "silu", "hardswish", "mish", "elu"), (1, 0)
    ),
    "selu": (1.0507009873554805 * 1.6732632423543772, 0),
    "softplus": (1, math.log(2)),
    "atan": (0, math.pi / 2),
    "asin": (0, math.pi / 2),
    "acos": (0, math.pi),
    "asinh": (1, 0),
}
_SAME = ("reshape", "transpose", "broadcast", "slice", "take", "reverse", "delay", "spread", "output")


def largest_values(graph: Graph) -> dict[Value, float]:
    """Bound on `|value|` of every value of a tile graph; infinite where nothing is known.

    Inputs are not known. Norms, bounded functions and tables are, and what linear nodes make of them by the largest
    absolute row sum (Horn & Johnson, 5.6); a state that decays stays below `|drive| / (1 - |Abar|)` from a zero start.
    """
    found: dict[Value, float] = {}
    for node in graph.nodes():
        operands = [0.0 if value is None else found[value] for value in graph.operands(node.name)]
        rule = _RULES.get(node.op.name)
        bound = UNKNOWN if rule is None else rule(node, operands)
        for value in graph.results(node.name):
            found[value] = float(bound)
    return found


def _unary(fn: str, x: float) -> float:
    if fn in _BOUNDED:
        return 1.0
    if fn == "square":
        return x * x
    if fn in _AFFINE:
        gain, offset = _AFFINE[fn]
        return gain * x + offset
    return UNKNOWN


def _product(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _binary(node: Node, x: list[float]) -> float:
    match node.op["fn"]:
        case "add" | "sub":
            return x[0] + x[1]
        case "mul":
            return _product(*x)
        case "max" | "min":
            return max(x)
        case "greater" | "greater_or_equal" | "equal":
            return 1.0
    return UNKNOWN


def _matmul(node: Node, x: list[float]) -> float:
    weight, bias = node.op["weight"], node.op["bias"]
    shift = 0.0 if bias is None else float(np.abs(bias.array).max(initial=0.0))
    if math.isinf(x[0]):  # any weight is enough
        return UNKNOWN if weight.filled(slice(None), slice(None)) else shift
    return _product(max((float(sums.max(initial=0.0)) for sums in _column_sums(weight)), default=0.0), x[0]) + shift


def _column_sums(weight: Tensor) -> Iterator[Array]:
    """Of absolute values, some columns at a time."""
    rows, columns = weight.shape
    width = max(1, LARGE // max(1, rows))
    for start in range(0, columns, width):
        yield np.abs(weight.part(slice(None), slice(start, start + width))).sum(0)


def _norm(node: Node, x: list[float]) -> float:
    """`n` numbers of mean square 1 stay below `sqrt(n)`."""
    op = node.op
    kind: Any = node.types[0]
    size = math.sqrt(kind.shape[-1] / op["groups"])
    scale = 1.0 if op["scale"] is None else float(np.abs(op["scale"].array).max())
    return size * scale + (0.0 if op["shift"] is None else float(np.abs(op["shift"].array).max()))


def _state(node: Node, x: list[float]) -> float:
    """A step that follows the elapsed time may be zero, and then nothing decays."""
    size = np.abs(node.op["decay"].array)
    if node.op["asynchronous"] or (len(x) > 2 and x[2] > 0) or (size >= 1).any():
        return UNKNOWN if x[0] else 0.0
    turning = math.sqrt(2.0) if node.op["decay"].is_complex else 1.0  # of halves, the pair counts
    return _product(turning * x[0], float((1 / (1 - size)).max(initial=0.0)))


def _constant(node: Node, x: list[float]) -> float:
    return float(np.abs(node.op["value"].array).max(initial=0.0))


def _pool(node: Node, x: list[float]) -> float:
    return UNKNOWN if node.op["kind"] == "sum" else x[0]


_RULES: Mapping[str, Callable[[Node, list[float]], float]] = {
    **dict.fromkeys(_SAME, lambda node, x: x[0]),
    "constant": _constant,
    "unary": lambda node, x: _unary(node.op["fn"], x[0]),
    "gate": lambda node, x: _product(x[0], _unary(node.op["fn"], x[1])),
    "binary": _binary,
    "concat": lambda node, x: max(x),
    "select": lambda node, x: max(x[1:]),
    "softmax": lambda node, x: UNKNOWN if node.op["log"] else 1.0,
    "norm": _norm,
    "embed": lambda node, x: float(np.abs(node.op["table"].stored).max(initial=0.0)),
    "tile.matmul": _matmul,
    "tile.state": _state,
    "pool": _pool,
}
