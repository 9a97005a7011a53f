"""Networks without a state: compiled where they are networks over the features of each step for certain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from tests.frontend.net import Net, save

WIDTH = 5


def network(net: Net, dims: list[int | str]) -> str:
    rng = np.random.default_rng(3)
    x = net.input(dims, name="x")
    y = net.op("Tanh", net.op("MatMul", x, net.const(rng.standard_normal((WIDTH, 7)))))
    return net.op("Mul", net.op("MatMul", y, net.const(rng.standard_normal((7, WIDTH)))), x)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("target", ["cim", "epochcore"])
def test_a_network_of_each_step(tmp_path: Path, target: str, pooled: bool) -> None:
    net = Net()
    dims: list[int | str] = ["b", "t", WIDTH]
    y = network(net, dims)
    if pooled:
        y, dims = net.op("ReduceMax", y, net.ints(1), keepdims=0), ["b", WIDTH]
    model = load_model(save(net.model([(y, dims)]), tmp_path))
    assert not model.systems
    assert any("feed-forward" in note for note in model.notes)
    arrays = {"x": np.random.default_rng(0).standard_normal((2, 11, WIDTH)).astype(np.float32)}
    found = compile_model(model, target, ideal=True).run(arrays).outputs[y]
    assert found == pytest.approx(reference(model, arrays)[y], abs=1e-5)
