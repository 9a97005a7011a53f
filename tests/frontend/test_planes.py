"""Convolutions and poolings over steps and features at once, as in front of a speech model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from tests.frontend.blocks import RNG
from tests.frontend.checks import lift, refused
from tests.frontend.net import Net, save

CASES: list[dict[str, Any]] = [
    {"strides": [2, 2]},
    {"strides": [1, 1]},  # nothing is put around the sequence: it gets shorter
    {"strides": [2, 1], "pads": [1, 0, 1, 2]},
    {"strides": [3, 2], "pads": [2, 1, 0, 1], "dilations": [1, 2]},
    {"strides": [2, 2], "dilations": [2, 1], "pads": [4, 1, 0, 1], "group": 2},
    {"strides": [1, 2], "pads": [1, 1, 1, 1], "group": 2},
]


def plane(net: Net, attrs: dict[str, Any], order: list[int]) -> str:
    """(b, t, 2, 7) through a filter over 3 steps and 3 places, to (b, u, 4 channels, places) summed over the places."""
    x = net.op("Transpose", net.input(["b", "t", 2, 7]), perm=order)
    along = order.index(1) == 3
    turned = {k: v if k == "group" else [v[i ^ 1] for i in range(len(v))] if along else v for k, v in attrs.items()}
    weight = net.const(RNG.standard_normal((4, 2 // attrs.get("group", 1), 3, 3)))
    y = net.op("Relu", net.op("Conv", x, weight, net.const(RNG.standard_normal(4)), kernel_shape=[3, 3], **turned))
    back = net.op("Transpose", y, perm=[0, 3, 1, 2] if along else [0, 2, 1, 3])
    return str(net.op("ReduceSum", back, net.ints(3), keepdims=0))


@pytest.mark.parametrize("attrs", CASES)
@pytest.mark.parametrize("order", [[0, 2, 1, 3], [0, 2, 3, 1]])
def test_a_filter_over_steps_and_places_is_one_along_time(
    attrs: dict[str, Any], order: list[int], tmp_path: Path
) -> None:
    net = Net()
    lift(net, plane(net, attrs, order), ["b", "u", 4], tmp_path, (2, 14), (3, 17))


def test_two_of_them_with_a_state_behind(tmp_path: Path) -> None:
    """As speech models subsample a spectrogram four times before their layers."""
    net = Net()
    x = net.op("Unsqueeze", net.input(["b", "t", 9]), net.ints(1))
    for channels, before in ((3, 1), (2, 3)):
        weight = net.const(RNG.standard_normal((channels, before, 3, 3)))
        x = net.op("Relu", net.op("Conv", x, weight, kernel_shape=[3, 3], strides=[2, 2]))
    rows = net.op("Reshape", net.op("Transpose", x, perm=[0, 2, 1, 3]), net.ints(0, 0, 2))
    y = net.op("CumSum", rows, net.const(np.asarray(1)))
    lift(net, y, ["b", "u", 2], tmp_path, (2, 23), (1, 30))


def test_windows_that_move_with_the_length_are_refused(tmp_path: Path) -> None:
    net = Net()
    y = plane(net, {"strides": [2, 2]}, [0, 2, 1, 3])
    model = net.model([(y, ["b", "u", 4])])
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    conv.attribute.append(helper.make_attribute("auto_pad", "SAME_UPPER"))
    refused(save(model, tmp_path), "SAME_UPPER and a stride of 2")
