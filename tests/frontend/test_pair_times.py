"""Masks over every pair of steps: decays by the time between two events, sums divided by their normaliser inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssmc.driver import compile_model
from ssmc.frontend import Model, load_model, reference
from tests.frontend.blocks import RNG
from tests.frontend.checks import kinds, lift, on_targets, refused
from tests.frontend.net import Net, save

INPUTS, WIDTH, LENGTH = 5, 4, 24
LOWER = np.tril(np.ones((LENGTH, LENGTH)))


def events_on_targets(model: Model, batch: int, length: int) -> None:
    times = np.cumsum(RNG.uniform(0.1, 1.0, (batch, length)), axis=1).astype(np.float32)
    values = RNG.standard_normal((batch, length, INPUTS)).astype(np.float32)
    arrays = {p.name: times if len(p.axes) == 2 else values for p in model.inputs}
    expected = reference(model, arrays)
    for target in ("cim", "epochcore"):
        found = compile_model(model, target, ideal=True).run(arrays).outputs
        for name, array in expected.items():
            assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()


def between(net: Net, times: str) -> str:
    return str(net.op("Sub", net.op("Unsqueeze", times, net.ints(2)), net.op("Unsqueeze", times, net.ints(1))))


def projected(net: Net, x: str, outputs: int = WIDTH) -> str:
    return str(net.op("MatMul", x, net.const(RNG.standard_normal((INPUTS, outputs)) / INPUTS)))


@pytest.mark.parametrize("masked", ["before", "after"])
def test_attention_that_decays_with_the_time_between(tmp_path: Path, masked: str) -> None:
    net = Net()
    x, times = net.input([2, LENGTH, INPUTS]), net.input([2, LENGTH])
    logs = net.op("Mul", between(net, times), net.const(np.float32(-0.3)))
    if masked == "before":
        logs = net.op("Where", net.const(LOWER > 0), logs, net.const(np.float32(-np.inf)))
        mask = net.op("Exp", logs)
    else:
        mask = net.op("Mul", net.op("Exp", net.op("Mul", logs, net.const(LOWER))), net.const(LOWER))
    scores = net.op("MatMul", projected(net, x), net.op("Transpose", projected(net, x), perm=[0, 2, 1]))
    y = net.op("Relu", net.op("MatMul", net.op("Mul", scores, mask), projected(net, x)))
    model = load_model(save(net.model([(y, [2, LENGTH, WIDTH])]), tmp_path))
    assert kinds(model) == ["asynchronous"]
    events_on_targets(model, 2, LENGTH)


def test_a_rate_for_every_channel_at_any_length(tmp_path: Path) -> None:
    net = Net()
    x, times = net.input(["n", "l", INPUTS]), net.input(["n", "l"])
    gaps = net.op("Unsqueeze", between(net, times), net.ints(3))
    decays = net.op("Exp", net.op("Mul", gaps, net.const(-RNG.uniform(0.1, 0.9, WIDTH))))
    decays = net.op("Transpose", decays, perm=[0, 3, 1, 2])
    decays = net.op("Transpose", net.op("Trilu", decays, upper=0), perm=[0, 2, 3, 1])
    y = net.op("Einsum", decays, projected(net, x), equation="bijc,bjc->bic")
    model = load_model(save(net.model([(y, ["n", "l", WIDTH])]), tmp_path))
    assert kinds(model) == ["asynchronous"]
    events_on_targets(model, 2, LENGTH)
    events_on_targets(model, 3, 31)


def test_pairs_that_are_no_recurrence(tmp_path: Path) -> None:
    """A power of the time between: nothing that one state can hold."""
    net = Net()
    x, times = net.input([2, LENGTH, INPUTS]), net.input([2, LENGTH])
    gaps = net.op("Mul", between(net, times), net.const(LOWER))
    decays = net.op("Mul", net.op("Exp", net.op("Neg", net.op("Mul", gaps, gaps))), net.const(LOWER))
    path = save(net.model([(net.op("MatMul", decays, projected(net, x)), [2, LENGTH, WIDTH])]), tmp_path)
    refused(path, "every step meets every other")


def test_scores_divided_by_their_normaliser(tmp_path: Path) -> None:
    """mLSTM in its parallel form, without a stabiliser (xLSTM, arXiv 2405.04517, appendix A.3)."""
    net = Net()
    x = net.input([2, LENGTH, INPUTS])
    sums = net.op("CumSum", net.op("Neg", net.op("Softplus", projected(net, x, 1))), net.const(np.int64(1)))
    turned = net.op("Transpose", sums, perm=[0, 2, 1])
    logs = net.op("Sub", net.op("Add", sums, net.op("Transpose", projected(net, x, 1), perm=[0, 2, 1])), turned)
    logs = net.op("Where", net.const(LOWER > 0), logs, net.const(np.float32(-np.inf)))
    scores = net.op("MatMul", projected(net, x), net.op("Transpose", projected(net, x), perm=[0, 2, 1]))
    weights = net.op("Mul", scores, net.op("Exp", logs))
    below = net.op("Abs", net.op("ReduceSum", weights, net.ints(2), keepdims=1))
    below = net.op("Add", net.op("Max", below, net.const(np.float32(1.0))), net.const(np.float32(1e-6)))
    y = net.op("MatMul", net.op("Div", weights, below), projected(net, x))
    model = lift(net, y, [2, LENGTH, WIDTH], tmp_path)
    assert set(kinds(model)) == {"selective"}
    on_targets(model, 2, LENGTH)
