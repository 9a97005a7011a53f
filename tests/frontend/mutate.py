"""Damage to valid models: what a broken exporter, a bad disk or an enemy could make of a file."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

import onnx
from onnx import AttributeProto, TensorProto

KINDS = ["Add", "Mul", "MatMul", "Relu", "Reshape", "Transpose", "Gather", "Slice", "Concat", "Softmax", "Exp", "Pad"]
KINDS += ["ConstantOfShape", "Expand", "Range", "Tile", "CumSum", "Loop", "Scan", "If", "Conv", "DFT", "Einsum", "Odd"]
KINDS += ["Split", "Where", "ReduceSum", "Squeeze", "ScatterND", "SequenceAt", "QuantizeLinear", "LSTM", "TopK", "Cast"]
NUMBERS = [0, 1, -1, 2, 3, 7, -(2**31), 2**31 - 1, 2**31, 2**40, 2**62, -(2**63)]
TYPES = [TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.DOUBLE, TensorProto.STRING]
TYPES += [TensorProto.INT8, TensorProto.COMPLEX64, TensorProto.FLOAT16, 0, 99]


def graphs(model: onnx.ModelProto) -> list[onnx.GraphProto]:
    """The main graph and all subgraphs."""
    found, waiting = [], [model.graph]
    while waiting:
        graph = waiting.pop()
        found.append(graph)
        waiting += [a.g for node in graph.node for a in node.attribute if a.type == AttributeProto.GRAPH]
    return found


def _names(graph: onnx.GraphProto) -> list[str]:
    made = [name for node in graph.node for name in node.output]
    return [*made, *(i.name for i in graph.input), *(t.name for t in graph.initializer), "", "nowhere"]


def _drop_node(graph: onnx.GraphProto, rng: random.Random) -> None:
    del graph.node[rng.randrange(len(graph.node))]


def _repeat_node(graph: onnx.GraphProto, rng: random.Random) -> None:
    graph.node.append(rng.choice(graph.node))


def _rewire(graph: onnx.GraphProto, rng: random.Random) -> None:
    node = rng.choice([n for n in graph.node if n.input] or [onnx.NodeProto(input=[""])])
    node.input[rng.randrange(len(node.input))] = rng.choice(_names(graph))


def _cut_operand(graph: onnx.GraphProto, rng: random.Random) -> None:
    node = rng.choice([n for n in graph.node if n.input] or [onnx.NodeProto(input=[""])])
    del node.input[rng.randrange(len(node.input))]


def _more_operands(graph: onnx.GraphProto, rng: random.Random) -> None:
    rng.choice(graph.node).input.extend(rng.choices(_names(graph), k=rng.randint(1, 3)))


def _other_kind(graph: onnx.GraphProto, rng: random.Random) -> None:
    rng.choice(graph.node).op_type = rng.choice(KINDS)


def _other_domain(graph: onnx.GraphProto, rng: random.Random) -> None:
    rng.choice(graph.node).domain = rng.choice(["com.microsoft", "ai.onnx.ml", "nobody"])


def _rename_result(graph: onnx.GraphProto, rng: random.Random) -> None:
    node = rng.choice(graph.node)
    if node.output:
        node.output[rng.randrange(len(node.output))] = rng.choice(_names(graph))


def _attribute(graph: onnx.GraphProto, rng: random.Random) -> None:
    nodes = [n for n in graph.node if n.attribute]
    if not nodes:
        return
    node = rng.choice(nodes)
    attribute = rng.choice(node.attribute)
    match rng.randrange(4):
        case 0:
            node.attribute.remove(attribute)
        case 1:
            attribute.i = rng.choice(NUMBERS)
        case 2 if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(NUMBERS)
        case _:
            attribute.type = rng.choice([AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT])


def _weight(graph: onnx.GraphProto, rng: random.Random) -> None:
    if not graph.initializer:
        return
    weight = rng.choice(graph.initializer)
    array = onnx.numpy_helper.to_array(weight)
    match rng.randrange(6):
        case 0:
            weight.dims.append(rng.choice(NUMBERS))
        case 1 if weight.dims:
            weight.dims[rng.randrange(len(weight.dims))] = rng.choice(NUMBERS)
        case 2:
            weight.data_type = rng.choice(TYPES)
        case 3:
            weight.raw_data = weight.raw_data[: rng.randrange(len(weight.raw_data) + 1)]
        case 4 if array.size and array.dtype.kind == "i":
            changed = array.copy()
            changed.reshape(-1)[rng.randrange(array.size)] = rng.choice(NUMBERS)
            weight.CopyFrom(onnx.numpy_helper.from_array(changed, weight.name))
        case _ if array.size and array.dtype.kind == "f":
            changed = array.copy()
            changed.reshape(-1)[rng.randrange(array.size)] = rng.choice([0.0, 1e30, -1e30, float("nan"), float("inf")])
            weight.CopyFrom(onnx.numpy_helper.from_array(changed, weight.name))
        case _:
            weight.name = rng.choice(_names(graph))


def _port(graph: onnx.GraphProto, rng: random.Random) -> None:
    ports = [*graph.input, *graph.output]
    if not ports:
        return
    port = rng.choice(ports)
    dims = port.type.tensor_type.shape.dim
    match rng.randrange(5):
        case 0 if dims:
            rng.choice(dims).dim_value = rng.choice(NUMBERS)
        case 1 if dims:
            rng.choice(dims).dim_param = rng.choice(["b", "t", "other"])
        case 2 if dims:
            del dims[rng.randrange(len(dims))]
        case 3:
            port.type.tensor_type.elem_type = rng.choice(TYPES)
        case _:
            port.name = rng.choice(_names(graph))


def _drop_port(graph: onnx.GraphProto, rng: random.Random) -> None:
    ports = rng.choice([graph.input, graph.output])
    if ports:
        del ports[rng.randrange(len(ports))]


def _opset(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.opset_import and rng.random() < 0.8:
        rng.choice(model.opset_import).version = rng.choice([1, 7, 9, 13, 17, 25, 27, 9999, -1])
    else:
        del model.opset_import[:]


DAMAGE: list[Callable[[onnx.GraphProto, random.Random], None]] = [
    *[_drop_node, _repeat_node, _rewire, _rewire, _cut_operand, _more_operands, _other_kind, _other_kind],
    *[_other_domain, _rename_result, _attribute, _attribute, _weight, _weight, _weight, _port, _port, _drop_port],
]


def damaged(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """A copy with one to three things wrong."""
    rng, copy = random.Random(seed), onnx.ModelProto()
    copy.CopyFrom(model)
    for _ in range(rng.randint(1, 3)):
        graph = rng.choice(graphs(copy))
        if rng.random() < 0.05:
            _opset(copy, rng)
        elif graph.node:
            with suppress(KeyError, TypeError, ValueError):  # a weight that was damaged before is no array
                rng.choice(DAMAGE)(graph, rng)
    return copy
