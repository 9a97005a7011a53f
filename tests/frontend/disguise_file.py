"""The disguiser, for what a file may be beside its graph: functions, number formats, weights kept elsewhere.

Each takes a finished model and gives one that means the same (or the same within the rounding of its format).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

FORMATS = {
    TensorProto.FLOAT16: np.float16,
    TensorProto.BFLOAT16: ml_dtypes.bfloat16,
    TensorProto.DOUBLE: np.float64,
}


def subgraphs(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    """The bodies in these nodes' attributes, theirs included."""
    for node in nodes:
        for attribute in node.attribute:
            for graph in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
                yield graph
                yield from subgraphs(graph.node)


def as_function(model: onnx.ModelProto, start: int, stop: int, name: str = "part") -> onnx.ModelProto:
    """Nodes start to stop as a model-local function: what they read are its inputs, what is read of them its outputs.

    Weights come from outside; bodies inside of the function capture the function's own names.
    """
    graph = model.graph
    inside, others = list(graph.node[start:stop]), [*graph.node[:start], *graph.node[stop:]]
    if not inside:
        return model
    made = {value for node in inside for value in node.output}
    reads = list(dict.fromkeys(value for value in _read(inside) if value and value not in made))
    wanted = {*_read(others), *(value.name for value in graph.output)}
    gives = [value for node in inside for value in node.output if value in wanted]
    opsets = [*model.opset_import, *([] if _has(model, "parts") else [helper.make_opsetid("parts", 1)])]
    function = helper.make_function("parts", name, reads, gives, inside, opsets)
    found = onnx.ModelProto()
    found.CopyFrom(model)
    del found.graph.node[:]
    call = helper.make_node(name, reads, gives, domain="parts")
    found.graph.node.extend([*graph.node[:start], call, *graph.node[stop:]])
    found.functions.append(function)
    if not _has(model, "parts"):
        found.opset_import.append(helper.make_opsetid("parts", 1))
    return found


def _has(model: onnx.ModelProto, domain: str) -> bool:
    return any(opset.domain == domain for opset in model.opset_import)


def _read(nodes: Sequence[onnx.NodeProto]) -> Iterator[str]:
    """Names that nodes read, those that their bodies capture included."""
    for node in nodes:
        yield from node.input
    for body in subgraphs(nodes):
        own = {value.name for value in (*body.input, *body.initializer)}
        own |= {value for node in body.node for value in node.output}
        yield from (value for node in body.node for value in node.input if value not in own)
        yield from (value.name for value in body.output if value.name not in own)


def stored_in(model: onnx.ModelProto, dtype: int) -> onnx.ModelProto:
    """Every float32 weight stored in another format and cast where it is used, in bodies as well."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for graph in reversed([found.graph, *subgraphs(found.graph.node)]):  # bodies first: nodes are copied
        casts = []
        for tensor in graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                name = f"{tensor.name}.stored"
                casts.append(helper.make_node("Cast", [name], [tensor.name], to=TensorProto.FLOAT))
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(FORMATS[dtype]), name))
        nodes = [*casts, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
    return found


def computed_in(model: onnx.ModelProto, dtype: int) -> onnx.ModelProto:
    """The whole model in another format: weights, inputs, outputs, bodies, casts and zeros."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for graph in (found.graph, *subgraphs(found.graph.node)):
        for tensor in graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                array = numpy_helper.to_array(tensor).astype(FORMATS[dtype])
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        for port in (*graph.input, *graph.output, *graph.value_info):
            kind = port.type.sequence_type.elem_type if port.type.HasField("sequence_type") else port.type
            if kind.tensor_type.elem_type == TensorProto.FLOAT:
                kind.tensor_type.elem_type = dtype
        for node in graph.node:
            _retype(node, dtype)
    return found


def _retype(node: onnx.NodeProto, dtype: int) -> None:
    if node.op_type == "ConstantOfShape" and not node.attribute:
        zero = numpy_helper.from_array(np.zeros(1, FORMATS[dtype]))
        node.attribute.append(helper.make_attribute("value", zero))
    elif node.op_type == "SequenceEmpty":
        node.attribute.append(helper.make_attribute("dtype", dtype))
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = dtype


def saved_outside(model: onnx.ModelProto, folder: Path, location: str | None) -> Path:
    """The model with its weights, those of bodies too, in the file `location`, or in one file each (None).

    Integers stay: they may be axes, which onnxruntime wants to know in bodies before it opens such files.
    """
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for number, graph in enumerate((found.graph, *subgraphs(found.graph.node))):
        for tensor in graph.initializer:
            if tensor.data_type == TensorProto.INT64:
                continue
            place = location or f"weights{number}/{tensor.name}.bin"
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            external_data_helper.set_external_data(tensor, place)
    path = folder / "model.onnx"
    onnx.save(found, path)
    return path
