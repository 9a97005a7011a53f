"""What is behind a lift that is not the model: numbers that are too far apart, whole numbers where none may be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.frontend.checks import refused
from tests.frontend.net import Net, save

LENGTH, WIDTH = 16, 3
DECAY = np.linspace(0.5, 0.9, WIDTH)


def test_a_weight_that_is_far_too_large(tmp_path: Path) -> None:
    """Next to a tap of 1e30 all other channels are less than any tolerance; behind a tanh they are as large as it."""
    net, kernel = Net(), np.random.default_rng(0).standard_normal((WIDTH, 1, 4))
    kernel[1, 0, 2] = 1e30
    x = net.op("Transpose", net.input(["b", LENGTH, WIDTH]), perm=[0, 2, 1])
    y = net.op("Conv", x, net.const(kernel), group=WIDTH, pads=[3, 0])
    y = net.op("Tanh", net.op("Transpose", y, perm=[0, 2, 1]))
    refused(save(net.model([(y, ["b", LENGTH, WIDTH])]), tmp_path), "too far apart", "Conv", "reaches", "weight")


def test_a_whole_number_where_its_op_takes_none(tmp_path: Path) -> None:
    """HardSwish of 2 is 1.67; onnxruntime, which expands the op, computes it in integers, where it is 0."""
    net = Net()
    x, decay = net.input(["b", 5, WIDTH]), net.const(DECAY)
    state, found = "", []
    for k in range(5):
        at = net.op("HardSwish", net.const(np.int64(k))) if k == 2 else net.const(np.int64(k))
        u = net.op("Gather", x, at, axis=1)
        state = net.op("Add", net.op("Mul", decay, state), u) if state else u
        found.append(net.op("Unsqueeze", state, net.ints(1)))
    model = net.model([(net.op("Concat", *found, axis=1), ["b", 5, WIDTH])])
    refused(save(model, tmp_path), "HardSwish", "is given int64", "cast its operands")


def test_an_attribute_that_is_not_there(tmp_path: Path) -> None:
    """Of a node that is run to find the states."""
    net, dims = Net(), ["b", WIDTH]
    state, x = net.input(dims), net.op("Cast", net.input(dims))
    new = net.op("Add", net.op("Mul", state, net.const(DECAY)), x)
    model = net.model([(net.op("Tanh", new), dims), (new, dims)])
    refused(save(model, tmp_path), "'Cast' lacks the attribute 'to'")


@pytest.mark.parametrize("kind", ["Max", "Mul"])
def test_operands_of_two_types(tmp_path: Path, kind: str) -> None:
    """Told by onnxruntime, whether they make another model than the file's or one that is nothing."""
    net, dims = Net(), ["b", "t", WIDTH]
    x = net.op(kind, net.input(dims), net.const(np.zeros(WIDTH, np.int64)))
    y = net.op("CumSum", x, net.const(np.int64(1)))
    refused(save(net.model([(y, dims)]), tmp_path), "different types")
