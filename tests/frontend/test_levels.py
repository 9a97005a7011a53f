"""Scans of logarithmic depth whose number of levels was fixed when the file was traced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.frontend.blocks import RNG
from tests.frontend.checks import LINEAR, kinds, lift, refused
from tests.frontend.net import Net, save

WIDTH = 3


def doubling(dims: list[int | str], levels: int, decay: float) -> tuple[Net, str]:
    net = Net()
    x = net.op("MatMul", net.input(dims), net.const(RNG.standard_normal((4, WIDTH))))
    for level in range(levels):
        shift = 1 << level
        padded = net.op("Pad", x, net.ints(0, shift, 0, 0, 0, 0))
        shifted = net.op("Slice", padded, net.ints(0), net.ints(-shift), net.ints(1))
        x = net.op("Add", x, net.op("Mul", shifted, net.const(np.full(WIDTH, decay**shift))))
    return net, x


def halving(net: Net, x: str, decay: float, length: int) -> str:
    """Blelloch's scan of x_t = decay x_{t-1} + x_t, its depth that of `length`."""

    def every(v: str, start: int, step: int = 2, stop: int = 1 << 40) -> str:
        return str(net.op("Slice", v, net.ints(start), net.ints(stop), net.ints(1), net.ints(step)))

    if length == 1:
        return x
    by = net.const(np.full(WIDTH, decay))
    odd = net.op("Add", net.op("Mul", by, every(x, 0)), every(x, 1))
    odd = halving(net, odd, decay**2, length // 2)
    even = net.op("Add", net.op("Mul", by, every(odd, 0, 1, -1)), every(x, 2))
    even = net.op("Concat", every(x, 0, 1, 1), even, axis=1)
    pairs = net.op("Concat", *(net.op("Unsqueeze", v, net.ints(2)) for v in (even, odd)), axis=2)
    return str(net.op("Reshape", pairs, net.ints(0, -1, WIDTH)))


def test_doubled_shifts_end_where_they_did_when_traced(tmp_path: Path) -> None:
    net, y = doubling(["n", "l", 4], 4, 0.95)
    refused(save(net.model([(y, ["n", "l", WIDTH])]), tmp_path), "Pad", "the last of 4 levels", "up to 16 steps only")


def test_at_a_fixed_length_they_are_right(tmp_path: Path) -> None:
    net, y = doubling([2, 16, 4], 4, 0.95)
    assert kinds(lift(net, y, [2, 16, WIDTH], tmp_path, (2, 16))) == [LINEAR]


def test_what_is_forgotten_within_their_reach_is_no_matter(tmp_path: Path) -> None:
    net, y = doubling(["n", "l", 4], 5, 0.3)
    assert kinds(lift(net, y, ["n", "l", WIDTH], tmp_path, (2, 9), (3, 80))) == [LINEAR]


@pytest.mark.parametrize("dims", [[2, 16, 4], ["n", "l", 4]])
def test_halved_steps(tmp_path: Path, dims: list[int | str]) -> None:
    net = Net()
    x = net.op("MatMul", net.input(dims), net.const(RNG.standard_normal((4, WIDTH))))
    y = halving(net, x, 0.9, 16)
    if dims[0] == 2:
        assert kinds(lift(net, y, [2, 16, WIDTH], tmp_path, (2, 16))) == [LINEAR]
    else:
        refused(save(net.model([(y, ["n", "l", WIDTH])]), tmp_path), "levels of a scan that halves its steps")
