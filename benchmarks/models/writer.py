"""A small writer of ONNX graphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 22
Dims = Sequence[int | str]


class Writer:
    """Collects nodes and weights; operands are the names of values, arrays become initializers."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._integers: dict[tuple[Any, ...], str] = {}

    def fresh(self, what: str) -> str:
        return f"{what}_{len(self.nodes) + len(self.initializers)}"

    def input(self, name: str, dims: Dims, kind: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(dims)))
        return name

    def output(self, value: str, name: str, dims: Dims) -> None:
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims)))

    def weight(self, array: Any) -> str:
        name = self.fresh("weight")
        self.initializers.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def normal(self, *shape: int, scale: float | None = None) -> str:
        """Normal weights, by default as large as keeps a matrix product's size."""
        deviation = np.float32(shape[0] ** -0.5 if scale is None else scale)
        return self.weight(self.rng.standard_normal(shape, np.float32) * deviation)

    def integers(self, *values: int, rank: int = 1) -> str:
        """A shared initializer with these integers."""
        key = (rank, *values)
        if key not in self._integers:
            name = self._integers[key] = self.fresh("shape")
            array = np.array(values, np.int64).reshape((-1,) * rank)
            self.initializers.append(numpy_helper.from_array(array, name))
        return self._integers[key]

    def scalar(self, value: int) -> str:
        """A shared initializer of rank 0."""
        return self.integers(value, rank=0)

    def constant(self, array: Any) -> str:
        """A Constant node of its own, as the TorchScript exporter writes them."""
        return self.add("Constant", [], value=numpy_helper.from_array(np.asarray(array)))

    def add(self, kind: str, operands: Sequence[str | None], **attributes: Any) -> str:
        return self.split(kind, operands, 1, **attributes)[0]

    def split(self, kind: str, operands: Sequence[str | None], results: int, **attributes: Any) -> list[str]:
        """A node with several results."""
        base = self.fresh(kind)
        names = [base if k == 0 else f"{base}_{k}" for k in range(results)]
        self.nodes.append(helper.make_node(kind, [o or "" for o in operands], names, name=f"node_{base}", **attributes))
        return names

    def graph(self) -> onnx.GraphProto:
        return helper.make_graph(self.nodes, "model", self.inputs, self.outputs, self.initializers)

    def save(self, path: Path, external: bool = False) -> None:
        """Write the model, its weights in a file beside it where `external`."""
        model = helper.make_model(self.graph(), opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        weights = path.with_suffix(".weights")
        weights.unlink(missing_ok=True)  # onnx appends
        onnx.save(model, path, save_as_external_data=external, location=weights.name)
