"""ONNX file -> Graph of `onnx.*` ops, one to one, every number in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from ssmc.diagnostics import UserError
from ssmc.frontend.source.collection import without_collection
from ssmc.frontend.source.forms import check_forms, name_of
from ssmc.frontend.source.kernels import KERNELS
from ssmc.frontend.source.popped import without_pops
from ssmc.frontend.source.proto import ModelFile, graphs_of, read_model, tensor_array
from ssmc.frontend.source.sparse import dense
from ssmc.frontend.source.unfusing import unfused
from ssmc.frontend.source.unknown import unknown_nodes
from ssmc.ir.graph import Graph, Value
from ssmc.ir.tensor import Tensor
from ssmc.ir.types import TensorType

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
BODIES = {"Scan": ("body",), "Loop": ("body",), "If": ("then_branch", "else_branch")}


def import_onnx(path: str | Path) -> Graph:
    """The file as a Graph of `onnx.*` ops. Attributes: `path`, `opset`, `producer`, `unknown` (see `unknown_nodes`).

    Initializers are `constant` nodes; bodies of Scan, Loop and If are Graphs in the attribute `regions`, the values
    that they capture trailing operands of the node and trailing inputs of the body. Raises UserError for a file
    that cannot be read, and names values that nothing produces.
    """
    return import_model(read_model(path), path)


@without_collection()
def import_model(file: ModelFile, path: str | Path) -> Graph:
    """As `import_onnx`, of a file that was read."""
    model = file.model
    opsets = {entry.domain if entry.domain != "ai.onnx" else "": int(entry.version) for entry in model.opset_import}
    check_forms(graphs_of(model.graph), opsets)
    importer = _Importer(opsets, str(path))
    graph = importer.graph(without_pops(model.graph), captured={}, large=file.weights)
    graph.attributes.update(path=str(path), opset=opsets.get("", 1), producer=model.producer_name)
    graph.attributes["unknown"] = unknown_nodes(graph, importer.knows)
    return graph


@dataclass
class _Scope:
    """A graph under construction, with the values known in it by ONNX name."""

    graph: Graph
    values: dict[str, Value] = field(default_factory=dict)
    shapes: dict[str, TensorType] = field(default_factory=dict)


@dataclass
class _Importer:
    opsets: dict[str, int]
    path: str

    # -- ops ---------------------------------------------------------------------------------------------

    def knows(self, node: onnx.NodeProto) -> bool:
        """Does the ONNX standard or this compiler give the node's op a meaning?"""
        if node.op_type in KERNELS or (node.domain in ("", "ai.onnx") and node.op_type in (*BODIES, "Constant")):
            return True
        from onnx.reference.ops import load_op

        try:
            load_op("" if node.domain == "ai.onnx" else node.domain, node.op_type, self.version(node))
        except Exception:  # the reference lacks some ops of the standard
            return node.domain in ("", "ai.onnx") and onnx.defs.has(node.op_type)
        return True

    def version(self, node: onnx.NodeProto) -> int:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if domain not in self.opsets:
            return 1
        return self.opsets[domain]

    # -- building ----------------------------------------------------------------------------------------

    def graph(
        self, proto: onnx.GraphProto, captured: Mapping[str, TensorType], large: Mapping[str, np.ndarray]
    ) -> Graph:
        """A (sub)graph; `captured` are the names it takes from outside, appended to its inputs in this order.

        `large` are weights of its own that are not in the proto.
        """
        scope = _Scope(Graph(proto.name or "graph"))
        scope.shapes = {info.name: _tensor_type(info) for info in (*proto.value_info, *proto.output)}
        weights = {tensor.name for tensor in proto.initializer} | set(large)
        for info in proto.input:
            if info.name not in weights:
                self._input(scope, info.name, _tensor_type(info))
        for name, kind in captured.items():
            self._input(scope, name, kind)
        for name, array in large.items():
            self._constant(scope, name, array)
        for tensor in proto.initializer:
            self._constant(scope, tensor.name, tensor_array(tensor, self.path))
        for sparse in proto.sparse_initializer:
            self._constant(scope, sparse.values.name, dense(sparse, self.path))
        for node in self._ordered(proto, scope):
            self._node(scope, node)
        told: set[str] = set()
        for info in proto.output:
            if info.name not in scope.values:
                raise UserError(f"nothing produces the output '{info.name}'", where=self.path)
            if info.name in told:
                raise UserError(
                    f"graph '{proto.name}' gives '{info.name}' as two of its outputs",
                    where=self.path,
                    why="names of outputs are unique in ONNX; onnxruntime gives wrong numbers for a loop like this",
                    hint="give one of them through an Identity",
                )
            told.add(info.name)
            scope.graph.add("output", [scope.values[info.name]], {"name": info.name})
        return scope.graph

    def _input(self, scope: _Scope, name: str, kind: TensorType) -> None:
        scope.values[name] = scope.graph.add("input", [], {"name": name, "type": kind}, name=name)

    def _constant(self, scope: _Scope, name: str, array: np.ndarray, provenance: Sequence[str] = ()) -> None:
        stored = str(array.dtype)
        if array.dtype.kind not in "biufc":
            array = array.astype(np.float64) if array.dtype.kind == "V" else np.zeros(array.shape)
        tensor = Tensor(array)
        kind = TensorType(tensor.shape, stored)
        scope.values[name] = scope.graph.add("constant", [], {"value": tensor}, types=(kind,), provenance=provenance)

    def _ordered(self, proto: onnx.GraphProto, scope: _Scope) -> list[onnx.NodeProto]:
        """The nodes so that values come before their uses. Raises UserError for a cycle or a missing value."""
        scalars = {tensor.name for tensor in proto.initializer if math.prod(tensor.dims) == 1}
        known, nodes = set(scope.values), unfused(proto.node, scalars)
        if _in_order(nodes, known):
            return nodes
        made = {name for node in nodes for name in node.output if name}
        missing = [
            f"'{name}' (read by {name_of(node)})"
            for node in nodes
            for name in reads(node)
            if name not in made and name not in known
        ]
        if missing:
            raise UserError(
                f"nothing produces {', '.join(missing[:6])}",
                where=self.path,
                why="the graph reads values that no node, input or weight gives",
                hint="the file is damaged; check it with onnx.checker and export it again",
            )
        ordered: list[onnx.NodeProto] = []
        waiting = nodes
        while waiting:
            later = []
            for node in waiting:
                if all(name in known for name in reads(node)):
                    ordered.append(node)
                    known.update(node.output)
                else:
                    later.append(node)
            if len(later) == len(waiting):
                raise UserError(
                    f"the graph has a cycle through {name_of(later[0])}", where=self.path, hint="export it again"
                )
            waiting = later
        return ordered

    def _node(self, scope: _Scope, node: onnx.NodeProto) -> None:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            self._constant(scope, node.output[0], _constant_value(node, self.path), (name_of(node),))
            return
        operands = [scope.values[name] if name else None for name in node.input]
        regions: dict[str, Graph] = {}
        outer: dict[str, TensorType] = {}
        bodies = [a for a in node.attribute if a.type == AttributeProto.GRAPH]
        for attribute in bodies:
            for name in _captures(attribute.g):
                if name not in scope.values:
                    raise UserError(f"nothing produces '{name}'", where=f"{self.path}: {name_of(node)}")
                outer[name] = scope.graph.type(scope.values[name])  # type: ignore[assignment]
        for attribute in bodies:
            regions[attribute.name] = self.graph(attribute.g, outer, {})
        missing = [name for name in BODIES.get(node.op_type, ()) if name not in regions]
        if missing and node.domain in ("", "ai.onnx"):
            raise UserError(f"a {node.op_type} without '{missing[0]}'", where=f"{self.path}: {name_of(node)}")
        operands += [scope.values[name] for name in outer]
        outputs = list(node.output)
        while outputs and not outputs[-1]:
            outputs.pop()
        attrs = {
            "node": in_float64(node, scope.graph, operands),
            "version": self.version(node),
            "opset": self.opsets.get("", 1),
            "regions": regions,
            "captured": len(outer),
        }
        unknown = TensorType(None, "?")
        if node.op_type == "Identity" and operands[0] is not None:  # a zero point tells the type of what it is for
            unknown = scope.graph.type(operands[0])  # type: ignore[assignment]
        types = tuple(scope.shapes.get(name, unknown) for name in outputs)
        first = scope.graph.add(
            f"onnx.{node.op_type}",
            operands,
            attrs,
            name=outputs[0] if outputs else node.op_type,
            types=types,
            provenance=(name_of(node),),
        )
        for index, name in enumerate(outputs):
            if name:
                scope.values[name] = Value(first.node, index)


