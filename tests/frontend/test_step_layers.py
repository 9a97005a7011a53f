"""One-step models of many layers: pairing and lifting their states takes as long as the layers are many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssmc.frontend import evaluate, load_model
from tests.frontend.net import Net, save

WIDTH, STATES = 3, 4


def _layers(folder: Path, layers: int, rotating: bool) -> Path:
    """Real or complex states (as two inputs) a layer, behind a nonlinear stage; all of one shape."""
    net, rng = Net(), np.random.default_rng(layers)
    x = h = net.input(["b", WIDTH])
    outputs, carried = [], []
    for _ in range(layers):
        parts = [net.input(["b", STATES]) for _ in range(1 + rotating)]
        drive = net.op("MatMul", h, net.const(rng.standard_normal((WIDTH, STATES))))
        size, angle = rng.uniform(0.5, 0.9, STATES), rng.uniform(0.3, 2.0, STATES)
        if rotating:
            re, im = parts
            a, b = net.const(size * np.cos(angle)), net.const(size * np.sin(angle))
            new = [
                net.op("Add", net.op("Sub", net.op("Mul", a, re), net.op("Mul", b, im)), drive),
                net.op("Add", net.op("Mul", a, im), net.op("Mul", b, re)),
            ]
        else:
            new = [net.op("Add", net.op("Mul", parts[0], net.const(size)), drive)]
        carried += new
        read = net.op("MatMul", new[0], net.const(rng.standard_normal((STATES, WIDTH))))
        h = net.op("Add", h, net.op("Tanh", read))
        outputs += [(value, ["b", STATES]) for value in new]
    assert x
    return save(net.model([(h, ["b", WIDTH]), *outputs]), folder)


@pytest.mark.parametrize("rotating", [False, True])
def test_nodes_run_grow_with_the_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotating: bool) -> None:
    runs: list[int] = []
    plain = evaluate.run_quietly

    def counted(*args: Any) -> Any:
        runs[-1] += 1
        return plain(*args)

    monkeypatch.setattr(evaluate, "run_quietly", counted)
    for layers in (6, 12):
        runs.append(0)
        model = load_model(_layers(tmp_path, layers, rotating))
        assert len(model.states) == layers * (1 + rotating)
        assert len(model.systems) == layers
    assert runs[1] < 2.2 * runs[0]
