"""Poles that are nearly equal, and are not one: what reads the difference of their states must still find it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import cont2discrete

from ssmc.frontend import load_model
from ssmc.frontend.proofs.proof import run_graph
from tests.frontend.net import Net, save


def legendre_memory(order: int, theta: float, length: int) -> np.ndarray:
    """Impulse responses (order, length) of a Legendre memory (arXiv 2102.11417, eq. 10 and 24)."""
    q = np.arange(order)
    j, i = np.meshgrid(q, q)
    rates = (2.0 * q + 1)[:, None] / theta
    a, b = np.where(i < j, -1.0, (-1.0) ** (i - j + 1)) * rates, (-1.0) ** q[:, None] * rates
    a, b, *_ = cont2discrete((a, b, np.eye(order), np.zeros((order, 1))), 1.0, "zoh")
    return np.stack([(np.linalg.matrix_power(a, k) @ b)[:, 0] for k in range(length)], axis=1)


@pytest.mark.parametrize("tolerance", [1e-6, 1e-7])
def test_kernels_of_one_memory_keep_the_error_of_their_fits(tmp_path: Path, tolerance: float) -> None:
    taps = legendre_memory(6, 24.0, 48).astype(np.float32)
    net = Net()
    x = net.input(["b", 1, 48], name="x")
    y = net.op("Conv", x, net.const(taps[:, None, ::-1].copy()), pads=[47, 0])
    model = load_model(save(net.model([(y, ["b", 6, 48])]), tmp_path), tolerance=tolerance)
    impulse = np.eye(1, 48)[None]
    found = run_graph(model.graph, model.inputs, model.outputs, {"x": impulse})[y]
    assert np.abs(found[0] - taps).max() <= model.systems[0].proof_error * np.abs(taps).max()


@pytest.mark.parametrize("ulps", [1, 4])
def test_states_that_part_slowly(tmp_path: Path, ulps: int) -> None:
    """Two slow states of one drive, whose decays are neighbours in float32, and that are read by their difference."""
    slow = np.float32(1 - 1e-4)
    decays = np.asarray([slow, slow - ulps * np.spacing(slow)], np.float32)
    net, body = Net(), Net()
    s, x = body.input([1, 2]), body.input([1, 1])
    later = body.op("Add", body.op("Mul", s, body.const(decays)), x)
    y = body.op("Add", x, body.op("MatMul", later, body.const([[0.1 / ulps], [-0.1 / ulps]])))
    step = body.subgraph([(later, [1, 2]), (y, [1, 1])])
    x = net.input([1, "t", 1], name="x")
    axes = {"scan_input_axes": [1], "scan_output_axes": [1]}
    _, y = net.op("Scan", net.const(np.zeros((1, 2))), x, outputs=2, body=step, num_scan_inputs=1, **axes)
    model = load_model(save(net.model([(y, [1, "t", 1])]), tmp_path))
    u = np.ones(20000)
    found = run_graph(model.graph, model.inputs, model.outputs, {"x": u[None, :, None]})
    a, b = (1 - decays.astype(float)[:, None] ** np.arange(1, 20001)) / (1 - decays.astype(float)[:, None])
    assert found[model.outputs[0].name][0, :, 0] == pytest.approx(1 + 0.1 / ulps * (a - b), rel=1e-6, abs=1e-6)
