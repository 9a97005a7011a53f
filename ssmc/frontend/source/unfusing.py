"""Ops into which onnxruntime fuses others when it optimises or quantises a model, as what they were.

Source: onnxruntime, docs/ContribOperators.md. The new nodes carry the fused one's name, so that provenance stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import onnx
from onnx import helper

from ssmc.diagnostics import UserError
from ssmc.frontend.source.unquantizing import QUANTIZED

DOMAIN = "com.microsoft"
PLAIN = ("Relu", "Tanh", "Sigmoid")


def unfused(nodes: Any, scalars: Collection[str] = ()) -> list[onnx.NodeProto]:
    """The nodes of a graph, each fused one replaced by several. `scalars` are weights that are one number.

    Integers that several ops read become real numbers once, so that what lies behind a rounding is one value.
    Raises UserError for a fused activation unknown.
    """
    found: list[onnx.NodeProto] = []
    real: dict[tuple[str, ...], str] = {}  # of integers, their scale and zero point
    for node in nodes:
        if node.op_type == "DequantizeLinear":
            real.setdefault(_scaled(node, scalars), node.output[0])
    for node in nodes:
        rule = RULES.get(node.op_type) if node.domain == DOMAIN else None
        rule = rule or (QUANTIZED.get(node.op_type) if node.domain in (DOMAIN, "", "ai.onnx") else None)
        found += [node] if rule is None else _once(_Parts(node, rule), real, scalars)
    return found


def _once(parts: Iterable[onnx.NodeProto], real: dict[tuple[str, ...], str], scalars: Collection[str]) -> Any:
    """The parts of a node, without what makes real numbers that are there already."""
    names: dict[str, str] = {}
    for node in parts:
        if node.op_type == "DequantizeLinear":
            known = real.setdefault(_scaled(node, scalars), node.output[0])
            if known != node.output[0]:
                names[node.output[0]] = known
                continue
        for slot, name in enumerate(node.input):
            node.input[slot] = names.get(name, name)
        yield node


def _scaled(node: onnx.NodeProto, scalars: Collection[str]) -> tuple[str, ...]:
    """What tells real numbers that are made of integers: the axis does not where there is one scale."""
    axis = next((str(a.i) for a in node.attribute if a.name == "axis"), "1")
    return (*node.input, *(() if node.input[1] in scalars else (axis,)))


class _Parts:
    """Collects the nodes that stand for a fused one; values are their names."""

    def __init__(self, node: onnx.NodeProto, rule: Callable[[_Parts], None]) -> None:
        self.node = node
        self.attrs: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self.nodes: list[onnx.NodeProto] = []
        rule(self)

    def __iter__(self) -> Iterator[onnx.NodeProto]:
        return iter(self.nodes)

    def count(self) -> int:
        return len(self.node.input)

    def operand(self, slot: int) -> str:
        return self.node.input[slot] if slot < len(self.node.input) else ""

    def op(self, kind: str, *operands: str, result: int | None = None, **attrs: Any) -> str:
        """Add a node; it gives the fused node's result of this number, or a value of its own."""
        outputs = self.node.output
        own = f"{next(name for name in outputs if name)}/{len(self.nodes)}"
        name = own if result is None or result >= len(outputs) else outputs[result] or own
        self.nodes.append(helper.make_node(kind, list(operands), [name], name=self.node.name, **attrs))
        return name

    def summed(self, x: str, slot: int, result: int | None = None) -> str:
        """x and an operand that may be left out."""
        other = self.operand(slot)
        return self.op("Add", x, other, result=result) if other else x

    def activate(self, x: str) -> None:
        """The activation that ends FusedConv and FusedGemm."""
        kind = self.attrs.get("activation", b"").decode()
        alpha, beta = (*self.attrs.get("activation_params", ()), 0.0, 0.0)[:2]
        alpha, beta = self.attrs.get("activation_alpha", alpha), self.attrs.get("activation_beta", beta)
        if kind in PLAIN:
            self.op(kind, x, result=0)
        elif kind == "LeakyRelu":
            self.op(kind, x, result=0, alpha=alpha)
        elif kind == "HardSigmoid":
            self.op(kind, x, result=0, alpha=alpha, beta=beta)
        elif kind == "Clip":
            low, high = (self.op("Constant", value_float=value) for value in (alpha, beta))
            self.op(kind, x, low, high, result=0)
        elif not kind:
            self.op("Identity", x, result=0)
        else:
            raise UserError(
                f"the activation '{kind}' fused into a {self.node.op_type} is not known",
                where=f"node '{self.node.name or self.node.output[0]}'",
                hint="give the model as it was before onnxruntime optimised it",
            )

    def kept(self, *names: str) -> dict[str, Any]:
        return {name: self.attrs[name] for name in names if name in self.attrs}


