"""A model without the rounding of what it computes: a state that is rounded at every step is no linear system.

Weights keep theirs. What is left out is a pair of QuantizeLinear and DequantizeLinear, a Round with the Clip that
belongs to it, or a DynamicQuantizeLinear in front of products: the model before it was quantised, but for its weights.
That is another model: by how much is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ssmc.ir.graph import Graph, Node, Value
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor
from ssmc.ir.types import TensorType

ROUNDING = ("onnx.QuantizeLinear", "onnx.Round")
STEPS = (*ROUNDING, "onnx.Floor", "onnx.Ceil")  # which may round, or compute something else
SCALING = ("onnx.Mul", "onnx.Div", "onnx.Add", "onnx.Sub")
LAYOUT = {
    f"onnx.{kind}"
    for kind in ("Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Slice", "Split", "Gather", "MaxPool")
}
PRODUCTS = {"onnx.MatMulInteger": "MatMul", "onnx.ConvInteger": "Conv"}
LOWEST = {"uint8": 0, "int8": -128, "uint16": 0, "int16": -32768, "uint4": 0, "int4": -8}


def rounds(graph: Graph) -> bool:
    """Is anything that the model computes rounded?"""
    return any(True for _ in graph.nodes(*STEPS)) or any(rounds(body) for body in _bodies(graph))


def drop_rounding(graph: Graph, keep_relu: bool = True, kinds: Sequence[str] = ROUNDING) -> list[str]:
    """Leave out the rounding of everything but weights, in place; the names of those nodes of `kinds` that rounded.

    A quantisation whose smallest number is zero is a ReLU too (onnxruntime makes one node of both), which stays unless
    `keep_relu` is false.
    """
    dropped = [name for body in _bodies(graph) for name in drop_rounding(body, keep_relu, kinds)]
    for node in list(graph.nodes("onnx.QuantizeLinear")):
        ends = ends_of(graph, node)
        if ends is None:
            continue
        value = graph.operand(node.name, 0)
        if keep_relu and _from_zero(graph, node):
            value = _relu(graph, value, node)
        graph.replace_uses(Value(node.name), value)
        for end in ends:
            graph.replace_uses(Value(end.name), graph.operand(end.name, 0))
        dropped.append(_named(node))
    for node in list(graph.nodes(*(kind for kind in kinds if kind != "onnx.QuantizeLinear"))):
        for clip in (*_clips_before(graph, node), *_clips_after(graph, node)):
            graph.replace_uses(Value(clip.name), graph.operand(clip.name, 0))
        graph.replace_uses(Value(node.name), graph.operand(node.name, 0))
        dropped.append(_named(node))
    dropped += [_named(node) for node in list(graph.nodes("onnx.DynamicQuantizeLinear")) if _drop_dynamic(graph, node)]
    if dropped:
        _merge_biases(graph)
        graph.prune()
    return dropped


def _clips_before(graph: Graph, node: Node) -> Iterator[Node]:
    """The Clip that bounds what is rounded, scaled and shifted by constants meanwhile or not."""
    while graph.operands(node.name):
        node = graph.node(graph.operand(node.name, 0).node)
        if node.op.name == "onnx.Clip":
            yield node
        if not _by_constants(graph, node):
            return


def _clips_after(graph: Graph, node: Node) -> Iterator[Node]:
    """The Clip that bounds what was rounded, scaled and shifted by constants meanwhile or not."""
    while len(users := graph.users(Value(node.name))) == 1:
        node = graph.node(users[0][0])
        if node.op.name == "onnx.Clip" and not users[0][1]:
            yield node
        if not _by_constants(graph, node):
            return


def _by_constants(graph: Graph, node: Node) -> bool:
    """Does it only scale or shift its first operand?"""
    return node.op.name in SCALING and _constant(graph, node.name, 1) is not None


def _drop_dynamic(graph: Graph, node: Node) -> bool:
    """Let the products of what this node rounds, by a scale that it computes, be those of what it is given.

    False where its integers go elsewhere too.
    """
    rounded, scale, zero = (Value(node.name, k) for k in range(3))
    users = [graph.node(user) for user, _ in graph.users(rounded)]
    weights = [_constant(graph, user.name, 1) for user in users if user.op.name in PRODUCTS]
    places = {slot for _, slot in graph.users(rounded)}
    if places != {0} or len(weights) != len(users) or any(w is None for w in weights):
        return False
    if any(graph.operands(user.name)[2:3] != [zero] for user in users):
        return False
    source = graph.operand(node.name, 0)
    for user, weight in zip(users, weights, strict=True):
        shift = _constant(graph, user.name, 3)
        kind = PRODUCTS[user.op.name]
        assert weight is not None
        if shift is not None and kind == "Conv":
            shift = shift.reshape(-1, *[1] * (weight.ndim - 1))
        centred = Tensor(weight.astype(np.float64) - (0 if shift is None else shift))
        value = graph.add("constant", [], {"value": centred}, types=(TensorType(centred.shape, "float64"),))
        proto = onnx.NodeProto()
        proto.CopyFrom(user.op["node"])
        proto.op_type = kind
        made = graph.add(
            f"onnx.{kind}",
            [source, value],
            {**user.op.attrs, "node": proto},
            types=user.types,
            provenance=user.provenance,
        )
        graph.replace_uses(Value(user.name), made)
    one = graph.add("constant", [], {"value": Tensor(np.ones(()))}, types=(TensorType((), "float64"),))
    graph.replace_uses(scale, one)
    return True


def _merge_biases(graph: Graph) -> None:
    """A bias that several nodes have, each rounded by its own scale, as one: copies of a layer, one for each step."""
    found: list[tuple[Value, Array, Array]] = []
    for node in list(graph.nodes("onnx.DequantizeLinear")):
        numbers, scale = _constant(graph, node.name, 0), _scale(graph, node.name)
        if numbers is None or scale is None or getattr(graph.type(graph.operand(node.name, 0)), "dtype", "") != "int32":
            continue
        bias = numbers * scale
        for other, near, step in found:
            if near.shape == bias.shape and np.all(np.abs(near - bias) <= np.maximum(scale, step)):
                graph.replace_uses(Value(node.name), other)
                break
        else:
            found.append((Value(node.name), bias, scale))


def ends_of(graph: Graph, node: Node) -> list[Node] | None:
    """The nodes that make real numbers again of what this one rounds; None where its integers are read otherwise."""
    found, waiting = [], [Value(node.name)]
    while waiting:
        for user, slot in graph.users(waiting.pop()):
            after = graph.node(user)
            if after.op.name == "onnx.DequantizeLinear" and slot == 0 and _same(graph, node, after):
                found.append(after)
            elif after.op.name == "onnx.Split" and slot == 0:
                waiting += [Value(user, k) for k in range(len(after.types))]
            elif after.op.name in LAYOUT and slot == 0 and len(after.types) == 1:
                waiting.append(Value(user))
            else:
                return None
    return found


def _bodies(graph: Graph) -> list[Graph]:
    return [body for node in graph.nodes() for body in (node.op.get("regions") or {}).values()]


def _named(node: Node) -> str:
    return next(iter(node.provenance), node.name)


def _constant(graph: Graph, name: str, slot: int) -> Array | None:
    values = graph.operands(name)
    value = values[slot] if slot < len(values) else None
    op = None if value is None else graph.op(value.node)
    return None if op is None or op.name != "constant" else np.asarray(op["value"].array)


def _scale(graph: Graph, name: str) -> Array | None:
    """The scale of a dequantisation, which may be the product of two."""
    maker = graph.operand(name, 1).node
    if graph.op(maker).name != "onnx.Mul":
        return _constant(graph, name, 1)
    one, other = _constant(graph, maker, 0), _constant(graph, maker, 1)
    return None if one is None or other is None else np.asarray(one * other)


def _same(graph: Graph, first: Node, second: Node) -> bool:
    """Are scale and zero point of both the same?"""
    for slot in (1, 2):
        one, other = (_constant(graph, node.name, slot) for node in (first, second))
        if one is None or other is None:
            if one is not other:
                return False
        elif not np.array_equal(one, other):
            return False
    return _constant(graph, first.name, 1) is not None


def _from_zero(graph: Graph, node: Node) -> bool:
    """Is the smallest number zero, of numbers that are quantised so?"""
    zero = _constant(graph, node.name, 2)
    lowest = LOWEST.get(_dtype(graph, node), 0)
    return bool(np.all((0 if zero is None else zero) == lowest))


def _dtype(graph: Graph, node: Node) -> str:
    operands: list[Any] = graph.operands(node.name)
    return "uint8" if len(operands) < 3 else str(getattr(graph.type(operands[2]), "dtype", "uint8"))


def _relu(graph: Graph, value: Value, like: Node) -> Value:
    node = helper.make_node("Relu", ["x"], ["y"], name=_named(like))
    attrs = {"node": node, "version": 14, "opset": like.op["opset"], "regions": {}, "captured": 0}
    return graph.add("onnx.Relu", [value], attrs, types=(graph.type(value),), provenance=like.provenance)
