"""Numbers of the steps that are others in a longer sequence: weights counted from the last step, places within it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from ssmc.frontend.loops.by_length import law_of
from ssmc.ir.op import Array
from tests.frontend.checks import LINEAR, kinds, lift, on_targets, refused
from tests.frontend.net import Net, save

INPUTS, CHANNELS = 3, 4
DECAYS = np.linspace(0.6, 0.95, CHANNELS)


def steps(net: Net, x: str) -> tuple[str, str]:
    """0, 1, ... (t, 1), and the number of steps, as torch makes them of the shape."""
    length = net.op("Squeeze", net.op("Shape", x, start=1, end=2))
    numbers = net.op("Range", net.const(np.int64(0)), length, net.const(np.int64(1)))
    numbers = net.op("Unsqueeze", net.op("Cast", numbers, to=TensorProto.FLOAT), net.const(np.array([1])))
    return str(numbers), str(net.op("Cast", length, to=TensorProto.FLOAT))


def left(net: Net, x: str) -> str:
    """T - 1 - k, (t, 1)."""
    k, length = steps(net, x)
    return str(net.op("Sub", net.op("Sub", length, net.const(np.float64(1))), k))


def fading(net: Net, x: str) -> str:
    return str(net.op("Pow", net.const(DECAYS), left(net, x)))


def averaging(net: Net, x: str) -> str:
    weights = fading(net, x)
    return str(net.op("Div", weights, net.op("ReduceSum", weights, net.const(np.array([0])), keepdims=1)))


def softmax(net: Net, x: str) -> str:
    k, _ = steps(net, x)
    return str(net.op("Softmax", net.op("Mul", k, net.const(np.linspace(0.1, 0.4, CHANNELS))), axis=0))


def harmonic(net: Net, x: str) -> str:
    return str(net.op("Reciprocal", net.op("Add", left(net, x), net.const(np.float64(1)))))


def rising(net: Net, x: str) -> str:
    k, length = steps(net, x)
    return str(net.op("Div", net.op("Add", k, net.const(np.float64(1))), length))


def places(net: Net, x: str) -> str:
    """linspace(-1, 1, T)."""
    k, length = steps(net, x)
    gaps = net.op("Sub", length, net.const(np.float64(1)))
    return str(net.op("Sub", net.op("Div", net.op("Mul", k, net.const(np.float64(2))), gaps), net.const(np.float64(1))))


def at_one_step(net: Net, x: str) -> str:
    k, _ = steps(net, x)
    return str(net.op("Cast", net.op("Equal", k, net.const(np.float64(5))), to=TensorProto.FLOAT))


def waves(net: Net, x: str) -> str:
    k, length = steps(net, x)
    return str(net.op("Cos", net.op("Div", net.op("Mul", k, net.const(np.float64(6.2))), length)))


def weighted(net: Net, weights: Callable[[Net, str], str], pooled: bool) -> str:
    x = net.input(["b", "t", INPUTS])
    h = net.op("Tanh", net.op("MatMul", x, net.const(np.random.default_rng(3).standard_normal((INPUTS, CHANNELS)))))
    y = net.op("Mul", h, weights(net, x))
    return str(net.op("ReduceSum", y, net.const(np.array([1])), keepdims=0) if pooled else y)


@pytest.mark.parametrize("weights", [fading, averaging, softmax])
def test_weights_that_fade_are_the_last_state_of_a_leaky_integrator(
    tmp_path: Path, weights: Callable[[Net, str], str]
) -> None:
    net = Net()
    model = lift(net, weighted(net, weights, True), ["b", CHANNELS], tmp_path, (2, 12), (3, 30))
    for system in model.systems:  # the sum, and what the weights add up to
        assert (system.kind, system.groups, system.states) == (LINEAR, CHANNELS, 1)
    assert not model.notes
    on_targets(model, 2, 14)


@pytest.mark.parametrize("weights", [harmonic, rising, places, at_one_step])
@pytest.mark.parametrize("pooled", [False, True])
def test_other_tables_are_counted_from_an_end(tmp_path: Path, weights: Callable[[Net, str], str], pooled: bool) -> None:
    net = Net()
    dims: list[int | str] = ["b", CHANNELS] if pooled else ["b", "t", CHANNELS]
    model = lift(net, weighted(net, weights, pooled), dims, tmp_path, (2, 12), (3, 30))
    assert kinds(model) == []
    on_targets(model, 2, 14)


def test_weights_of_a_fixed_length(tmp_path: Path) -> None:
    net = Net()
    rng = np.random.default_rng(4)
    x = net.input(["b", 20, INPUTS])
    h = net.op("Tanh", net.op("MatMul", x, net.const(rng.standard_normal((INPUTS, CHANNELS)))))
    weights = net.op("Pow", net.const(DECAYS), net.const(np.arange(19.0, -1, -1)[:, None]))
    y = net.op("ReduceSum", net.op("Mul", h, weights), net.const(np.array([1])), keepdims=0)
    model = lift(net, y, ["b", CHANNELS], tmp_path, (2, 20))
    assert [(system.groups, system.states) for system in model.systems] == [(CHANNELS, 1)]


def test_what_follows_no_end_is_told(tmp_path: Path) -> None:
    net = Net()
    y = weighted(net, waves, True)
    path = save(net.model([(y, ["b", CHANNELS])]), tmp_path)
    refused(path, "another number in a longer sequence", "fixed length")


@given(st.sampled_from(["", "steps", "gaps", "sum"]), st.booleans(), st.integers(0, 2**31), st.integers(4, 20))
def test_laws_are_found(divisor: str, backwards: bool, seed: int, length: int) -> None:
    rows = np.random.default_rng(seed).uniform(0.5, 2.0, (64, 2))

    def table(steps: int) -> Array:
        own = rows[:steps]
        by = {"": 1.0, "steps": steps, "gaps": steps - 1, "sum": own.sum(axis=0)}[divisor]
        return np.asarray((own / by)[:: -1 if backwards else 1])

    law = law_of(table(length), table(64))
    assert law is not None
    assert (law.divisor, law.backwards) == (divisor, backwards)
    by = {"": 1.0, "steps": 40, "gaps": 39, "sum": law.rows[:40].sum(axis=0)}[divisor]
    found = law.offset + law.total * law.rows[:40] / by
    np.testing.assert_allclose(found[:: -1 if backwards else 1], table(40), 1e-9)
