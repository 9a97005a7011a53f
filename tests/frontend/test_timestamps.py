"""Events with their times: what has elapsed between them is computed in the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from tests.frontend.net import Net, save

STATES = 3


@pytest.mark.parametrize("axes", ["bt", "btf"])
@pytest.mark.parametrize("first", ["zero", "own"])
def test_elapsed_times_are_differences(tmp_path: Path, axes: str, first: str) -> None:
    """The first event comes when the model starts, or at its own time after that."""
    net, body, rng = Net(), Net(), np.random.default_rng(2)
    x = net.input(["b", "t", 2])
    time = net.input(["b", "t", 1] if axes == "btf" else ["b", "t"])
    clock = time if axes == "btf" else net.op("Unsqueeze", time, net.ints(2))
    start = net.op("Slice", clock, net.ints(0), net.ints(1), net.ints(1))
    start = net.op("Mul", start, net.const(np.zeros(()))) if first == "own" else start
    before = net.op("Slice", clock, net.ints(0), net.ints(-1), net.ints(1))
    gaps = net.op("Sub", clock, net.op("Concat", start, before, axis=1))
    state, u, gap = (body.input(None) for _ in range(3))
    decay = body.op("Exp", body.op("Mul", gap, body.const(-rng.uniform(0.3, 2.0, STATES))))
    drive = body.op("MatMul", u, body.const(rng.standard_normal((2, STATES))))
    following = body.op("Add", body.op("Mul", decay, state), drive)
    graph = body.subgraph([(following, None), (body.op("Identity", following), None)])
    zero = net.op("Concat", net.op("Shape", x, end=1), net.ints(STATES), axis=0)
    attrs = {"body": graph, "num_scan_inputs": 2, "scan_input_axes": [1, 1], "scan_output_axes": [1]}
    _, y = net.op("Scan", net.op("ConstantOfShape", zero), x, gaps, outputs=2, **attrs)
    model = load_model(save(net.model([(net.op("Tanh", y), ["b", "t", STATES])]), tmp_path))
    assert [system.kind for system in model.systems] == ["asynchronous"]
    times = np.cumsum(rng.uniform(0.1, 2.0, (2, 9)), axis=1).astype(np.float32)
    times = times[..., None] if axes == "btf" else times
    arrays = {x: rng.standard_normal((2, 9, 2)).astype(np.float32), time: times}
    (expected,) = reference(model, arrays).values()
    for target in ("cim", "epochcore"):
        (found,) = compile_model(model, target, ideal=True).run(arrays).outputs.values()
        assert np.abs(found - expected).max() < 1e-5
        compile_model(model, target)  # without calibration data: times are drawn
