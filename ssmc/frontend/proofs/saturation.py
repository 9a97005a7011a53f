"""Whether onnxruntime's sums of products of 8-bit integers are right on this processor.

Where a processor has no instructions for them (VNNI), it adds two products of unsigned and signed numbers in 16 bits,
which saturate. Source: onnxruntime's documentation of quantisation, where it advises weights of 7 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_STANDARD = ("MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv")
PRODUCTS = frozenset([*_STANDARD, "QGemm", "QAttention", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"])
LARGEST = (255, 127)  # of an unsigned and of a signed number


def told_of(model: onnx.ModelProto) -> str:
    """What is to be said of a file whose integer products this processor cannot be trusted with; else nothing."""
    if not any(node.op_type in PRODUCTS for node in _nodes(model.graph)) or not saturates():
        return ""
    return (
        "onnxruntime's sums of products of 8-bit integers saturate on this processor (2 x 255 x 127 is not 64770), so "
        "that what it gives for this file is no reference; it is one for weights of 7 bits (reduce_range)"
    )


@cache
def saturates() -> bool:
    """Does a sum of two products of the largest numbers come out wrong?"""
    import onnxruntime

    x, y = (helper.make_tensor_value_info(n, t, [1, s]) for n, t, s in (("x", TensorProto.UINT8, 2), ("y", 6, 1)))
    weight = numpy_helper.from_array(np.full((2, 1), LARGEST[1], np.int8), "w")
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "sum", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.full((1, 2), LARGEST[0], np.uint8)})
    return int(np.asarray(found).item()) != 2 * LARGEST[0] * LARGEST[1]


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)
