"""log(sigmoid(x)), as torch's exporters write LogSigmoid: onnxruntime knows it in float32 for small numbers only."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssmc.driver import compile_model
from ssmc.frontend import load_model
from tests.frontend.net import Net, save


def test_it_is_right_far_below_zero(tmp_path: Path) -> None:
    net = Net()
    s = net.op("CumSum", net.input(["n", "l", 2]), net.const(np.int64(1)))
    y = net.op("Log", net.op("Sigmoid", s))
    model = load_model(save(net.model([(y, ["n", "l", 2])]), tmp_path))
    u = np.full((1, 40, 2), -5.0, np.float32)
    wanted = -np.logaddexp(0.0, -np.cumsum(u.astype(np.float64), axis=1))
    assert wanted.min() < -150
    for target in ("cim", "epochcore"):
        found = compile_model(model, target, ideal=True).run({model.inputs[0].name: u}).outputs[model.outputs[0].name]
        assert np.abs(found - wanted).max() <= 1e-6 * np.abs(wanted).max()
