"""Streams joined along the batch, as where both directions go through one layer with shared weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frontend.blocks import RNG
from tests.frontend.checks import lift, on_targets, refused
from tests.frontend.net import Net, save

INPUTS, WIDTH, LENGTH = 5, 4, 24


def scanned(net: Net, x: str, rows: str) -> str:
    """h_k = a h_{k-1} + x_k over (samples, steps, features)."""
    body = Net()
    h, u = body.input(None), body.input(None)
    new = body.op("Add", body.op("Mul", h, body.const(RNG.uniform(0.5, 0.9, WIDTH))), u)
    graph = body.subgraph([(new, None), (body.op("Identity", new), None)])
    start = net.op("ConstantOfShape", net.op("Concat", rows, net.ints(WIDTH), axis=0))
    _, y = net.op("Scan", start, x, body=graph, num_scan_inputs=1, outputs=2, scan_input_axes=[1], scan_output_axes=[1])
    return str(y)


def backwards(net: Net, x: str) -> str:
    return str(net.op("Slice", x, net.ints(-1), net.ints(-(1 << 40)), net.ints(1), net.ints(-1)))


@pytest.mark.parametrize(("batch", "length"), [(2, LENGTH), ("n", "l")])
def test_both_directions_through_one_layer(tmp_path: Path, batch: int | str, length: int | str) -> None:
    net = Net()
    x = net.input([batch, length, INPUTS])
    x = net.op("MatMul", x, net.const(RNG.standard_normal((INPUTS, WIDTH))))
    both = net.op("Concat", x, backwards(net, x), axis=0)
    y = scanned(net, both, net.op("Slice", net.op("Shape", both), net.ints(0), net.ints(1)))
    if batch == 2:
        ahead, back = net.op("Split", y, net.ints(2, 2), axis=0, outputs=2)
    else:
        half = net.op("Slice", net.op("Shape", x), net.ints(0), net.ints(1))
        ahead = net.op("Slice", y, net.ints(0), half, net.ints(0))
        back = net.op("Slice", y, half, net.ints(1 << 40), net.ints(0))
    y = net.op("Add", net.op("Relu", ahead), backwards(net, back))
    model = lift(net, y, [batch, length, WIDTH], tmp_path, (2, LENGTH), *[(3, 17)] * (batch == "n"))
    assert len(model.systems) == 1
    on_targets(model, 2, LENGTH)


def test_samples_that_are_taken_across_the_joint(tmp_path: Path) -> None:
    net = Net()
    x = net.op("MatMul", net.input([2, LENGTH, INPUTS]), net.const(RNG.standard_normal((INPUTS, WIDTH))))
    y = scanned(net, net.op("Concat", x, backwards(net, x), axis=0), net.ints(4))
    y = net.op("Slice", y, net.ints(1), net.ints(3), net.ints(0))
    path = save(net.model([(net.op("Relu", y), [2, LENGTH, WIDTH])]), tmp_path)
    refused(path, "batch and features are one axis")
