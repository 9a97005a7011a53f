"""Streams of a lower rate that are brought back: SaShiMi's pooling, U-Nets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssmc.diagnostics import UserError
from tests.frontend.blocks import RNG, decaying, dense, first_layer
from tests.frontend.checks import LINEAR, lift, on_targets
from tests.frontend.net import Net

WIDTH = 4


def turned(net: Net, x: str) -> str:
    return str(net.op("Transpose", x, perm=[0, 2, 1]))


def down(net: Net, x: str, width: int, times: int) -> str:
    """SaShiMi's down-pooling (arXiv 2202.09729, section 4.3): the steps of a window are features, and a matrix."""
    windows = net.op("Reshape", x, net.ints(0, -1, times, width))
    return dense(net, net.op("Reshape", windows, net.ints(0, -1, times * width)), times * width, 2 * width)


def up(net: Net, x: str, width: int, times: int, causal: bool, apart: bool) -> str:
    """SaShiMi's up-pooling: a matrix, the step before, and features that are steps, which get an axis of their own
    (`apart`) or not."""
    wide = dense(net, x, 2 * width, times * width)
    if causal:
        before = net.op("Slice", wide, net.ints(0), net.ints(-1), net.ints(1))
        wide = net.op("Pad", before, net.ints(0, 1, 0, 0, 0, 0))
    wide = net.op("Reshape", wide, net.ints(0, 0, times, width)) if apart else wide
    return str(net.op("Reshape", wide, net.ints(0, -1, width)))


def level(net: Net, x: str, width: int) -> str:
    return str(net.op("Tanh", decaying(net, x, width)))


@pytest.mark.parametrize("length", [24, "t"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("apart", [True, False])
def test_sashimi(tmp_path: Path, length: int | str, causal: bool, apart: bool) -> None:
    """Two levels, pooled by 4 and by 2."""
    net = Net()
    x = net.op("Tanh", first_layer(net, length))
    inner = level(net, down(net, x, WIDTH, 4), 2 * WIDTH)
    innermost = level(net, down(net, inner, 2 * WIDTH, 2), 4 * WIDTH)
    inner = level(net, net.op("Add", up(net, innermost, 2 * WIDTH, 2, causal, apart), inner), 2 * WIDTH)
    y = net.op("Add", up(net, inner, WIDTH, 4, causal, apart), x)
    sizes = ((2, 24),) if length == 24 else ((2, 24), (3, 40))
    model = lift(net, y, ["n", length, WIDTH], tmp_path, *sizes)
    assert [s.kind for s in model.systems] == [LINEAR] * 4
    assert any("a multiple of 8" in note for note in model.notes) == (length == "t")
    assert any("run through" in note for note in model.notes) is False
    on_targets(model, 2, 24)


def test_steps_of_time_first(tmp_path: Path) -> None:
    """The batch stands between time and the features: the same numbers in the same places are other sequences'."""
    net = Net()
    x = first_layer(net, 24)
    slow = level(net, net.op("Slice", x, net.ints(0), net.ints(1 << 40), net.ints(1), net.ints(2)), WIDTH)
    wide = net.op("Transpose", dense(net, slow, WIDTH, 2 * WIDTH), perm=[1, 0, 2])
    steps = net.op("Reshape", net.op("Reshape", wide, net.ints(12, -1, 2, WIDTH)), net.ints(24, -1, WIDTH))
    y = net.op("Add", net.op("Transpose", steps, perm=[1, 0, 2]), x)
    with pytest.raises(UserError, match="up-sampling"):
        lift(net, y, ["n", 24, WIDTH], tmp_path, (3, 24))


def transposed(taps: int, pads: int, weight: float = 1.0) -> Callable[[Net, str], str]:
    def build(net: Net, x: str) -> str:
        kernel, bias = weight * RNG.standard_normal((WIDTH, WIDTH, taps)), RNG.standard_normal(WIDTH)
        attrs = {"strides": [2], "pads": [pads, pads]}
        return turned(net, net.op("ConvTranspose", turned(net, x), net.const(kernel), net.const(bias), **attrs))

    return build


def nearest(net: Net, x: str) -> str:
    scales = net.const(np.array([1, 1, 2.0]))
    attrs = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return turned(net, net.op("Resize", turned(net, x), "", scales, **attrs))


def repeated(net: Net, x: str) -> str:
    wide = net.op("Expand", net.op("Unsqueeze", x, net.ints(2)), net.ints(1, 1, 2, 1))
    return str(net.op("Reshape", wide, net.ints(0, -1, WIDTH)))


def looked_up(net: Net, x: str) -> str:
    return str(net.op("Gather", x, net.const(np.repeat(np.arange(12), 2)), axis=1))


UPS = {
    "transposed": transposed(2, 0),
    "overlapping": transposed(4, 1),
    "of no weight": transposed(2, 0, 0.0),
    "nearest": nearest,
    "repeated": repeated,
    "looked up": looked_up,
}


@pytest.mark.parametrize("kind", ["take", "average"])
@pytest.mark.parametrize("form", UPS)
def test_steps_and_a_level_between(tmp_path: Path, form: str, kind: str) -> None:
    net = Net()
    x = first_layer(net, 24)
    if kind == "take":
        slow = net.op("Slice", x, net.ints(0), net.ints(1 << 40), net.ints(1), net.ints(2))
    else:
        slow = turned(net, net.op("AveragePool", turned(net, x), kernel_shape=[2], strides=[2]))
    y = UPS[form](net, level(net, slow, WIDTH))
    model = lift(net, net.op("Add", x, y), ["n", 24, WIDTH], tmp_path, (3, 24))
    assert [s.kind for s in model.systems] == [LINEAR] * 2
    on_targets(model, 2, 24)
