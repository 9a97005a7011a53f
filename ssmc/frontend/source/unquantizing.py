"""Ops on quantised numbers (QOperator format) as the same on real numbers between a dequantisation and a quantisation.

Source: onnx, docs/Operators.md; onnxruntime, docs/ContribOperators.md. Every operand of them is three: integers, their
scale and their zero point; the scale and zero point of the result stand last, of `QLinearConcat` first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol


class Fused(Protocol):
    """A node under replacement, as `unfusing` gives it."""

    attrs: Mapping[str, Any]

    def operand(self, slot: int) -> str:
        """The name of an operand, empty where it is left out."""

    def count(self) -> int:
        """How many operands there are."""

    def op(self, kind: str, *operands: str, result: int | None = None, **attrs: Any) -> str:
        """Add a node; its result."""

    def kept(self, *names: str) -> dict[str, Any]:
        """Those of the attributes that are there."""


Rule = Callable[[Any], None]
CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")


def _real(p: Fused, slot: int, axis: int = 1) -> str:
    """The real numbers of three operands, of which this is the first."""
    given = [p.operand(slot + k) for k in range(3)]
    return p.op("DequantizeLinear", *(given if given[2] else given[:2]), axis=axis)


def _rounded(p: Fused, y: str, slot: int) -> None:
    """The result, rounded by the scale and zero point that stand at `slot`."""
    given = [p.operand(slot), p.operand(slot + 1)]
    p.op("QuantizeLinear", y, *(given if given[1] else given[:1]), result=0)


def _elementwise(kind: str, operands: int, *names: str) -> Rule:
    def rule(p: Fused) -> None:
        y = p.op(kind, *(_real(p, 3 * k) for k in range(operands)), **p.kept(*names))
        _rounded(p, y, 3 * operands)

    return rule


def _matmul(p: Fused) -> None:
    _rounded(p, p.op("MatMul", _real(p, 0, -2), _real(p, 3, -1)), 6)


def _bias(p: Fused, slot: int) -> Sequence[str]:
    """A bias, in units of the product of the two operands' scales."""
    return [p.op("DequantizeLinear", p.operand(slot), p.op("Mul", p.operand(1), p.operand(4)), axis=0)]


def _conv(p: Fused) -> None:
    bias = _bias(p, 8) if p.operand(8) else []
    _rounded(p, p.op("Conv", _real(p, 0), _real(p, 3, 0), *bias, **p.kept(*CONV)), 6)


def _gemm(p: Fused) -> None:
    bias = _bias(p, 6) if p.operand(6) else []
    axis = 0 if p.attrs.get("transB", 0) else 1
    attrs = p.kept("alpha", "transA", "transB")
    operands = (_real(p, 0, 0), _real(p, 3, axis), *bias)
    if p.operand(7):
        _rounded(p, p.op("Gemm", *operands, **attrs), 7)
    else:
        p.op("Gemm", *operands, **attrs, result=0)


def _concat(p: Fused) -> None:
    _rounded(p, p.op("Concat", *(_real(p, slot) for slot in range(2, p.count(), 3)), **p.kept("axis")), 0)


def _where(p: Fused) -> None:
    _rounded(p, p.op("Where", p.operand(0), _real(p, 1), _real(p, 4)), 7)


QUANTIZED: dict[str, Rule] = {
    "QLinearMatMul": _matmul,
    "QLinearConv": _conv,
    "QGemm": _gemm,
    "QLinearConcat": _concat,
    "QLinearWhere": _where,
    "QLinearAdd": _elementwise("Add", 2),
    "QLinearMul": _elementwise("Mul", 2),
    "QLinearSigmoid": _elementwise("Sigmoid", 1),
    "QLinearLeakyRelu": _elementwise("LeakyRelu", 1, "alpha"),
    "QLinearSoftmax": _elementwise("Softmax", 1, "axis"),
    "QLinearReduceMean": _elementwise("ReduceMean", 1, "axes", "keepdims"),
    "QLinearGlobalAveragePool": _elementwise("GlobalAveragePool", 1),
    "QLinearAveragePool": _elementwise("AveragePool", 1, *POOL),
}
