"""Norms as `jnp.var` leaves them: NaN in place of the variance of no numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto

from tests.frontend.blocks import RNG, first_layer
from tests.frontend.checks import LINEAR, kinds, lift, on_targets, refused
from tests.frontend.net import Net, save, stepwise

WIDTH = 4


def variance(net: Net, x: str, counted: str) -> str:
    """Over the last axis of `x`, as `jnp.var` computes it: NaN where there is nothing to count."""
    mean = net.op("Div", net.op("ReduceSum", x, net.ints(2)), net.const(np.float32(WIDTH)))
    batch = net.op("Gather", net.op("Shape", x), net.ints(0, 1), axis=0)
    squares = net.op("ReduceSumSquare", net.op("Sub", x, mean), net.ints(2))
    shape = net.op("Concat", batch, net.ints(1), axis=0)
    nothing = net.op("Expand", net.const(np.float32(np.nan)), shape)
    return str(net.op("Where", counted, net.op("Div", squares, net.const(np.float32(WIDTH))), nothing))


def test_the_variance_of_no_numbers_is_no_weight(tmp_path: Path) -> None:
    net = Net()
    x = first_layer(net)
    count = net.op("Sub", net.const(np.float32(WIDTH)), net.op("Cast", net.const(np.int32(0)), to=TensorProto.FLOAT))
    found = variance(net, x, net.op("Greater", count, net.const(np.float32(0))))
    scale = net.op("Div", net.const(np.float32(1)), net.op("Sqrt", net.op("Add", found, net.const(np.float32(1e-5)))))
    y = net.op("Mul", net.op("Mul", x, scale), net.const(RNG.standard_normal(WIDTH)))
    model = lift(net, y, ["n", "t", WIDTH], tmp_path, (2, 7))
    assert kinds(model) == [LINEAR]
    on_targets(model, 2, 9)


def test_a_number_that_is_none_is_refused_where_data_take_it(tmp_path: Path) -> None:
    net = Net()
    x = first_layer(net)
    counted = net.op("Greater", net.op("ReduceSum", x, net.ints(2)), net.const(np.float32(0)))
    refused(save(stepwise(net, net.op("Mul", x, variance(net, x, counted)), WIDTH), tmp_path), "not finite", "NaN")


def test_a_number_that_is_none_is_refused_where_it_is_computed_with(tmp_path: Path) -> None:
    net = Net()
    x = first_layer(net)
    nothing = net.const(np.float32(np.nan))
    y = net.op("Where", net.op("Greater", x, net.const(np.float32(0))), x, net.op("Mul", x, nothing))
    refused(save(stepwise(net, y, WIDTH), tmp_path), "not finite", nothing)
