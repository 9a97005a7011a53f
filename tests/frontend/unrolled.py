"""Recurrences written out step by step, in the ways exporters do it: ONNX files built node by node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


@dataclass
class Writer:
    """Collects nodes and weights; values are their names."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    opset: int = 17
    _count: int = 0

    def name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def op(self, kind: str, *operands: str, **attributes: Any) -> str:
        return self.ops(kind, *operands, **attributes)[0]

    def ops(self, kind: str, *operands: str, results: int = 1, **attributes: Any) -> list[str]:
        names = [self.name() for _ in range(results)]
        self.nodes.append(helper.make_node(kind, list(operands), names, name=f"n{len(self.nodes)}", **attributes))
        return names

    def const(self, array: Any) -> str:
        array = np.asarray(array)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int64)
        name = self.name()
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def save(
        self, path: Path, inputs: dict[str, Sequence[Any]], outputs: dict[str, str], ranks: dict[str, int]
    ) -> Path:
        """Write the model; `outputs` are values by output name, `ranks` how many axes they have."""
        nodes = [*self.nodes, *(helper.make_node("Identity", [v], [name]) for name, v in outputs.items())]
        graph = helper.make_graph(
            nodes,
            "unrolled",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * ranks[n]) for n in outputs],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        onnx.save(model, path)
        return path


def steps_of(w: Writer, x: str, length: int, axis: int, how: str) -> list[str]:
    """The steps of `x`, without the time axis, read in one of the exporters' ways."""
    if how == "gather":
        return [w.op("Gather", x, w.const(t), axis=axis) for t in range(length)]
    if how == "slice":
        parts = [w.op("Slice", x, w.const([t]), w.const([t + 1]), w.const([axis]), w.const([1])) for t in range(length)]
    elif how == "split":
        parts = w.ops("Split", x, w.const([1] * length), results=length, axis=axis)
    else:
        raise KeyError(how)
    return [w.op("Squeeze", part, w.const([axis])) for part in parts]


READINGS = ("gather", "slice", "split")


def joined(w: Writer, values: Sequence[str], axis: int, how: str, shape: Sequence[int]) -> str:
    """The values along a new axis; `shape` is that of one of them (needed for what is written into zeros)."""
    if how == "concat" or (how == "reshape" and axis == len(shape)):
        return w.op("Concat", *(w.op("Unsqueeze", v, w.const([axis])) for v in values), axis=axis)
    if how == "reshape":
        return w.op("Reshape", w.op("Concat", *values, axis=axis), w.const([*shape[:axis], len(values), *shape[axis:]]))
    if how == "sequence":
        return w.op("ConcatFromSequence", w.op("SequenceConstruct", *values), axis=axis, new_axis=1)
    if how == "inserts":
        sequence = w.op("SequenceEmpty")
        for v in values:
            sequence = w.op("SequenceInsert", sequence, v)
        return w.op("ConcatFromSequence", sequence, axis=axis, new_axis=1)
    whole = [*shape[:axis], len(values), *shape[axis:]]
    slab = [*shape[:axis], 1, *shape[axis:]]
    result = w.const(np.zeros(whole))
    for t, v in enumerate(values):
        if how == "scatter elements":
            update = w.op("Unsqueeze", v, w.const([axis]))
            result = w.op("ScatterElements", result, w.const(np.full(slab, t)), update, axis=axis)
        else:
            grid = np.stack(np.meshgrid(*map(np.arange, slab), indexing="ij"), -1)
            grid[..., axis] = t
            update = w.op("Reshape", w.op("Unsqueeze", v, w.const([axis])), w.const(slab))
            result = w.op("ScatterND", result, w.const(grid), update)
    return result


JOINS = ("concat", "reshape", "sequence", "inserts", "scatter elements", "scatter nd")

Step = Callable[[str | None, str], str]  # (state before or None at the first step, input) -> state


def diagonal_step(w: Writer, a: str, swapped: bool = False) -> Step:
    """h <- a h + u; the first step is only u, as an exporter leaves it that folds a * 0."""

    def step(before: str | None, u: str) -> str:
        if before is None:
            return u
        product = w.op("Mul", before, a) if swapped else w.op("Mul", a, before)
        return w.op("Add", u, product) if swapped else w.op("Add", product, u)

    return step


def complex_step(w: Writer, re: str, im: str) -> Step:
    """The same for complex numbers in a last axis of two."""

    def part(x: str, index: int) -> str:
        return w.op("Gather", x, w.const(index), axis=-1)

    def step(before: str | None, u: str) -> str:
        if before is None:
            return u
        p, q = part(before, 0), part(before, 1)
        real = w.op("Sub", w.op("Mul", re, p), w.op("Mul", im, q))
        imag = w.op("Add", w.op("Mul", re, q), w.op("Mul", im, p))
        last = w.const([-1])
        product = w.op("Concat", w.op("Unsqueeze", real, last), w.op("Unsqueeze", imag, last), axis=-1)
        return w.op("Add", product, u)

    return step


def run_steps(step: Step, inputs: Sequence[str], initial: str | None = None) -> list[str]:
    """States after each of the inputs."""
    states: list[str] = []
    before = initial
    for u in inputs:
        before = step(before, u)
        states.append(before)
    return states
