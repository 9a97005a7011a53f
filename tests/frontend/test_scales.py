"""Unrolled steps that are rounded by a scale each: refused with the scales, lifted without the rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssmc.frontend import load_model
from tests.frontend.checks import LINEAR, kinds, refused
from tests.frontend.net import Net, save

STEPS, WIDTH = 9, 3
RNG = np.random.default_rng(23)


def quantised(net: Net, x: str, scale: float) -> str:
    grid = net.const(np.float32(scale)), net.const(np.uint8(128))
    return str(net.op("DequantizeLinear", net.op("QuantizeLinear", x, *grid), *grid))


def unrolled(folder: Path, spread: float) -> Path:
    """x_k = a x_{k-1} + u_k with every value rounded, by scales that differ from step to step by `spread`."""
    net = Net()
    u = quantised(net, net.input([2, STEPS, WIDTH]), 0.02)
    a = net.const(RNG.uniform(0.5, 0.9, WIDTH))
    state, rows = net.const(np.zeros((2, WIDTH))), []
    for k in range(STEPS):
        scale = 0.02 * (1 + spread * k)
        step = quantised(net, net.op("Gather", u, net.const(np.int64(k)), axis=1), scale)
        state = quantised(net, net.op("Add", net.op("Mul", state, a), step), 2 * scale)
        rows.append(net.op("Unsqueeze", state, net.ints(1)))
    y = net.op("Tanh", net.op("Concat", *rows, axis=1))
    return save(net.model([(y, [2, STEPS, WIDTH])]), folder)


def test_scales_of_their_own_are_told(tmp_path: Path) -> None:
    path = unrolled(tmp_path, 0.1)
    message = refused(path, "different scales, from 0.02", "--drop-rounding", "one-step model")
    assert message.count("different scales") == 1
    model = load_model(path, drop_rounding=True)
    assert kinds(model) == [LINEAR]
    assert any("is left out, as asked for" in note for note in model.notes)


def test_one_scale_is_a_rounded_recurrence(tmp_path: Path) -> None:
    assert kinds(load_model(unrolled(tmp_path, 0.0))) == ["rounded"]


def test_norms_that_share_a_weight_are_no_steps(tmp_path: Path) -> None:
    """Layers behind each other, a weight of ones, and a spectrum that is rounded: only that is told."""
    net = Net()
    y = net.input([2, STEPS, WIDTH])
    ones = net.const(np.ones(WIDTH))
    for k in range(6):
        y = quantised(net, net.op("LayerNormalization", y, ones), 0.02 * (1 + 0.1 * k))
    length, axis = net.const(np.int64(2 * STEPS)), net.const(np.int64(1))
    padded = net.op("Unsqueeze", net.op("Pad", y, net.ints(0, 0, 0, 0, STEPS, 0)), net.ints(-1))
    spectrum = quantised(net, net.op("DFT", padded, length, axis, onesided=1), 0.1)
    whole = net.op("Mul", spectrum, net.const(np.exp(-0.1 * np.arange(STEPS + 1.0)).reshape(1, -1, 1, 1)))
    back = net.op("Squeeze", net.op("DFT", whole, length, axis, inverse=1, onesided=1), net.ints(-1))
    y = net.op("Slice", back, net.ints(0), net.ints(STEPS), net.ints(1))
    message = refused(save(net.model([(y, [2, STEPS, WIDTH])]), tmp_path), "a spectrum that is rounded is no filter")
    assert "different scales" not in message
    assert "y[:, 1:]" not in message
