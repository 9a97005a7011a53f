"""Sequences that are reversed by their own lengths, in the forms in which torch leaves that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from tests.frontend.checks import refused
from tests.frontend.net import Net, save

LENGTH, WIDTH = 9, 3


def smoothed(net: Net, x: str) -> str:
    state, found = "", []
    for k in range(LENGTH):
        u = net.op("Gather", x, net.const(np.int64(k)), axis=1)
        state = net.op("Add", net.op("Mul", net.const(np.array([0.5, 0.7, 0.9])), state), u) if state else u
        found.append(net.op("Unsqueeze", state, net.ints(1)))
    return str(net.op("Concat", *found, axis=1))


def reversed_by_length(net: Net, x: str, lengths: str, batch: int, how: str) -> str:
    """Step k is step length - 1 - k of the sequence, and steps behind its end stay."""
    steps = net.const(np.arange(LENGTH)[None])
    last = net.op("Sub", net.op("Unsqueeze", lengths, net.ints(1)), net.const(np.int64(1)))
    back = net.op("Sub", last, steps)
    index = net.op("Where", net.op("Less", back, net.const(np.int64(0))), steps, back)
    if how == "elements":
        wide = net.op("Expand", net.op("Unsqueeze", index, net.ints(2)), net.ints(1, 1, WIDTH))
        return str(net.op("GatherElements", x, wide, axis=1))
    samples = net.const(LENGTH * np.arange(batch)[:, None])
    flat = net.op("Reshape", x, net.ints(batch * LENGTH, WIDTH))
    found = net.op("Gather", flat, net.op("Reshape", net.op("Add", index, samples), net.ints(-1)), axis=0)
    return str(net.op("Reshape", found, net.ints(batch, LENGTH, WIDTH)))


@pytest.mark.parametrize("how", ["elements", "flat"])
@pytest.mark.parametrize("batch", [1, 2])
def test_reversal_by_lengths(tmp_path: Path, how: str, batch: int) -> None:
    net = Net()
    x, lengths = net.input([batch, LENGTH, WIDTH]), net.input([batch], TensorProto.INT64)
    y = smoothed(net, reversed_by_length(net, x, lengths, batch, how))
    message = refused(
        save(net.model([(y, [batch, LENGTH, WIDTH])]), tmp_path), "reverses every sequence by its own length"
    )
    assert "1 node cannot" in message and "out of bounds" not in message


def test_reverse_sequence_of_computed_lengths(tmp_path: Path) -> None:
    net = Net()
    x, lengths = net.input([2, LENGTH, WIDTH]), net.input([2], TensorProto.INT64)
    y = smoothed(net, net.op("ReverseSequence", x, lengths, batch_axis=0, time_axis=1))
    refused(save(net.model([(y, [2, LENGTH, WIDTH])]), tmp_path), "reverses every sequence by its own length")


def test_any_order_that_the_data_give(tmp_path: Path) -> None:
    """x[(k + n) % T]: a shift by a number of the data."""
    net = Net()
    x, number = net.input([2, LENGTH, WIDTH]), net.input([2], TensorProto.INT64)
    moved = net.op("Add", net.op("Unsqueeze", number, net.ints(1)), net.const(np.arange(LENGTH)[None]))
    index = net.op("Unsqueeze", net.op("Mod", moved, net.const(np.int64(LENGTH))), net.ints(2))
    y = net.op("GatherElements", x, net.op("Expand", index, net.ints(1, 1, WIDTH)), axis=1)
    path = save(net.model([(smoothed(net, y), [2, LENGTH, WIDTH])]), tmp_path)
    refused(path, "in an order that the data give")
