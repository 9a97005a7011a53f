"""Steps at other rates: what makes more of them is refused with its reason; transposed convolutions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssmc.frontend import load_model
from tests.frontend.blocks import DYNAMIC, RNG, decaying, first_layer
from tests.frontend.checks import kinds, lift, on_targets, refused
from tests.frontend.net import Net, save


def turned(net: Net, x: str) -> str:
    return str(net.op("Transpose", x, perm=[0, 2, 1]))


def repeated(net: Net, x: str) -> str:
    """Each step twice, as torch's repeat_interleave."""
    wide = net.op("Expand", net.op("Unsqueeze", x, net.ints(2)), net.ints(1, 1, 2, 1))
    return str(net.op("Reshape", wide, net.ints(0, -1, 4)))


def pooled_and_back(net: Net, x: str) -> str:
    pooled = turned(net, net.op("AveragePool", turned(net, x), kernel_shape=[2], strides=[2]))
    return repeated(net, decaying(net, pooled, 4))


RISING: dict[str, tuple[Callable[[Net, str], str], str, str]] = {
    "transposed convolution": (
        lambda n, x: turned(
            n, n.op("ConvTranspose", turned(n, x), n.const(RNG.standard_normal((4, 4, 2))), strides=[2])),
        "ConvTranspose", "2 steps for each one (up-sampling)"),
    "nearest": (
        lambda n, x: turned(n, n.op("Resize", turned(n, x), "", n.const(np.array([1, 1, 3.0])), mode="nearest")),
        "Resize", "3 steps for each one (up-sampling)"),
    "linear": (
        lambda n, x: turned(n, n.op("Resize", turned(n, x), "", n.const(np.array([1, 1, 2.0])), mode="linear")),
        "Resize", "2 steps for each one (up-sampling)"),
    "repeated": (repeated, "Reshape", "up-sampling"),
    "features to steps": (lambda n, x: n.op("Reshape", x, n.ints(0, -1, 2)), "Reshape", "up-sampling"),
    "higher than the input": (lambda n, x: repeated(n, pooled_and_back(n, x)), "Reshape", "cannot rise above"),
}  # fmt: skip


@pytest.mark.parametrize("length", [None, "t"])
@pytest.mark.parametrize("form", RISING)
def test_up_sampling_is_refused(tmp_path: Path, form: str, length: str | None) -> None:
    """Whatever exporters call the length of the output."""
    build, node, reason = RISING[form]
    net = Net()
    y = build(net, first_layer(net))
    refused(save(net.model([(y, ["n", length, None])]), tmp_path), "cannot be translated", node, reason)


def test_inputs_of_two_lengths_are_refused(tmp_path: Path) -> None:
    net = Net()
    fast, slow = (decaying(net, net.input(["n", name, 4]), 4) for name in ("fast", "slow"))
    y = net.op("Add", fast, repeated(net, slow))
    refused(save(net.model([(y, ["n", "fast", 4])]), tmp_path), "'fast' and 'slow'", "at the rate of the faster one")


@pytest.mark.parametrize(("groups", "spacing"), [(1, 1), (2, 1), (4, 2)])
def test_transposed_convolutions_step_by_step_are_filters(tmp_path: Path, groups: int, spacing: int) -> None:
    net = Net()
    kernel, bias = net.const(RNG.standard_normal((4, 8 // groups, 3))), net.const(RNG.standard_normal(8))
    attrs = {"group": groups, "dilations": [spacing], "pads": [spacing, spacing]}
    y = turned(net, net.op("ConvTranspose", turned(net, first_layer(net)), kernel, bias, **attrs))
    model = lift(net, y, ["n", "t", 8], tmp_path, *DYNAMIC)
    assert "linear time-invariant" in kinds(model)
    on_targets(model, 2, 13)


def test_an_opset_that_nobody_knows_is_noted(tmp_path: Path) -> None:
    net = Net()
    x = first_layer(net)
    model = load_model(save(net.model([(x, ["n", "t", 4])], opset=99), tmp_path))
    assert any("opset 99" in note for note in model.notes)
    assert not any("opset" in note for note in load_model(save(net.model([(x, ["n", "t", 4])]), tmp_path)).notes)
