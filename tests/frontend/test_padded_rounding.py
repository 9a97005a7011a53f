"""Convolutions whose padded input is rounded, as static quantisation leaves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssmc.frontend import load_model
from tests.frontend.checks import on_targets, refused
from tests.frontend.net import Net, save

CHANNELS, TAPS, LENGTH = 4, 20, 24
RNG = np.random.default_rng(9)


def quantised(net: Net, x: str, scale: str, zero: str) -> str:
    return str(net.op("DequantizeLinear", net.op("QuantizeLinear", x, scale, zero), scale, zero))


def convolution(net: Net, zero: np.ndarray, scale: float, *, value: float = 0.0, again: bool = False) -> str:
    """Padded at its beginning, rounded, convolved: everything on its grid; `again`: rounded twice, as over layouts."""
    grid = net.const(np.float32(scale)), net.const(zero)
    u = net.op("Transpose", net.input([2, LENGTH, CHANNELS]), perm=[0, 2, 1])
    ends = net.ints(0, 0, TAPS - 1, 0, 0, 0)
    filler = net.op("DequantizeLinear", net.const(zero), *grid) if not value else net.const(np.float32(value))
    x = quantised(net, net.op("Pad", quantised(net, u, *grid), ends, filler), *grid)
    if again:
        x = quantised(net, net.op("Squeeze", net.op("Unsqueeze", x, net.ints(2)), net.ints(2)), *grid)
    decay = RNG.uniform(0.5, 0.9, (CHANNELS, 1, 1)) ** np.arange(TAPS)[::-1]
    codes = net.const(np.rint(decay * 127).astype(np.int8))
    taps = net.op("DequantizeLinear", codes, net.const(np.float32(1 / 127)), net.const(np.int8(0)))
    y = net.op("Conv", x, taps, group=CHANNELS, kernel_shape=[TAPS])
    y = quantised(net, y, net.const(np.float32(0.05)), net.const(np.uint8(120)))
    return str(net.op("Tanh", net.op("Transpose", y, perm=[0, 2, 1])))


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("zero", [np.uint8(131), np.int8(0), np.int16(0), np.uint16(30000)])
def test_a_padded_input_is_rounded(zero: np.ndarray, again: bool, tmp_path: Path) -> None:
    net = Net()
    y = convolution(net, zero, 3.0 / np.iinfo(zero.dtype).max, again=again)
    path = save(net.model([(y, [2, LENGTH, CHANNELS])], opset=21), tmp_path)
    model = load_model(path)
    assert [system.kind for system in model.systems] == ["fir"]
    on_targets(model, 2, LENGTH)


@pytest.mark.parametrize(("zero", "turned"), [(np.uint8(131), False), (np.int8(0), False), (np.uint8(131), True)])
def test_codes_are_padded_with_their_zero_point(zero: np.ndarray, turned: bool, tmp_path: Path) -> None:
    """QOperator format: a convolution's codes go to the padding of the next one as they are, or turned."""
    net = Net()
    scale, point = net.const(np.float32(3.0 / np.iinfo(zero.dtype).max)), net.const(zero)
    u = net.input([2, LENGTH, CHANNELS])
    u = u if turned else net.op("Transpose", u, perm=[0, 2, 1])
    codes = net.op("QuantizeLinear", u, scale, point)
    codes = net.op("Transpose", codes, perm=[0, 2, 1]) if turned else codes
    codes = net.op("Pad", codes, net.ints(0, 0, TAPS - 1, 0, 0, 0), point)
    taps = net.const(np.rint(RNG.uniform(-1, 1, (CHANNELS, 1, TAPS)) * 127).astype(zero.dtype))
    grid = net.const(np.float32(0.2)), net.const(np.asarray(zero.dtype.type(7)))
    weight = taps, net.const(np.float32(1 / 127)), net.const(np.asarray(zero.dtype.type(0)))
    y = net.op("QLinearConv", codes, scale, point, *weight, *grid, group=CHANNELS, kernel_shape=[TAPS])
    y = net.op("Tanh", net.op("Transpose", net.op("DequantizeLinear", y, *grid), perm=[0, 2, 1]))
    model = load_model(save(net.model([(y, [2, LENGTH, CHANNELS])], opset=21), tmp_path))
    assert [system.kind for system in model.systems] == ["fir"]
    on_targets(model, 2, LENGTH)


