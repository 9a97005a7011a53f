"""Convolutions that are padded on both sides, and cut only after an activation or a rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.frontend.blocks import decaying
from tests.frontend.checks import lift, on_targets, refused
from tests.frontend.net import Net, save

WIDTH, TAPS = 4, 3
RNG = np.random.default_rng(2)


def rounded(net: Net, x: str, per_channel: bool) -> str:
    """A quantisation of the channels, which are the second axis, and back."""
    scale = RNG.uniform(0.02, 0.04, WIDTH) if per_channel else np.float32(0.03)
    operands = [net.const(scale), net.const(np.zeros(np.shape(scale), np.int8))]
    return str(net.op("DequantizeLinear", net.op("QuantizeLinear", x, *operands), *operands))


def convolved(net: Net, u: str, depthwise: bool) -> str:
    """(batch, time, channels) -> (batch, channels, time + TAPS - 1)."""
    weight = RNG.standard_normal((WIDTH, 1 if depthwise else WIDTH, TAPS))
    attrs = {"group": WIDTH if depthwise else 1, "pads": [TAPS - 1, TAPS - 1]}
    return str(net.op("Conv", net.op("Transpose", u, perm=[0, 2, 1]), net.const(weight), **attrs))


@pytest.mark.parametrize("between", ["activation", "scale", "channels"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("depthwise", [False, True])
def test_cut_to_the_length_of_the_input(tmp_path: Path, between: str, turned: bool, depthwise: bool) -> None:
    net = Net()
    u = net.input(["b", "t", WIDTH])
    y = convolved(net, u, depthwise)
    y = net.op("Relu", y) if between == "activation" else rounded(net, y, between == "channels")
    y = net.op("Add", y, net.const(RNG.standard_normal((WIDTH, 1))))
    if turned:
        y = net.op("Sigmoid", net.op("Transpose", y, perm=[0, 2, 1]))
    length = net.op("Slice", net.op("Shape", u), net.ints(1), net.ints(2))
    y = net.op("Slice", y, net.ints(0), length, net.ints(1 if turned else 2))
    y = y if turned else net.op("Transpose", y, perm=[0, 2, 1])
    model = lift(net, decaying(net, y, WIDTH), ["b", "t", WIDTH], tmp_path, (2, 9), (1, 24))
    assert [system.kind for system in model.systems if system.kind != "fir"] == ["linear time-invariant"]
    on_targets(model, 2, 17)


def test_cut_along_what_has_numbers_of_its_own(tmp_path: Path) -> None:
    """A gain for each step of the uncut convolution does not move; the file is refused."""
    net = Net()
    u = net.input(["b", 12, WIDTH])
    y = net.op("Relu", net.op("Mul", convolved(net, u, True), net.const(RNG.standard_normal(12 + TAPS - 1))))
    y = net.op("Slice", y, net.ints(0), net.ints(12), net.ints(2))
    y = decaying(net, net.op("Transpose", y, perm=[0, 2, 1]), WIDTH)
    refused(save(net.model([(y, ["b", 12, WIDTH])]), tmp_path), "Relu")
