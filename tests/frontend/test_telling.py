"""Layers that no target runs are told by what they do to the steps: their order, their number, their neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.frontend.blocks import RNG
from tests.frontend.checks import kinds, lift, refused
from tests.frontend.net import Net, save
from tests.frontend.test_unseen import scanned

WIDE = 3


def told(net: Net, y: str, folder: Path, *parts: str, steps: int | str = 16) -> None:
    said = refused(save(net.model([(y, ["b", steps, WIDE])]), folder), *parts)
    assert "1 node cannot be translated" in said


def system(net: Net, x: str) -> str:
    return scanned(net, net.op("MatMul", x, net.const(RNG.standard_normal((WIDE, WIDE)))), RNG.uniform(0.5, 0.9, WIDE))


def gelu(net: Net, x: str) -> str:
    return str(net.op("Gelu", x))


@pytest.mark.parametrize("order", ["snake", "random"])
def test_steps_in_another_order(tmp_path: Path, order: str) -> None:
    grid = np.arange(16).reshape(4, 4).copy()
    grid[1::2] = grid[1::2, ::-1]
    steps = {"snake": grid.reshape(-1), "random": RNG.permutation(16)}[order]
    net = Net()
    x = system(net, net.input(["b", 16, WIDE]))
    moved = net.op("Gather", gelu(net, x), net.const(steps), axis=1)
    y = net.op("Gather", system(net, moved), net.const(np.argsort(steps)), axis=1)
    first = ", ".join(map(str, steps[:6]))
    told(
        net,
        y,
        tmp_path,
        f"Gather 'Gather({moved})': it takes the 16 steps in another order",
        first,
    )


def test_an_order_and_back_with_nothing_between_is_none(tmp_path: Path) -> None:
    net, steps = Net(), RNG.permutation(24)
    x = system(net, net.input(["b", 24, WIDE]))
    moved = net.op("Gather", x, net.const(steps), axis=1)
    y = net.op("Gather", gelu(net, moved), net.const(np.argsort(steps)), axis=1)
    assert kinds(lift(net, y, ["b", 24, WIDE], tmp_path)) == ["linear time-invariant"]


def test_columns_of_an_image_as_steps(tmp_path: Path) -> None:
    net = Net()
    x = net.input(["b", 12, WIDE])
    grid = net.op("Transpose", net.op("Reshape", x, net.ints(-1, 3, 4, WIDE)), perm=[0, 2, 1, 3])
    columns = net.op("Reshape", grid, net.ints(-1, 12, WIDE))
    y = net.op("Reshape", system(net, gelu(net, columns)), net.ints(-1, 4, 3, WIDE))
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.ints(-1, 12, WIDE))
    told(net, net.op("Add", x, y), tmp_path, "it takes the 12 steps in another order (0, 4, 8, 1, 5, 9, ...)", steps=12)


def test_columns_of_a_convolved_image_as_steps(tmp_path: Path) -> None:
    """The convolution alone would do: rows are steps, and their places features."""
    net = Net()
    x = net.op("Reshape", net.input(["b", 12, WIDE]), net.ints(-1, 3, 4, WIDE))
    x = net.op("MatMul", x, net.const(RNG.standard_normal((WIDE, WIDE))))
    grid = net.op("Transpose", x, perm=[0, 3, 1, 2])
    kernel = net.const(RNG.standard_normal((WIDE, 1, 3, 3)))
    mixed = gelu(net, net.op("Conv", grid, kernel, group=WIDE, pads=[1, 1, 1, 1]))
    columns = net.op("Reshape", net.op("Transpose", mixed, perm=[0, 1, 3, 2]), net.ints(-1, WIDE, 12))
    y = system(net, net.op("Transpose", columns, perm=[0, 2, 1]))
    told(net, y, tmp_path, "it takes the 12 steps in another order (0, 4, 8, 1, 5, 9, ...)", steps=12)


@pytest.mark.parametrize("place", [0, 6, 12])
def test_a_class_token_among_the_steps(tmp_path: Path, place: int) -> None:
    net = Net()
    x = net.input(["b", 12, WIDE])
    batch = net.op("Slice", net.op("Shape", x), net.ints(0), net.ints(1))
    token = net.op(
        "Expand", net.const(RNG.standard_normal((1, 1, WIDE))), net.op("Concat", batch, net.ints(1, WIDE), axis=0)
    )
    parts = [net.op("Slice", x, net.ints(a), net.ints(b), net.ints(1)) for a, b in ((0, place), (place, 12)) if a < b]
    parts.insert(int(place > 0), token)
    y = system(net, gelu(net, net.op("Concat", *parts, axis=1)))
    told(net, y, tmp_path, "Concat", "it makes 13 steps of 12", "1 of the layer's own (a class token", steps=13)


@pytest.mark.parametrize("to", [8, 16])
def test_a_matrix_over_the_time_axis(tmp_path: Path, to: int) -> None:
    net = Net()
    x = net.op("Transpose", system(net, net.input(["b", 16, WIDE])), perm=[0, 2, 1])
    mixed = net.op("MatMul", x, net.const(RNG.standard_normal((16, to))))
    y = gelu(net, net.op("Transpose", mixed, perm=[0, 2, 1]))
    said = f"MatMul 'MatMul({mixed})': it is a matrix over the whole time axis, 16 steps to {to}"
    told(net, system(net, y), tmp_path, said, steps=to)


def test_a_causal_matrix_over_the_time_axis_is_a_filter(tmp_path: Path) -> None:
    net, lags = Net(), np.arange(24)[:, None] - np.arange(24)
    x = net.op("Transpose", net.input(["b", 24, WIDE]), perm=[0, 2, 1])
    mixed = net.op("MatMul", x, net.const(np.where(lags >= 0, 0.8 ** np.maximum(lags, 0), 0.0).T))
    y = net.op("Transpose", mixed, perm=[0, 2, 1])
    assert kinds(lift(net, y, ["b", 24, WIDE], tmp_path)) == ["linear time-invariant"]


def scores(net: Net, x: str) -> tuple[str, str]:
    q, k, v = (net.op("MatMul", x, net.const(RNG.standard_normal((WIDE, WIDE)))) for _ in range(3))
    return net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), v


@pytest.mark.parametrize("function", ["Softmax", "Abs"])
def test_attention_is_told_once_and_by_name(tmp_path: Path, function: str) -> None:
    net = Net()
    s, v = scores(net, system(net, net.input(["b", 16, WIDE])))
    y = net.op("MatMul", net.op(function, s), v)
    reason = {"Softmax": "attention mixes all steps", "Abs": "that is no polynomial"}[function]
    told(net, y, tmp_path, f"{function} ", "scores of every step with every other", reason)


def test_softmax_of_features_in_a_region_is_no_attention(tmp_path: Path) -> None:
    net, steps = Net(), RNG.permutation(16)
    x = net.op("Gather", net.input(["b", 16, WIDE]), net.const(steps), axis=1)
    told(net, system(net, net.op("Softmax", x, axis=-1)), tmp_path, "Gather", "in another order")


def test_a_parallel_stabiliser(tmp_path: Path) -> None:
    """Scores scaled by exp(D - max D), D from cumulative sums of gates, as a parallel mLSTM has it."""
    net = Net()
    x = net.input(["b", 16, WIDE])
    s, v = scores(net, x)
    gate = net.op("MatMul", x, net.const(RNG.standard_normal((WIDE, 1))))
    total = net.op("CumSum", net.op("Neg", net.op("Softplus", gate)), net.const(np.int64(1)))
    lags = net.op("Sub", total, net.op("Transpose", total, perm=[0, 2, 1]))
    hidden = net.const(np.where(np.tri(16) > 0, 0.0, -np.inf))
    logs = net.op("Add", lags, hidden)
    largest = net.op("ReduceMax", logs, net.ints(-1), keepdims=1)
    weights = net.op("Mul", s, net.op("Exp", net.op("Sub", logs, largest)))
    total = net.op("Abs", net.op("ReduceSum", weights, net.ints(-1), keepdims=1))
    norm = net.op("Max", total, net.op("Exp", net.op("Neg", largest)))
    y = net.op("MatMul", net.op("Div", weights, norm), v)
    told(net, y, tmp_path, "ReduceMax", "the stabiliser of a parallel mLSTM")


def test_a_scan_in_the_log_domain_that_starts_from_an_input(tmp_path: Path) -> None:
    """minLSTM with the state before as an input: log h_t = F_t + logcumsumexp(log h_0, log v - F)."""
    net = Net()
    axis = net.const(np.int64(1))
    x, start = net.input(["b", "l", WIDE]), net.input(["b", 1, WIDE], name="h0")
    gate = net.op("Neg", net.op("Softplus", x))
    total = net.op("CumSum", gate, axis)
    begun = net.op("Log", net.op("Exp", start))
    written = net.op("Sub", net.op("MatMul", x, net.const(RNG.standard_normal((WIDE, WIDE)))), total)
    terms = net.op("Concat", begun, written, axis=1)
    largest = net.op("ReduceMax", terms, net.ints(1), keepdims=1)
    sums = net.op("CumSum", net.op("Exp", net.op("Sub", terms, largest)), axis)
    logs = net.op("Add", net.op("Log", sums), largest)
    later = net.op("Slice", logs, net.ints(1), net.ints(1 << 40), net.ints(1))
    told(net, net.op("Exp", net.op("Add", later, total)), tmp_path, "ReduceMax", "start it from a constant", steps="l")


def test_no_system_along_any_axis(tmp_path: Path) -> None:
    """A linear forecast of each variable by itself: along the variables nothing mixes, along time there is no state."""
    net = Net()
    x = net.op("Transpose", net.input(["b", 16, WIDE], name="series"), perm=[0, 2, 1])
    y = net.op("Transpose", net.op("MatMul", x, net.const(RNG.standard_normal((16, 4)))), perm=[0, 2, 1])
    path = save(net.model([(y, ["b", 4, WIDE])]), tmp_path)
    refused(path, "no state-space system", "axis 2 of 'series' taken for time")


def test_a_failing_model_is_read_along_the_axis_of_its_own_filters(tmp_path: Path) -> None:
    net = Net()
    y = net.op(
        "Conv", net.input(["b", WIDE, 12]), net.const(RNG.standard_normal((WIDE, 1, 4))), group=WIDE, pads=[3, 0]
    )
    last = net.op("Unsqueeze", net.op("ArgMax", y, axis=2, keepdims=0), net.ints(2))
    path = save(net.model([(last, ["b", WIDE, 1])]), tmp_path)
    refused(path, "1 node cannot be translated", "ArgMax", "it asks at which step the extreme stands")


def test_a_filter_tells_which_axis_is_time(tmp_path: Path) -> None:
    net = Net()
    held = net.op("Pad", net.input(["b", WIDE, 12]), net.ints(0, 0, 3, 0, 0, 0), mode="reflect")
    y = net.op("Conv", held, net.const(RNG.standard_normal((WIDE, 1, 4))), group=WIDE)
    assert kinds(lift(net, y, ["b", WIDE, 12], tmp_path, (2, 12))) == []
