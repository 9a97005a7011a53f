"""Weights that are inputs of the file: with the data, with a value to fall back on, of one sample each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from ssmc.diagnostics import UserError
from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from tests.frontend.blocks import RNG
from tests.frontend.net import Net, save
from tests.frontend.test_unseen import scanned

SIZE = 4  # of everything but the batch and the steps, so that only what is dynamic tells weights from data


def adapted(net: Net, *low_rank: str) -> str:
    """A recurrence driven by (W + A B) u, as with low-rank adapters."""
    u = net.input(["b", "t", SIZE], name="u")
    weight, bias = net.const(RNG.standard_normal((SIZE, SIZE))), net.const(RNG.standard_normal(SIZE))
    more = net.op("MatMul", net.op("MatMul", u, low_rank[0]), low_rank[1])
    drive = net.op("Add", net.op("Add", net.op("MatMul", u, weight), bias), more)
    return scanned(net, drive, RNG.uniform(0.5, 0.9, SIZE))


@pytest.mark.parametrize("target", ["cim", "epochcore"])
@pytest.mark.parametrize("rank", [2, SIZE])
def test_weights_given_with_the_data_are_those_of_every_sample(tmp_path: Path, target: str, rank: int) -> None:
    net = Net()
    down, up = net.input([SIZE, rank], name="down"), net.input([rank, SIZE], name="up")
    model = load_model(save(net.model([(adapted(net, down, up), ["b", "t", SIZE])]), tmp_path))
    assert {port.name: port.axes for port in model.inputs} == {"u": "btf", "down": "ff", "up": "ff"}
    given = {"u": (3, 7, SIZE), "down": (SIZE, rank), "up": (rank, SIZE)}
    arrays = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in given.items()}
    compiled = compile_model(model, target, ideal=True)
    ((name, expected),) = reference(model, arrays).items()
    found = compiled.run(arrays).outputs[name]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    with pytest.raises(UserError, match="the input 'up' is missing"):  # only states start from zero
        compiled.run({"u": arrays["u"], "down": arrays["down"]})


def test_every_weight_of_a_layer_is_an_input(tmp_path: Path) -> None:
    net = Net()
    y = adapted(net, net.const(RNG.standard_normal((SIZE, 2))), net.const(RNG.standard_normal((2, SIZE))))
    file = net.model([(y, ["b", "t", SIZE])])
    weights = [w for w in file.graph.initializer if w.data_type == 1 and len(w.dims)]
    for weight in weights:
        file.graph.input.append(helper.make_tensor_value_info(weight.name, 1, list(weight.dims)))
    model = load_model(save(file, tmp_path))  # with values to fall back on they are weights
    assert [port.name for port in model.inputs] == ["u"] and [s.kind for s in model.systems] == [
        "linear time-invariant"
    ]
    for weight in weights:
        file.graph.initializer.remove(weight)
    model = load_model(save(file, tmp_path))
    assert [port.axes for port in model.inputs] == ["btf", *("f" * len(w.dims) for w in weights)]
    assert all(port.role == "data" for port in model.inputs)


def test_a_condition_of_the_whole_sequence_is_no_state(tmp_path: Path) -> None:
    net = Net()
    u, told = net.input(["b", "t", SIZE], name="u"), net.input(["b", SIZE], name="told")
    y = scanned(net, net.op("Mul", u, net.op("Unsqueeze", told, net.ints(1))), RNG.uniform(0.5, 0.9, SIZE))
    model = load_model(save(net.model([(y, ["b", "t", SIZE])]), tmp_path))
    assert {port.name: port.role for port in model.inputs} == {"u": "data", "told": "data"}
    arrays = {"u": RNG.standard_normal((3, 7, SIZE)).astype(np.float32), "told": np.ones((3, SIZE), np.float32)}
    ((name, expected),) = reference(model, arrays).items()
    for target in ("cim", "epochcore"):
        compiled = compile_model(model, target, ideal=True)
        assert np.abs(compiled.run(arrays).outputs[name] - expected).max() <= 1e-5 * np.abs(expected).max()
    with pytest.raises(UserError, match="the input 'told' is missing"):
        compiled.run({"u": arrays["u"]})
