"""Convolutions whose padding joins the end of the sequence to its beginning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.frontend.blocks import RNG
from tests.frontend.checks import lift, on_targets, refused
from tests.frontend.net import Net, save

WIDTH, TAPS = 3, 5


def by_pad(net: Net, x: str) -> str:
    return str(net.op("Pad", x, net.ints(0, 0, 2, 0, 0, 2), mode="wrap"))


def by_slices(net: Net, x: str) -> str:
    """As the TorchScript exporter writes it."""
    end = net.op("Slice", x, net.ints(-2), net.ints(1 << 40), net.ints(2))
    begin = net.op("Slice", x, net.ints(0), net.ints(2), net.ints(2))
    return str(net.op("Concat", end, x, begin, axis=2))


def circular(net: Net, dims: list[int | str], padded: Callable[[Net, str], str]) -> str:
    x = net.op("MatMul", net.input(dims), net.const(RNG.standard_normal((4, WIDTH))))
    x = padded(net, net.op("Transpose", net.op("CumSum", x, net.const(np.int64(1))), perm=[0, 2, 1]))
    y = net.op("Conv", x, net.const(RNG.standard_normal((WIDTH, WIDTH, TAPS))), kernel_shape=[TAPS])
    return str(net.op("Relu", net.op("Transpose", y, perm=[0, 2, 1])))


@pytest.mark.parametrize("padded", [by_pad, by_slices])
def test_at_a_fixed_length(tmp_path: Path, padded: Callable[[Net, str], str]) -> None:
    net = Net()
    model = lift(net, circular(net, [2, 24, 4], padded), [2, 24, WIDTH], tmp_path)
    on_targets(model, 2, 24)


@pytest.mark.parametrize("padded", [by_pad, by_slices])
def test_at_any_length_it_is_refused_for_what_it_is(tmp_path: Path, padded: Callable[[Net, str], str]) -> None:
    net = Net()
    path = save(net.model([(circular(net, ["n", "l", 4], padded), ["n", "l", WIDTH])]), tmp_path)
    message = refused(path, "circular padding", "at a fixed length")
    assert "another model" not in message