def reads(node: onnx.NodeProto) -> list[str]:
    """Names that a node and its subgraphs read."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            names += _captures(attribute.g)
    return names


def _captures(graph: onnx.GraphProto) -> list[str]:
    own = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    names = [name for node in graph.node for name in reads(node)] + [info.name for info in graph.output]
    return list(dict.fromkeys(name for name in names if name not in own))


def _in_order(nodes: Sequence[onnx.NodeProto], known: set[str]) -> bool:
    seen = set(known)
    for node in nodes:
        if any(name not in seen for name in reads(node)):
            return False
        seen.update(node.output)
    return True


def _tensor_type(info: onnx.ValueInfoProto) -> TensorType:
    if not info.type.HasField("tensor_type"):
        return TensorType(None, "?")
    tensor = info.type.tensor_type
    try:
        dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except Exception:
        dtype = "?"
    if not tensor.HasField("shape"):
        return TensorType(None, dtype)
    dims: list[int | str | None] = []
    for dim in tensor.shape.dim:
        known = dim.HasField("dim_value") and dim.dim_value >= 0  # some exporters write -1 where they know no size
        dims.append(int(dim.dim_value) if known else dim.dim_param or None)
    return TensorType(tuple(dims), dtype)


def _constant_value(node: onnx.NodeProto, path: str) -> np.ndarray:
    attribute = node.attribute[0]
    value: Any = helper.get_attribute_value(attribute)
    match attribute.name:
        case "value":
            return tensor_array(value, path)
        case "sparse_value":
            return dense(value, path)
        case "value_float" | "value_floats":
            return np.asarray(value, np.float64)
        case "value_int" | "value_ints":
            return np.asarray(value, np.int64)
    return np.zeros(np.shape(value))  # strings carry no numbers


def in_float64(node: onnx.NodeProto, graph: Graph, operands: Sequence[Value | None]) -> onnx.NodeProto:
    """The node with float tensors and casts in float64, without its subgraphs: itself where it is so already."""
    if node.op_type != "QuantizeLinear" and not any(_changes(attribute) for attribute in node.attribute):
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.ClearField("attribute")
    for attribute in node.attribute:
        if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            continue
        new = copy.attribute.add()
        new.CopyFrom(attribute)
        if attribute.type == AttributeProto.TENSOR and attribute.t.data_type in FLOATS:
            new.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float64)))
        elif attribute.name in ("to", "dtype") and attribute.i in FLOATS:
            new.i = TensorProto.DOUBLE
    if node.op_type == "QuantizeLinear" and not any(a.name == "output_dtype" and a.i for a in node.attribute):
        zero = operands[2] if len(operands) > 2 else None
        dtype = "uint8" if zero is None else getattr(graph.type(zero), "dtype", "uint8")
        copy.attribute.append(helper.make_attribute("output_dtype", _code_of(dtype)))
    return copy


def _code_of(dtype: str) -> int:
    """The type to which a quantisation rounds whose zero point is of that type."""
    try:
        return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    except (TypeError, ValueError, KeyError):  # not known: it is an input, and no rule takes that
        return int(TensorProto.UINT8)


def _changes(attribute: AttributeProto) -> bool:
    return attribute.type in _WHOLE or attribute.name in ("to", "dtype")


_WHOLE = frozenset([AttributeProto.GRAPH, AttributeProto.GRAPHS, AttributeProto.TENSOR])
