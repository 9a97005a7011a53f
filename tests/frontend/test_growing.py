"""Selective systems as sums against shrinking weights, a small number in the denominator, as TorchScript has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssmc.frontend import load_model
from tests.frontend.blocks import RNG, dense
from tests.frontend.checks import on_targets
from tests.frontend.net import Net, save

LENGTH, WIDTH, STATES = 48, 4, 3


def selective(net: Net, small: float, rate: float, offset: bool) -> str:
    """exp(sum dA) cumsum(dB x / (exp(sum dA) + e)), read by C: mambapy's and mamba-minimal's parallel form."""
    x = net.op("Sigmoid", dense(net, net.input([2, LENGTH, 3]), 3, WIDTH))
    delta = net.op("Mul", net.op("Softplus", dense(net, x, WIDTH, WIDTH)), net.const(rate))
    wide = net.op("Unsqueeze", delta, net.ints(3))
    decay = net.op("Mul", wide, net.const(-np.arange(1.0, STATES + 1) * np.ones((WIDTH, 1))))
    drive = net.op("Mul", net.op("Mul", delta, x), net.const(np.ones(WIDTH)))
    rows = net.op("Unsqueeze", dense(net, x, WIDTH, STATES), net.ints(2))
    written = net.op("Mul", net.op("Unsqueeze", drive, net.ints(3)), rows)
    weight = net.op("Exp", net.op("CumSum", decay, net.const(np.int64(1))))
    divisor = net.op("Add", weight, net.const(small)) if offset else net.op("Add", net.const(small), weight)
    total = net.op("CumSum", net.op("Div", written, divisor), net.const(np.int64(1)))
    state = net.op("Mul", total, weight) if offset else net.op("Mul", weight, total)
    read = net.op("Unsqueeze", dense(net, x, WIDTH, STATES), net.ints(3))
    return str(net.op("Squeeze", net.op("MatMul", state, read), net.ints(3)))


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize(("small", "rate"), [(1e-12, 0.02), (1e-12, 0.3), (1e-12, 1.0), (1e-6, 0.3)])
def test_no_sum_grows(tmp_path: Path, small: float, rate: float, offset: bool) -> None:
    """From weights that the small number does not touch to weights that vanish beside it."""
    net = Net()
    y = selective(net, small, rate, offset)
    model = load_model(save(net.model([(y, [2, LENGTH, WIDTH])]), tmp_path))
    assert "selective" in [system.kind for system in model.systems]
    assert list(model.graph.nodes("recurrence")) and not list(model.graph.nodes("delay"))
    assert all(node.op["fn"] != "div" for node in model.graph.nodes("binary"))
    on_targets(model, 2, LENGTH)


def test_the_small_number_is_part_of_what_the_file_computes(tmp_path: Path) -> None:
    """Where weights vanish beside it old values are forgotten: in the file, and so in what is lifted."""
    errors = []
    for small in (1e-12, 1e-3):
        RNG.bit_generator.state = np.random.default_rng(11).bit_generator.state
        net = Net()
        model = load_model(save(net.model([(selective(net, small, 0.3, True), [2, LENGTH, WIDTH])]), tmp_path))
        errors.append(max(proof.error for proof in model.proofs if "float64" in proof.against))
        assert any(node.op["fn"] == "sigmoid" for node in model.graph.nodes("unary"))
    assert max(errors) < 1e-9
