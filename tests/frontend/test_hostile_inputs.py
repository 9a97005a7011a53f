"""Inputs that are no tensors of numbers, agree in nothing, or are very many: a message, and soon."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.frontend import load_model
from tests.frontend.checks import refused
from tests.frontend.net import Net, save, stepwise

pytestmark = pytest.mark.invalid_files


def test_an_input_of_strings(tmp_path: Path) -> None:
    net = Net()
    model = net.model([(net.op("Relu", net.input(["b", "t", 3])), ["b", "t", 3])])
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    refused(save(model, tmp_path), "holds no real numbers")


@pytest.mark.parametrize("kind", ["sequence_type", "optional_type"])
def test_an_input_that_is_no_tensor(tmp_path: Path, kind: str) -> None:
    net = Net()
    model = net.model([(net.op("Relu", net.input(["b", "t", 3])), ["b", "t", 3])])
    model.graph.input[0].ClearField("type")
    getattr(model.graph.input[0].type, kind).elem_type.tensor_type.elem_type = TensorProto.FLOAT
    refused(save(model, tmp_path), "has no declared shape", "it may be no tensor")


def test_a_size_of_minus_one_is_any(tmp_path: Path) -> None:
    net = Net()
    y = net.op("CumSum", net.input(("b", -1, 3)), net.const(np.int64(1)))
    model = load_model(save(stepwise(net, y, 3), tmp_path))
    assert model.inputs[0].expected() == ("batch", "time", 3)


def test_many_inputs(tmp_path: Path) -> None:
    """How each is to be read is found in linear time."""
    net = Net()
    y = net.op("CumSum", net.input(("b", "t", 3)), net.const(np.int64(1)))
    for _ in range(300):
        y = net.op("Add", y, net.input(("b", "t", 3)))
    before = time.process_time()
    model = load_model(save(stepwise(net, y, 3), tmp_path))
    assert len(model.inputs) == 301 and all(proof.passed for proof in model.proofs)
    assert time.process_time() - before < 10


def test_inputs_that_agree_in_nothing(tmp_path: Path) -> None:
    net = Net()
    parts = [net.op("ReduceSum", net.input((2, 5 + k % 2, 3)), net.ints(1), keepdims=1) for k in range(40)]
    before = time.process_time()
    refused(save(net.model([(net.op("Sum", *parts), (2, 1, 3))]), tmp_path), "")
    assert time.process_time() - before < 10
