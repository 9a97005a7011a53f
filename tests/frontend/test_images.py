"""Images: patches that become steps are refused with the way out, which works; channels that become places compile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.frontend.blocks import RNG, decaying
from tests.frontend.checks import LINEAR, kinds, lift, on_targets, refused
from tests.frontend.net import Net, save

WIDTH = 5


def behind(net: Net, tokens: str) -> str:
    return str(net.op("ReduceMean", net.op("Tanh", decaying(net, tokens, WIDTH)), net.ints(1), keepdims=0))


def test_patches_of_an_image(tmp_path: Path) -> None:
    net = Net()
    image = net.op("Sub", net.input(["n", 3, 16, 24]), net.const(np.float32(0.5)))
    kernel = net.const(RNG.standard_normal((WIDTH, 3, 4, 4)))
    patches = net.op("Conv", image, kernel, kernel_shape=[4, 4], strides=[4, 4])
    lined = net.op("Reshape", patches, net.ints(0, WIDTH, 24))
    y = behind(net, net.op("Transpose", lined, perm=[0, 2, 1]))
    path = save(net.model([(y, ["n", WIDTH])]), tmp_path)
    refused(path, "1 node", "Conv", "patches of an image", f"at 'Reshape({lined})'", "(batch, steps, features)")


def test_rows_and_columns_lined_up(tmp_path: Path) -> None:
    net = Net()
    pixels = net.op("Reshape", net.op("Sub", net.input(["n", 1, 4, 6]), net.const(np.float32(0.5))), net.ints(0, 24, 1))
    y = behind(net, net.op("MatMul", pixels, net.const(RNG.standard_normal((1, WIDTH)))))
    path = save(net.model([(y, ["n", WIDTH])]), tmp_path)
    refused(path, "1 node", "Reshape", "rows and columns of an image as the steps", "(batch, steps, features)")


def test_the_part_behind_the_patches(tmp_path: Path) -> None:
    net = Net()
    model = lift(net, behind(net, net.input(["n", 24, WIDTH])), ["n", WIDTH], tmp_path, (2, 24))
    assert kinds(model) == [LINEAR]
    on_targets(model, 2, 24)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_places_become_channels_and_back(tmp_path: Path, mode: str) -> None:
    net = Net()
    x = net.input(["b", "t", 24])
    deep = net.op("SpaceToDepth", net.op("Reshape", decaying(net, x, 24), net.ints(-1, 1, 4, 6)), blocksize=2)
    mixed = net.op("Conv", deep, net.const(RNG.standard_normal((8, 4, 1, 1))))
    wide = net.op("DepthToSpace", net.op("Tanh", mixed), blocksize=2, mode=mode)
    y = net.op("Reshape", wide, net.op("Concat", net.op("Shape", x, end=2), net.ints(48), axis=0))
    on_targets(lift(net, y, ["b", "t", 48], tmp_path, (2, 5)), 2, 5)
