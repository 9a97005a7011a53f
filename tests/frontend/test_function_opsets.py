"""Model-local functions of another opset than their file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from ssmc.frontend import load_model
from tests.frontend.checks import LINEAR, kinds, refused

STEPS = 6


def steps(opset: int, of_function: int, mean: bool) -> onnx.ModelProto:
    """`s = 0.5 s + u` as a function, perhaps less its mean over the features, at every step."""
    half = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.float32(0.5)))
    body = [
        half,
        helper.make_node("Mul", ["s", "c"], ["m"]),
        helper.make_node("Add", ["m", "u"], ["p" if mean else "o"]),
    ]
    if mean:
        body += [helper.make_node("ReduceMean", ["p"], ["q"], axes=[1]), helper.make_node("Sub", ["p", "q"], ["o"])]
    function = helper.make_function("own", "Step", ["s", "u"], ["o"], body, [helper.make_opsetid("", of_function)])
    weights, nodes, state = [numpy_helper.from_array(np.array([1]), "axis")], [], ""
    for k in range(STEPS):
        weights.append(numpy_helper.from_array(np.int64(k), f"i{k}"))
        nodes.append(helper.make_node("Gather", ["x", f"i{k}"], [f"u{k}"], axis=1))
        if state:
            nodes.append(helper.make_node("Step", [state, f"u{k}"], [f"s{k}"], domain="own"))
        state = f"s{k}" if state else f"u{k}"
        nodes.append(helper.make_node("Unsqueeze", [state, "axis"], [f"o{k}"]))
    nodes.append(helper.make_node("Concat", [f"o{k}" for k in range(STEPS)], ["y"], axis=1))
    ends = [helper.make_tensor_value_info(name, 1, ["b", STEPS, 3]) for name in "xy"]
    graph = helper.make_graph(nodes, "steps", ends[:1], ends[1:], weights)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=9)


@pytest.mark.parametrize(("opset", "of_function"), [(17, 13), (20, 13), (13, 17)])
def test_ops_of_one_form_in_both_opsets(tmp_path: Path, opset: int, of_function: int) -> None:
    onnx.save(steps(opset, of_function, mean=False), tmp_path / "m.onnx")
    assert kinds(load_model(tmp_path / "m.onnx")) == [LINEAR]


def test_an_op_that_changed_between_is_named(tmp_path: Path) -> None:
    onnx.save(steps(20, 17, mean=True), tmp_path / "m.onnx")
    message = refused(tmp_path / "m.onnx", "'Step' is of opset 17, and the file of 20", "ReduceMean changed")
    assert "no meaning" not in message and "as a model-local function" not in message
