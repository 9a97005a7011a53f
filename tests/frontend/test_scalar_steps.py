"""Steps of single numbers, as of filters in a control loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, numpy_helper

from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from tests.frontend.net import Net, save


def test_a_step_of_scalars(tmp_path: Path) -> None:
    """One number in and one out, without a batch, as of a filter in a control loop."""
    net = Net()
    u, x = net.input([], TensorProto.DOUBLE), net.input([2], TensorProto.DOUBLE)
    a, b = (numpy_helper.from_array(np.asarray(m, np.float64), net.fresh())
            for m in ([[0.5, 0.2], [-0.3, 0.6]], [1.0, 2.0]))  # fmt: skip
    net.weights += [a, b]
    new = net.op("Add", net.op("MatMul", a.name, x), net.op("Mul", b.name, u))
    y = net.op("Add", net.op("ReduceSum", new, keepdims=0), u)
    model = net.model([(y, []), (new, [2])])
    for info in model.graph.output:
        info.type.tensor_type.elem_type = TensorProto.DOUBLE
    lifted = load_model(save(model, tmp_path))
    assert list(lifted.states) == [x]
    arrays = {u: np.random.default_rng(0).standard_normal((1, 7))}
    expected = reference(lifted, arrays)[y]
    for target in ("cim", "epochcore"):
        found = compile_model(lifted, target, ideal=True).run(arrays).outputs[y]
        assert np.abs(found - expected).max() <= 1e-9 * np.abs(expected).max()
