"""Filters that are written as a sum of shifted copies: delays, and no system beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssmc.frontend import load_model
from tests.frontend.blocks import RNG
from tests.frontend.checks import lift, on_targets
from tests.frontend.net import Net, save

CHANNELS = 3


@pytest.mark.parametrize("length", [7, "t"])
def test_a_sum_of_shifted_copies(tmp_path: Path, length: int | str) -> None:
    """Each copy padded at its beginning and cut at its end, times its taps."""
    rng, net = np.random.default_rng(6), Net()
    x = net.input([2, length, CHANNELS])
    total = net.op("Mul", x, net.const(rng.standard_normal(CHANNELS)))
    for lag in range(1, 5):
        padded = net.op("Pad", x, net.ints(0, lag, 0, 0, 0, 0))
        shifted = net.op("Slice", padded, net.ints(0), net.ints(-lag), net.ints(1))
        total = net.op("Add", total, net.op("Mul", shifted, net.const(rng.standard_normal(CHANNELS))))
    model = load_model(save(net.model([(net.op("Tanh", total), [2, length, CHANNELS])]), tmp_path))
    assert model.other_ops["delay"] == 4
    on_targets(model, 2, 7)


def test_filters_that_became_registers_are_told(tmp_path: Path) -> None:
    net = Net()
    x = net.op("Transpose", net.input(["n", "l", 3]), perm=[0, 2, 1])
    padded = net.op("Pad", x, net.ints(0, 0, 4, 0, 0, 0))
    y = net.op("Conv", padded, net.const(RNG.standard_normal((5, 3, 3))), kernel_shape=[3], dilations=[2])
    y = net.op("Tanh", net.op("Transpose", y, perm=[0, 2, 1]))
    model = lift(net, y, ["n", "l", 5], tmp_path, (2, 13), (3, 21))
    assert not model.systems
    assert any(note.startswith("no system: '") and "up to 4" in note for note in model.notes), model.notes


@pytest.mark.parametrize("length", [12, "t"])
def test_short_filters_before_a_mean_over_time(tmp_path: Path, length: int | str) -> None:
    """A classifier of dilated convolutions alone: what the registers hold reaches its output, which is no stream."""
    net = Net()
    x = net.op("Transpose", net.input(["b", length, CHANNELS]), perm=[0, 2, 1])
    for spread in (1, 2):
        padded = net.op("Pad", x, net.ints(0, 0, 2 * spread, 0, 0, 0))
        weights = net.const(RNG.standard_normal((CHANNELS, CHANNELS, 3)))
        x = net.op("Add", x, net.op("Relu", net.op("Conv", padded, weights, kernel_shape=[3], dilations=[spread])))
    mean = net.op("ReduceMean", x, net.ints(2), keepdims=0)
    y = net.op("Softmax", net.op("MatMul", mean, net.const(RNG.standard_normal((CHANNELS, 4)))), axis=-1)
    sizes = [(2, 12)] if length == 12 else [(2, 12), (3, 21)]
    model = lift(net, y, ["b", 4], tmp_path, *sizes)
    assert not model.systems and model.other_ops["delay"]
    on_targets(model, *sizes[0])
