"""Time in front of the batch, or alone: a dynamic first axis is studied and proved at as many steps as any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.frontend.checks import LINEAR, kinds, lift
from tests.frontend.net import Dims, Net


@pytest.mark.parametrize("dims", [["t", "b", 3], ["t", 3], ["t", 5, 3]], ids=str)
def test_sums_of_all_steps_before(tmp_path: Path, dims: Dims) -> None:
    """They were taken for filters of the three steps that a batch is studied at, and proved at these."""
    net = Net()
    u = net.op("Mul", net.input(dims), net.const(np.asarray([0.1, 0.2, 0.3])))
    y = net.op("Tanh", net.op("CumSum", u, net.const(np.int64(0))))
    model = lift(net, y, dims, tmp_path, (2, 6), (3, 40))
    assert kinds(model) == [LINEAR] and {proof.length for proof in model.proofs} == {11, 17}
    assert {port.axes for port in model.inputs} == {"tbf" if len(dims) == 3 else "tf"}


def test_positions(tmp_path: Path) -> None:
    """Rows of a table for the steps, not for the samples."""
    net = Net()
    x = net.input(["t", "b", 3])
    steps = net.op("Slice", net.op("Shape", x), net.ints(0), net.ints(1))
    table = net.const(np.random.default_rng(0).standard_normal((64, 1, 3)))
    u = net.op("Add", x, net.op("Slice", table, net.ints(0), steps, net.ints(0)))
    y = net.op("CumSum", net.op("Tanh", u), net.const(np.int64(0)))
    model = lift(net, y, ["t", "b", 3], tmp_path, (2, 6), (3, 40))
    assert kinds(model) == [LINEAR]
