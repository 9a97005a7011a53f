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
def test_at_any_length(tmp_path: Path, padded: Callable[[Net, str], str]) -> None:
    net = Net()
    y = circular(net, ["n", "l", 4], padded)
    model = lift(net, y, ["n", "l", WIDTH], tmp_path, (2, 24), (3, 11))
    assert any("run through 2 times" in note for note in model.notes)
    on_targets(model, 2, 17)


@pytest.mark.parametrize(("before", "after"), [(3, 0), (0, 2), (1, 4)])
def test_the_steps_over_each_end(tmp_path: Path, before: int, after: int) -> None:
    """A filter that reaches further to one side than to the other."""
    net = Net()
    x = net.op("Transpose", net.input(["n", "l", WIDTH]), perm=[0, 2, 1])
    x = net.op("Pad", x, net.ints(0, 0, before, 0, 0, after), mode="wrap")
    taps = RNG.standard_normal((WIDTH, 1, before + after + 1))
    y = net.op("Conv", x, net.const(taps), kernel_shape=[before + after + 1], group=WIDTH)
    y = net.op("Tanh", net.op("Transpose", y, perm=[0, 2, 1]))
    lift(net, y, ["n", "l", WIDTH], tmp_path, (2, 24), (3, 13))


def test_too_many_steps_over_an_end(tmp_path: Path) -> None:
    net = Net()
    x = net.op("Transpose", net.input(["n", "l", WIDTH]), perm=[0, 2, 1])
    x = net.op("Pad", x, net.ints(0, 0, 20, 0, 0, 20), mode="wrap")
    y = net.op("Conv", x, net.const(RNG.standard_normal((WIDTH, 1, 41))), kernel_shape=[41], group=WIDTH)
    path = save(net.model([(net.op("Transpose", y, perm=[0, 2, 1]), ["n", "l", WIDTH])]), tmp_path)
    message = refused(path, "circular padding", "at a fixed length")
    assert "another model" not in message
