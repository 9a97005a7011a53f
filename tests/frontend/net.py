"""Small ONNX graphs by hand: `Net` collects nodes and weights, and makes models and subgraphs of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dims = Sequence[int | str]


class Net:
    """Nodes in the order in which they are added; every name is new, and none means anything."""

    _serial = 0

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []

    def fresh(self) -> str:
        Net._serial += 1
        return f"n{Net._serial}"

    def const(self, array: Any, name: str | None = None) -> str:
        """A weight: float32, or int64."""
        array = np.asarray(array)
        array = array.astype(np.float32 if array.dtype.kind == "f" else array.dtype)
        name = name or self.fresh()
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(np.asarray(values, np.int64))

    def input(self, dims: Dims | None, dtype: int = TensorProto.FLOAT, name: str | None = None) -> str:
        name = name or self.fresh()
        self.inputs.append(helper.make_tensor_value_info(name, dtype, None if dims is None else list(dims)))
        return name

    def op(self, kind: str, *operands: str, outputs: int = 1, domain: str = "", **attrs: Any) -> Any:
        """Add a node; its output name, or a list of them."""
        names = [self.fresh() for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(operands), names, domain=domain, **attrs))
        return names[0] if outputs == 1 else names

    def subgraph(
        self, outputs: Sequence[tuple[str, Dims | None]], dtypes: dict[str, int] | None = None
    ) -> onnx.GraphProto:
        infos = [
            helper.make_tensor_value_info(n, (dtypes or {}).get(n, TensorProto.FLOAT), None if d is None else list(d))
            for n, d in outputs
        ]
        return helper.make_graph(self.nodes, "body", self.inputs, infos, self.weights)

    def model(self, outputs: Sequence[tuple[str, Dims]], opset: int = 20, **extra: Any) -> onnx.ModelProto:
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(self.subgraph(outputs), opset_imports=opsets, ir_version=9, **extra)


def stepwise(net: Net, y: str, features: int) -> onnx.ModelProto:
    """A model whose output is one stream (batch, time, features)."""
    return net.model([(y, ["b", "t", features])])


def save(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path
