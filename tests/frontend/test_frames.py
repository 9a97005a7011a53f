"""Frames of a signal: torch's `unfold` at a fixed length (slices that are joined), and STFT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from tests.frontend.blocks import RNG
from tests.frontend.net import Net, save

BINS = 4


def ema(net: Net, frames: str, count: int) -> str:
    """Step by step over the frames (batch, count, BINS)."""
    decay, state, found = net.const(np.linspace(0.5, 0.9, BINS)), "", []
    for k in range(count):
        u = net.op("Gather", frames, net.const(np.int64(k)), axis=1)
        state = net.op("Add", net.op("Mul", decay, state), u) if state else u
        found.append(net.op("Unsqueeze", state, net.ints(1)))
    return str(net.op("Concat", *found, axis=1))


def right(net: Net, y: str, shape: list[int], signal: list[int], folder: Path) -> None:
    model = load_model(save(net.model([(y, shape)]), folder))
    assert "linear time-invariant" in [system.kind for system in model.systems]
    arrays = {model.inputs[0].name: RNG.standard_normal(signal).astype(np.float32)}
    ((name, expected),) = reference(model, arrays).items()
    for target in ("cim", "epochcore"):
        found = compile_model(model, target, ideal=True).run(arrays).outputs[name]
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def power(net: Net, spectra: str) -> str:
    """log(s^2 + small)"""
    square = net.op("Pow", spectra, net.const(2.0))
    return str(net.op("Log", net.op("Add", square, net.const(0.01))))


@pytest.mark.parametrize(("length", "window", "hop"), [(32, 8, 4), (35, 8, 3), (24, 6, 6)])
@pytest.mark.parametrize("channels", [0, 2])
def test_frames_that_are_cut_out_one_by_one(tmp_path: Path, length: int, window: int, hop: int, channels: int) -> None:
    """x.unfold(1, window, hop): the steps of a frame are the last axis, behind the channels."""
    net, count = Net(), (length - window) // hop + 1
    x = net.input(["b", length, channels] if channels else ["b", length])
    parts = []
    for k in range(count):
        part = net.op("Slice", x, net.ints(k * hop), net.ints(k * hop + window), net.ints(1))
        part = net.op("Transpose", part, perm=[0, 2, 1]) if channels else part
        parts.append(net.op("Unsqueeze", part, net.ints(1)))
    frames = net.op("Mul", net.op("Concat", *parts, axis=1), net.const(np.hanning(window + 2)[1:-1]))
    if channels:
        frames = net.op("Reshape", frames, net.ints(-1, count, channels * window))
    weight = net.const(RNG.standard_normal((max(channels, 1) * window, BINS)))
    y = ema(net, power(net, net.op("MatMul", frames, weight)), count)
    right(net, y, ["b", count, BINS], [2, length, channels][: 2 + bool(channels)], tmp_path)


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("windowed", [False, True])
def test_stft(tmp_path: Path, onesided: int, windowed: bool) -> None:
    """The powers of a spectrum of frames of 6 steps."""
    net, length, size, hop = Net(), 30, 6, 2
    count, bins = (length - size) // hop + 1, size // 2 + 1 if onesided else size
    x, step = net.input(["b", length]), net.const(np.int64(hop))
    end = [net.const(np.hanning(size + 2)[1:-1])] if windowed else ["", net.const(np.int64(size))]
    spectra = net.op("STFT", x, step, *end, onesided=onesided)
    energy = net.op("ReduceSum", net.op("Mul", spectra, spectra), net.ints(3), keepdims=0)
    mel = net.op("MatMul", energy, net.const(np.abs(RNG.standard_normal((bins, BINS)))))
    right(
        net,
        ema(net, net.op("Log", net.op("Add", mel, net.const(0.01))), count),
        ["b", count, BINS],
        [2, length],
        tmp_path,
    )
