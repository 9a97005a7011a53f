"""One step of neurons as ONNX nodes, in a Scan or as a model of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, save_model

BATCH, LENGTH, WIDTH, NEURONS = 2, 14, 3, 4


class Step:
    """Nodes and weights of one step; `states` are (current, following) pairs, `output` what the step gives."""

    def __init__(self, seed: int = 3) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.rng = np.random.default_rng(seed)
        self.states: list[tuple[str, str]] = []
        self.output = ""

    def const(self, array: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def op(self, kind: str, *operands: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, operands, [name], **attributes))
        return name

    def drive(self, gain: float = 1.5) -> str:
        return self.op("MatMul", "u", self.const(gain * self.rng.standard_normal((WIDTH, NEURONS))))

    def row(self, low: float, high: float) -> str:
        return self.const(self.rng.uniform(low, high, NEURONS))

    def fired(self, x: str, theta: str) -> str:
        return self.op("Cast", self.op("Greater", self.op("Sub", x, theta), self.const(0.0)), to=TensorProto.FLOAT)

    def silent(self, fired: str) -> str:
        return self.op("Sub", self.const(1.0), fired)


def info(name: str, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def as_scan(s: Step, path: Path) -> Path:
    body = helper.make_graph(
        [*s.nodes, helper.make_node("Identity", [s.output], ["spikes"])],
        "step",
        [*(info(now, ["n", NEURONS]) for now, _ in s.states), info("u", ["n", WIDTH])],
        [*(info(after, ["n", NEURONS]) for _, after in s.states), info("spikes", ["n", NEURONS])],
    )
    zero = numpy_helper.from_array(np.zeros((BATCH, NEURONS), np.float32), "zero")
    scan = helper.make_node(
        "Scan",
        [*(["zero"] * len(s.states)), "u"],
        [*(f"last{k}" for k in range(len(s.states))), "y"],
        body=body,
        num_scan_inputs=1,
        scan_input_axes=[1],
        scan_output_axes=[1],
    )
    outputs = [info("y", [BATCH, LENGTH, NEURONS]), *(info(f"last{k}", [BATCH, NEURONS]) for k in range(len(s.states)))]
    graph = helper.make_graph([scan], "g", [info("u", [BATCH, LENGTH, WIDTH])], outputs, [*s.weights, zero])
    return written(graph, path)


def as_step(s: Step, path: Path) -> Path:
    names = {after: f"next{k}" for k, (_, after) in enumerate(s.states)}
    nodes = [*s.nodes, *(helper.make_node("Identity", [after], [name]) for after, name in names.items())]
    nodes.append(helper.make_node("Identity", [s.output], ["y"]))
    inputs = [info("u", ["n", WIDTH]), *(info(now, ["n", NEURONS]) for now, _ in s.states)]
    outputs = [info("y", ["n", NEURONS]), *(info(name, ["n", NEURONS]) for name in names.values())]
    return written(helper.make_graph(nodes, "g", inputs, outputs, s.weights), path)


def written(graph: Any, path: Path) -> Path:
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def fired_in_runtime(s: Step, path: Path) -> tuple[Any, dict[str, Any]]:
    """Random inputs, and what onnxruntime gives for them: some neurons fire at some steps, `y` first."""
    u = s.rng.standard_normal((BATCH, LENGTH, WIDTH)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    expected = dict(zip(names, session.run(names, {"u": u}), strict=True))
    assert expected["y"].any() and not expected["y"].all()
    return u, expected