def test_codes_padded_with_another_number(tmp_path: Path) -> None:
    net = Net()
    scale, point = net.const(np.float32(0.02)), net.const(np.uint8(131))
    u = net.op("Transpose", net.input([2, LENGTH, CHANNELS]), perm=[0, 2, 1])
    codes = net.op("QuantizeLinear", u, scale, point)
    codes = net.op("Pad", codes, net.ints(0, 0, TAPS - 1, 0, 0, 0), net.const(np.uint8(0)))
    x = net.op("DequantizeLinear", codes, scale, point)
    y = net.op("Conv", x, net.const(RNG.standard_normal((CHANNELS, 1, TAPS))), group=CHANNELS, kernel_shape=[TAPS])
    y = net.op("Transpose", y, perm=[0, 2, 1])
    refused(save(net.model([(y, [2, LENGTH, CHANNELS])], opset=21), tmp_path), "Pad")


def test_what_is_put_around_is_no_zero(tmp_path: Path) -> None:
    net = Net()
    y = convolution(net, np.int8(0), 0.02, value=0.5)
    refused(save(net.model([(y, [2, LENGTH, CHANNELS])], opset=21), tmp_path), "Pad")


def test_chunks_whose_scores_are_rounded(tmp_path: Path) -> None:
    """Decayed products of the steps of a chunk, quantised in between: it is the rounding that keeps them."""
    net = Net()
    x = net.input(["b", 16, 4])

    def rounded(value: str, scale: float) -> str:
        codes = net.op("QuantizeLinear", value, net.const(np.float32(scale)), net.const(np.int8(0)))
        return str(net.op("DequantizeLinear", codes, net.const(np.float32(scale)), net.const(np.int8(0))))

    cut = rounded(net.op("Reshape", x, net.ints(0, 4, 4, 4)), 0.03)
    scores = rounded(net.op("Einsum", cut, cut, equation="bcln,bcsn->bcls"), 0.05)
    lags = np.arange(4)[:, None] - np.arange(4)
    masked = net.op("Mul", scores, net.const(np.where(lags >= 0, 0.9**lags, 0.0)))
    y = net.op("Reshape", net.op("Einsum", masked, cut, equation="bcls,bcsn->bcln"), net.ints(0, 16, 4))
    message = refused(save(net.model([(y, ["b", 16, 4])]), tmp_path), "--drop-rounding")
    assert "1 node cannot" in message and "splits the time axis" not in message, message


def of_every_length(folder: Path, function: str) -> Path:
    """A kernel that the file makes, as long as the sequence, of rounded numbers: no system at any length."""
    net = Net()
    u = net.op("Transpose", net.input(["b", "t", CHANNELS]), perm=[0, 2, 1])
    steps = net.op("Gather", net.op("Shape", u), net.const(np.int64(2)))
    numbers = net.op("Cast", net.op("Range", net.const(np.int64(0)), steps, net.const(np.int64(1))), to=1)
    numbers = net.op("Mul", numbers, numbers) if function == "Cos" else numbers
    powers = net.op("Mul", net.const(-RNG.uniform(0.05, 0.1, (CHANNELS, 1, 1))), numbers)
    taps = quantised(net, net.op(function, powers), net.const(np.float32(1 / 31)), net.const(np.uint8(128)))
    before = net.op("Unsqueeze", net.op("Sub", steps, net.const(np.int64(1))), net.ints(0))
    ends = net.op("Concat", net.ints(0, 0), before, net.ints(0, 0, 0), axis=0)
    backwards = net.op("Slice", taps, net.ints(-1), net.ints(-(2**31)), net.ints(2), net.ints(-1))
    y = net.op("Conv", net.op("Pad", u, ends), backwards, group=CHANNELS)
    y = net.op("Transpose", y, perm=[0, 2, 1])
    return save(net.model([(y, ["b", "t", CHANNELS])]), folder)


def test_a_rounded_kernel_ends(tmp_path: Path) -> None:
    model = load_model(of_every_length(tmp_path, "Exp"))
    assert [system.kind for system in model.systems] == ["fir"]
    for length in (17, 150):
        on_targets(model, 2, length)


def test_a_rounded_kernel_without_end_is_told(tmp_path: Path) -> None:
    """A chirp."""
    path = of_every_length(tmp_path, "Cos")
    refused(path, "another model at length", "taps at length", "where a tool has rounded them")