def _conv(p: _Parts) -> None:
    attrs = p.kept("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    y = p.op("Conv", *(p.node.input[:3]), **attrs)
    p.activate(p.summed(y, 3))


def _gemm(p: _Parts) -> None:
    p.activate(p.op("Gemm", *p.node.input, **p.kept("alpha", "beta", "transA", "transB")))


def _gelu(**attrs: Any) -> Callable[[_Parts], None]:
    def rule(p: _Parts) -> None:
        p.op("Gelu", p.summed(p.operand(0), 1), result=0, **attrs)

    return rule


def _quick_gelu(p: _Parts) -> None:
    """x sigmoid(alpha x)."""
    alpha = p.op("Constant", value_float=p.attrs.get("alpha", 1.702))
    p.op("Mul", p.operand(0), p.op("Sigmoid", p.op("Mul", p.operand(0), alpha)), result=0)


def _skip_norm(kind: str, parameters: int) -> Callable[[_Parts], None]:
    """The norm of a sum; the sum is the fourth result."""

    def rule(p: _Parts) -> None:
        bias = 2 + parameters
        total = p.op("Add", p.operand(0), p.operand(1), result=None if p.operand(bias) else 3)
        total = p.summed(total, bias, result=3)
        scale = [p.operand(slot) for slot in range(2, bias) if p.operand(slot)]
        p.op(kind, total, *scale, result=0, axis=-1, epsilon=p.attrs.get("epsilon", 1e-5))

    return rule


def _embedding(p: _Parts) -> None:
    """The norm of embeddings of words, of positions and, if there are any, of segments; the sum is the third result."""
    total = p.op("Gather", p.operand(2), p.operand(0), axis=0)
    if p.operand(8):
        positions = p.op("Gather", p.operand(3), p.operand(8), axis=0)
    else:
        zero, one = (p.op("Constant", value_ints=[n]) for n in (0, 1))
        steps = p.op("Gather", p.op("Shape", p.operand(0)), one, axis=0)
        positions = p.op("Slice", p.operand(3), zero, steps, zero)
    segments = bool(p.operand(1) and p.operand(4))
    total = p.op("Add", total, positions, result=None if segments else 2)
    if segments:
        total = p.op("Add", total, p.op("Gather", p.operand(4), p.operand(1), axis=0), result=2)
    p.op(
        "LayerNormalization",
        total,
        p.operand(5),
        p.operand(6),
        result=0,
        axis=-1,
        epsilon=p.attrs.get("epsilon", 1e-12),
    )


RULES: dict[str, Callable[[_Parts], None]] = {
    "FusedConv": _conv,
    "FusedGemm": _gemm,
    "BiasGelu": _gelu(),
    "FastGelu": _gelu(approximate="tanh"),
    "QuickGelu": _quick_gelu,
    "EmbedLayerNormalization": _embedding,
    "SkipLayerNormalization": _skip_norm("LayerNormalization", 2),
    "SkipSimplifiedLayerNormalization": _skip_norm("SimplifiedLayerNormalization", 1),
}
