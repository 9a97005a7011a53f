"""Codes of few bits: integers run, floating point of few bits is computed in weights and refused elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from ssmc.frontend import load_model
from ssmc.frontend.source.operands import narrowed
from tests.frontend.checks import refused
from tests.frontend.net import Net, save
from tests.frontend.test_rounding import off

WIDTH = 4


def tensor(net: Net, array: np.ndarray, dtype: int) -> str:
    name = net.fresh()
    net.weights.append(helper.make_tensor(name, dtype, list(array.shape), array.reshape(-1)))
    return name


def step(folder: Path, dtype: int, opset: int, zero: float = 0.0) -> tuple[Path, str]:
    """x' = Q(a x + u), y = x' W, both Q and W in codes of the type."""
    net, rng = Net(), np.random.default_rng(1)
    u, x = net.input(["b", WIDTH]), net.input(["b", WIDTH])
    grid = net.const(np.float32(0.31)), tensor(net, np.full((), zero), dtype)
    total = net.op("Add", net.op("Mul", x, net.const(np.linspace(0.5, 0.9, WIDTH))), u)
    following = net.op("DequantizeLinear", net.op("QuantizeLinear", total, *grid), *grid)
    codes = tensor(net, np.round(rng.uniform(0, 2, (WIDTH, WIDTH))), dtype)
    weight = net.op("DequantizeLinear", codes, net.const(rng.uniform(0.05, 0.1, WIDTH)), axis=1)
    y = net.op("MatMul", following, weight)
    graph = net.subgraph([(y, ["b", WIDTH]), (following, ["b", WIDTH])])
    return save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), folder), u


@pytest.mark.parametrize(
    ("dtype", "opset", "zero"),
    [
        (TensorProto.INT4, 21, 0),
        (TensorProto.UINT4, 21, 7),
        (TensorProto.INT16, 21, 0),
        (TensorProto.UINT16, 21, 32768),
        (TensorProto.INT2, 25, 0),
        (TensorProto.UINT2, 25, 1),
    ],
)
def test_integers_of_any_width(tmp_path: Path, dtype: int, opset: int, zero: int) -> None:
    path, u = step(tmp_path, dtype, opset, zero)
    model = load_model(path)
    assert [system.kind for system in model.systems] == ["rounded"]
    data = np.random.default_rng(2).standard_normal((2, 9, WIDTH)).astype(np.float32)
    assert off(model, u, data, path) <= 1e-5


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2])
def test_floating_point_of_few_bits_is_refused(tmp_path: Path, dtype: int) -> None:
    refused(step(tmp_path, dtype, 21)[0], "floating point of few bits", "quantise to integers")


def test_numbers_of_eight_bits() -> None:
    """E4M3: three bits behind the point, up to 448, halves to even."""
    found = narrowed(np.array([1.0, 1.0625, 1.19, 17.0, 500.0, -1000.0]), TensorProto.FLOAT8E4M3FN)
    np.testing.assert_array_equal(found, [1.0, 1.0, 1.25, 16.0, 448.0, -448.0])
