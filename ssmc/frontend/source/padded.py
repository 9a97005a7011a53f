"""Rounding behind a padding with zeros, in front of it: zero stays zero, and steps are rounded by themselves.

Quantisation tools round what a node is given, as the padded input of a convolution over time; the padding belongs to
the convolution. Files in which codes are handed on (QOperator) pad with the zero point: a padding with zeros, too.
"""

from __future__ import annotations

import numpy as np

from ssmc.frontend.source.operands import text
from ssmc.frontend.source.rounding import ends_of
from ssmc.ir.graph import Graph, Node, Value

LAYOUT = frozenset(
    f"onnx.{kind}" for kind in ("Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Identity", "Cast")
)


def round_before_padding(graph: Graph) -> Graph:
    """The graph with each rounding by one scale moved in front of the zeros that are put around what it rounds."""
    if not any(True for _ in graph.nodes("onnx.Pad")) or not any(True for _ in graph.nodes("onnx.QuantizeLinear")):
        return graph
    moved = graph.copy()
    count = sum(_pad_numbers(moved, node) for node in list(moved.nodes("onnx.Pad")))
    for node in list(graph.nodes("onnx.QuantizeLinear")):
        chain = _from_padding(moved, node)
        if not chain:
            continue
        ends = ends_of(moved, node)
        if not ends or any(moved.operand(end.name, 0) != Value(node.name) for end in ends):
            continue
        value = _again(moved, node, [moved.operand(chain[0].name, 0), *moved.operands(node.name)[1:]])
        value = _again(moved, ends[0], [value, *moved.operands(ends[0].name)[1:]])
        for step in chain:
            value = _again(moved, step, [value, *moved.operands(step.name)[1:]])
        for end in ends:
            moved.replace_uses(Value(end.name), value)
        count += 1
    if not count:
        return graph
    moved.prune()
    return moved


def _pad_numbers(graph: Graph, node: Node) -> bool:
    """Pad what codes stand for in place of the codes, where they are padded with their zero point; was it done?"""
    data, _, value, *_ = (*graph.operands(node.name), None, None)
    start = None if data is None or value is None else _codes(graph, data)
    if start is None:
        return False
    _, scale, zero, *_ = (*graph.operands(start.name), None)
    ends = [graph.node(user) for user, _ in graph.users(Value(node.name))]
    if not ends or any(not _reads_alike(graph, start, end) for end in ends) or None in (scale, zero):
        return False
    step, code, filled = (graph.op(v.node) for v in (scale, zero, value) if v is not None)
    if any(op.name != "constant" for op in (step, code, filled)) or np.size(step["value"].array) != 1:
        return False
    if np.any(filled["value"].array != code["value"].array):
        return False
    inner = _again(graph, ends[0], [data, *graph.operands(ends[0].name)[1:]])
    operands = [inner, graph.operand(node.name, 1), None, *graph.operands(node.name)[3:]]
    padded = graph.add(node.op.name, operands, dict(node.op.attrs), types=ends[0].types[:1], provenance=node.provenance)
    for end in ends:
        graph.replace_uses(Value(end.name), padded)
    return True


def _codes(graph: Graph, value: Value) -> Node | None:
    """What made the codes that a value holds, which may be laid out in another way since."""
    node = graph.node(value.node)
    while node.op.name in LAYOUT and node.op.name != "onnx.Cast":
        before = graph.operands(node.name)[0]
        if before is None or before.index:
            return None
        node = graph.node(before.node)
    return node if node.op.name == "onnx.QuantizeLinear" else None


def _reads_alike(graph: Graph, start: Node, end: Node) -> bool:
    """Does `end` make real numbers of codes by the scale and zero point by which `start` made them?"""
    if end.op.name != "onnx.DequantizeLinear":
        return False
    ops = [[graph.op(v.node) for v in graph.operands(node.name)[1:3] if v is not None] for node in (start, end)]
    if any(op.name != "constant" for op in (*ops[0], *ops[1])) or len(ops[0]) != len(ops[1]):
        return False
    return all(np.array_equal(a["value"].array, b["value"].array) for a, b in zip(*ops, strict=True))


def _again(graph: Graph, node: Node, operands: list[Value | None]) -> Value:
    return graph.add(node.op.name, operands, dict(node.op.attrs), types=node.types[:1], provenance=node.provenance)


def _from_padding(graph: Graph, node: Node) -> list[Node]:
    """The padding with zeros of what a node rounds by one scale, and what lays it out between; empty if none is."""
    scale = graph.op(graph.operand(node.name, 1).node)
    if scale.name != "constant" or np.size(scale["value"].array) != 1:
        return []
    chain: list[Node] = []
    while not chain or chain[0].op.name in LAYOUT:
        before = graph.operands((chain[0] if chain else node).name)[0]
        if before is None or before.index:
            return []
        chain.insert(0, graph.node(before.node))
    return chain if chain[0].op.name == "onnx.Pad" and _with_zeros(graph, chain[0]) else []


def _with_zeros(graph: Graph, node: Node) -> bool:
    attributes = {a.name: a for a in node.op["node"].attribute}
    if "mode" in attributes and text(attributes["mode"].s) != "constant":
        return False
    operands = graph.operands(node.name)
    if len(operands) > 2 and operands[2] is not None:
        if graph.op(operands[2].node).name == "onnx.DequantizeLinear":
            numbers = [graph.op(v.node) for v in graph.operands(operands[2].node) if v is not None]
            if any(op.name != "constant" for op in numbers):
                return False
            code, _, zero = (*(op["value"].array for op in numbers), 0)[:3]
            return bool(np.all(code == zero))
        value = graph.op(operands[2].node)
        return value.name == "constant" and not np.any(value["value"].array)
    return "value" not in attributes or not attributes["value"].f
