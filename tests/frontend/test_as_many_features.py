"""As many features as there are steps, which are cut into parts: parts are no steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.frontend.blocks import RNG
from tests.frontend.checks import kinds, lift
from tests.frontend.net import Net

STEPS = 9  # and features: a step size, four of B and four of C
PARTS = ((0, 1), (1, 5), (5, 9))


def three(net: Net, x: str, how: str) -> list[str]:
    """A step size, B and C, cut out of the last axis of a stream."""
    sizes = net.ints(*(b - a for a, b in PARTS))
    if how == "Split":
        return list(net.op("Split", x, sizes, axis=-1, outputs=3))
    if how == "Slice":
        return [str(net.op("Slice", x, net.ints(a), net.ints(b), net.ints(-1))) for a, b in PARTS]
    whole = net.op("SplitToSequence", x, sizes, axis=-1)
    return [str(net.op("SequenceAt", whole, net.const(np.asarray(k)))) for k in range(3)]


@pytest.mark.parametrize("how", ["Split", "Slice", "SplitToSequence"])
def test_features_that_are_as_many_as_the_steps_are_no_steps(how: str, tmp_path: Path) -> None:
    """A selective layer whose loop was unrolled over nine steps, of a projection to nine features."""
    net = Net()
    u = net.input(["b", STEPS, 3])
    dt, b, c = three(net, net.op("MatMul", u, net.const(RNG.standard_normal((3, STEPS)))), how)
    dt = net.op("Softplus", net.op("MatMul", dt, net.const(RNG.standard_normal((1, 3)))))
    decays = net.const(-RNG.uniform(0.5, 2.0, (3, 4)))
    state, found = "", []
    for step in range(STEPS):
        now, drive, entering, leaving = (
            net.op("Unsqueeze", net.op("Gather", v, net.const(np.asarray(step)), axis=1), net.ints(axis))
            for v, axis in ((dt, -1), (u, -1), (b, 1), (c, 1))
        )
        new = net.op("Mul", net.op("Mul", now, entering), drive)
        state = net.op("Add", net.op("Mul", net.op("Exp", net.op("Mul", now, decays)), state), new) if step else new
        y = net.op("ReduceSum", net.op("Mul", state, leaving), net.ints(-1), keepdims=0)
        found.append(net.op("Unsqueeze", y, net.ints(1)))
    model = lift(net, net.op("Concat", *found, axis=1), ["b", STEPS, 3], tmp_path, (2, STEPS))
    assert kinds(model) == ["selective"]


def test_a_list_of_parts_of_batch_and_time_in_one_axis(tmp_path: Path) -> None:
    net = Net()
    x = net.op("Reshape", net.input(["b", 12, STEPS]), net.ints(-1, STEPS))
    gate, b, c = three(net, x, "SplitToSequence")
    y = net.op("Add", net.op("Mul", net.op("Sigmoid", gate), b), c)
    y = net.op("CumSum", net.op("Reshape", y, net.ints(-1, 12, 4)), net.const(np.asarray(1)))
    lift(net, y, ["b", 12, 4], tmp_path, (2, 12), (3, 12))
