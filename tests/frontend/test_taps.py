"""Dynamic lengths: what reaches farther back than the steps that are studied otherwise, however it is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from ssmc.frontend.source.importer import import_model
from ssmc.frontend.source.listing import list_calls
from ssmc.frontend.source.proto import read_model
from ssmc.frontend.source.taps import span, taps
from tests.frontend.checks import lift, refused
from tests.frontend.net import Net, save

WIDTH, FAR = 3, 2**31 - 1
Layer = Callable[[Net, str], str]


def fading(taps: int) -> np.ndarray:
    """Filters (WIDTH, taps) that look like those of systems, until they end; the last tap is the step itself."""
    return np.stack([decay ** np.arange(taps - 1, -1, -1.0) for decay in (0.8, 0.6, 0.9)])


def length(net: Net, x: str) -> str:
    return str(net.op("Gather", net.op("Shape", x), net.ints(1)))


def padded(net: Net, x: str, steps: int) -> str:
    return str(net.op("Pad", x, net.ints(0, steps, 0, 0, 0, 0)))


def delay(net: Net, x: str) -> str:
    late = net.op("Slice", padded(net, x, 30), net.ints(0), length(net, x), net.ints(1))
    return str(net.op("Add", net.op("Mul", x, net.const(0.5)), late))


def two_delays(net: Net, x: str) -> str:
    return delay(net, delay(net, x))


def behind_zeros(net: Net, x: str) -> str:
    batch = net.op("Gather", net.op("Shape", x), net.ints(0))
    shape = net.op("Concat", batch, net.ints(30, WIDTH), axis=0)
    none = helper.make_tensor("none", TensorProto.FLOAT, [1], [0.0])
    late = net.op("Concat", net.op("ConstantOfShape", shape, value=none), x, axis=1)
    return str(net.op("Add", x, net.op("Slice", late, net.ints(0), length(net, x), net.ints(1))))


def behind_rows(net: Net, x: str) -> str:
    shape = net.op("Concat", net.op("Gather", net.op("Shape", x), net.ints(0)), net.ints(1, 1), axis=0)
    late = net.op("Concat", net.op("Expand", net.const(np.zeros((1, 30, WIDTH))), shape), x, axis=1)
    return str(net.op("Add", x, net.op("Slice", late, net.ints(0), length(net, x), net.ints(1))))


def picked(net: Net, x: str) -> str:
    """By places that are counted from 30 steps before."""
    steps, none = net.op("Squeeze", length(net, x)), net.const(np.int64(0))
    place = net.op("Sub", net.op("Range", none, steps, net.const(np.int64(1))), net.const(np.int64(30)))
    known = net.op("Unsqueeze", net.op("GreaterOrEqual", place, none), net.ints(1))
    late = net.op("Gather", x, net.op("Max", place, none), axis=1)
    return str(net.op("Add", x, net.op("Where", known, late, net.const(0.0))))


def averages(net: Net, x: str) -> str:
    late = net.op("Transpose", padded(net, x, 29), perm=[0, 2, 1])
    return str(net.op("Transpose", net.op("AveragePool", late, kernel_shape=[30], strides=[1]), perm=[0, 2, 1]))


def sums_less_sums(net: Net, x: str) -> str:
    total = net.op("CumSum", x, net.const(np.int64(1)))
    before = net.op("Slice", padded(net, total, 30), net.ints(0), length(net, x), net.ints(1))
    return str(net.op("Sub", total, before))


def in_a_plane(net: Net, x: str) -> str:
    """As a filter of (30, 1) taps over steps and one row."""
    rows = net.op("Transpose", net.op("Unsqueeze", padded(net, x, 29), net.ints(2)), perm=[0, 3, 1, 2])
    found = net.op("Conv", rows, net.const(fading(30)[:, None, :, None]), group=WIDTH)
    return str(net.op("Transpose", net.op("Squeeze", found, net.ints(3)), perm=[0, 2, 1]))


def transposed(net: Net, x: str) -> str:
    taps = net.const(fading(30)[:, None, ::-1].copy())
    found = net.op("ConvTranspose", net.op("Transpose", x, perm=[0, 2, 1]), taps, group=WIDTH)
    return str(net.op("Transpose", net.op("Slice", found, net.ints(0), length(net, x), net.ints(2)), perm=[0, 2, 1]))


def shifted(net: Net, x: str) -> str:
    """A sum of slices, which are no levels of a scan though some of them start at 1, 2, 4 and 8."""
    late, steps, parts = padded(net, x, 11), length(net, x), []
    for k, row in enumerate(fading(12).T):
        part = net.op("Slice", late, net.ints(k), net.op("Add", steps, net.ints(k)), net.ints(1))
        parts.append(net.op("Mul", part, net.const(row)))
    return str(net.op("Sum", *parts))


def banded(net: Net, x: str) -> str:
    """The last 30 steps, by a mask over all pairs."""
    one, none = net.const(np.int64(1)), net.const(np.int64(0))
    place = net.op("Range", none, net.op("Squeeze", length(net, x)), one)
    gap = net.op("Sub", net.op("Unsqueeze", place, net.ints(1)), place)
    near = net.op("And", net.op("GreaterOrEqual", gap, none), net.op("Less", gap, net.const(np.int64(30))))
    return str(net.op("MatMul", net.op("Cast", near, to=TensorProto.FLOAT), x))


LAYERS = (
    *(delay, two_delays, behind_zeros, behind_rows, picked, averages),
    *(sums_less_sums, in_a_plane, transposed, shifted, banded),
)


@pytest.mark.parametrize("layer", LAYERS)
def test_what_reaches_far_back(tmp_path: Path, layer: Layer) -> None:
    net = Net()
    lift(net, layer(net, net.input(["b", "t", WIDTH])), ["b", "t", WIDTH], tmp_path, (2, 8), (2, 35), (1, 150))


@pytest.mark.parametrize("steps", [12, 40])
def test_the_last_steps_where_there_are_fewer(tmp_path: Path, steps: int) -> None:
    """A mean of the last steps, of all where there are fewer: no lift is right for both."""
    net = Net()
    last = net.op("Slice", net.input(["b", "t", WIDTH]), net.ints(-steps), net.ints(FAR), net.ints(1))
    y = net.op("ReduceMean", last, net.ints(1), keepdims=0)
    refused(save(net.model([(y, ["b", WIDTH])]), tmp_path), "is another model at length")


def test_windows_that_short_sequences_do_not_fill(tmp_path: Path) -> None:
    """A mean of no window at all is no number, and nothing to prove."""
    net = Net()
    x = net.op("Transpose", net.input(["b", "t", WIDTH]), perm=[0, 2, 1])
    found = net.op("Conv", x, net.const(np.random.default_rng(3).standard_normal((WIDTH, WIDTH, 20))))
    y = net.op("ReduceMean", net.op("Tanh", found), net.ints(2), keepdims=0)
    lift(net, y, ["b", WIDTH], tmp_path, (2, 24), (1, 90))


def test_one_behind_the_other(tmp_path: Path) -> None:
    net = Net()
    path = save(net.model([(two_delays(net, net.input(["b", "t", WIDTH])), ["b", "t", WIDTH])]), tmp_path)
    listing = list_calls(import_model(read_model(path), path))
    assert taps(listing) == [31, 31] and span(listing) == 61
    assert taps(listing, shifts=False) == []
