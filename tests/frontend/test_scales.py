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
