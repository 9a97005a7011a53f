"""Scans of logarithmic depth whose number of levels was fixed when the file was traced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssmc.frontend import load_model
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


def computed(dims: list[int | str], levels: int, how: str, chunk: int = 0) -> tuple[Net, str]:
    """Doubled shifts with decays of the data, each level as padded and cut, or as two joined parts."""
    net = Net()
    x = net.input(dims)
    a = net.op("Sigmoid", net.op("MatMul", x, net.const(RNG.standard_normal((4, WIDTH)))))
    u = net.op("MatMul", x, net.const(RNG.standard_normal((4, WIDTH))))
    axis = 2 if chunk else 1
    if chunk:
        a, u = (net.op("Reshape", v, net.ints(0, -1, chunk, WIDTH)) for v in (a, u))

    def part(v: str, start: int, stop: int) -> str:
        return str(net.op("Slice", v, net.ints(start), net.ints(stop), net.ints(axis)))

    def late(v: str, shift: int, fill: float) -> str:
        front = [shift if k == axis else 0 for k in range(axis + 2)]
        padded = net.op("Pad", v, net.ints(*front, *[0] * (axis + 2)), net.const(np.float32(fill)))
        return part(padded, 0, -shift)

    for level in range(levels):
        d = 1 << level
        if how == "padded":
            u = net.op("Add", u, net.op("Mul", a, late(u, d, 0.0)))
            a = net.op("Mul", a, late(a, d, 1.0))
        else:
            behind, end = part(a, d, 1 << 40), 1 << 40
            new = net.op("Add", part(u, d, end), net.op("Mul", behind, part(u, 0, -d)))
            u = net.op("Concat", part(u, 0, d), new, axis=axis)
            a = net.op("Concat", part(a, 0, d), net.op("Mul", behind, part(a, 0, -d)), axis=axis)
    return net, str(net.op("Reshape", u, net.ints(0, -1, WIDTH))) if chunk else u


@pytest.mark.parametrize("how", ["padded", "joined"])
def test_a_scan_that_was_traced_at_three_steps(tmp_path: Path, how: str) -> None:
    net, y = computed(["n", "l", 4], 2, how)
    refused(save(net.model([(y, ["n", "l", WIDTH])]), tmp_path), "the last of 2 levels", "up to 4 steps only")


def test_a_scan_within_chunks_is_right_at_any_length(tmp_path: Path) -> None:
    net, y = computed(["n", "l", 4], 2, "padded", chunk=4)
    path = save(net.model([(y, ["n", "l", WIDTH])]), tmp_path)
    assert not any("levels" in refusal.reason for refusal in load_model(path, strict=False).unsupported)


def test_products_of_neighbours_are_no_scan(tmp_path: Path) -> None:
    """x_t x_{t-1} beside a gate of the data on the step before."""
    net = Net()
    x = net.input(["n", "l", 4])
    late = net.op("Slice", net.op("Pad", x, net.ints(0, 1, 0, 0, 0, 0)), net.ints(0), net.ints(-1), net.ints(1))
    y = net.op("Add", net.op("Mul", x, late), net.op("Mul", net.op("Sigmoid", x), late))
    load_model(save(net.model([(y, ["n", "l", 4])]), tmp_path))
