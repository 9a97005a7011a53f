"""What is known of a whole sequence, laid out along its steps again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.frontend.blocks import DYNAMIC, decaying, first_layer
from tests.frontend.checks import kinds, lift, on_targets
from tests.frontend.net import Net


def mean(net: Net, x: str) -> str:
    return str(net.op("ReduceMean", x, net.ints(1), keepdims=1))


def last(net: Net, x: str) -> str:
    return str(net.op("Slice", x, net.ints(-1), net.ints(np.iinfo(np.int64).max), net.ints(1)))


def largest(net: Net, x: str) -> str:
    return str(net.op("Unsqueeze", net.op("ReduceMax", x, net.ints(1), keepdims=0), net.ints(1)))


POOLED = {"mean": mean, "last": last, "largest": largest}


def repeats(net: Net, x: str) -> str:
    steps = net.op("Slice", net.op("Shape", x), net.ints(1), net.ints(2))
    return str(net.op("Concat", net.ints(1), steps, net.ints(1), axis=0))


SPREAD: dict[str, Callable[[Net, str, str], str]] = {
    "zeros like it": lambda n, x, p: n.op("Add", n.op("ConstantOfShape", n.op("Shape", x)), p),
    "expanded zeros": lambda n, x, p: n.op("Add", p, n.op("Expand", n.const(np.zeros(())), n.op("Shape", x))),
    "it times zero": lambda n, x, p: n.op("Add", n.op("Mul", x, n.const(0.0)), p),
    "times ones": lambda n, x, p: n.op("Mul", p, n.op("Expand", n.const(np.ones(1)), n.op("Shape", x))),
    "expanded": lambda n, x, p: n.op("Expand", p, n.op("Shape", x)),
    "tiled": lambda n, x, p: n.op("Tile", p, repeats(n, x)),
}


@pytest.mark.parametrize("pooled", POOLED)
@pytest.mark.parametrize("form", SPREAD)
def test_the_sequence_is_told_at_every_step(tmp_path: Path, form: str, pooled: str) -> None:
    """Beside each step, and through a second system."""
    net = Net()
    x = first_layer(net)
    context = SPREAD[form](net, x, POOLED[pooled](net, x))
    y = net.op("Concat", x, decaying(net, context, 4), context, axis=2)
    model = lift(net, y, ["n", "t", 12], tmp_path, *DYNAMIC)
    assert set(kinds(model)) == {"linear time-invariant"}
    if pooled == "mean":
        on_targets(model, 2, 13)


@pytest.mark.parametrize("form", SPREAD)
def test_the_sequence_is_told_at_a_fixed_length(tmp_path: Path, form: str) -> None:
    net = Net()
    x = first_layer(net, 12)
    context = SPREAD[form](net, x, mean(net, x))
    y = net.op("Concat", x, context, axis=2)
    lift(net, y, ["n", 12, 8], tmp_path, (2, 12), (3, 12))
