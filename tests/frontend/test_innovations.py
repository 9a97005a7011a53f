"""One-step filters that give what they did not foresee: a measurement is not a state, though an output follows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssmc.frontend import load_model
from tests.frontend.checks import refused
from tests.frontend.net import Net, save

A = np.array([[1.0, 0.1], [0.0, 0.95]])
GAIN = np.array([[0.5], [0.3]])


def _filter(folder: Path, state_first: bool, twice: bool) -> tuple[Path, str, str]:
    """A Kalman filter of a fixed gain: estimate, innovation z - H x and, perhaps, the estimate again as the state."""
    net = Net()
    names = [net.input(["b", 2])] if state_first else []
    z = net.input(["b", 1])
    x = names[0] if state_first else net.input(["b", 2])
    foreseen = net.op("MatMul", x, net.const(A.T))
    innovation = net.op("Sub", z, net.op("MatMul", foreseen, net.const(np.array([[1.0], [0.0]]))))
    estimate = net.op("Add", foreseen, net.op("MatMul", innovation, net.const(GAIN.T)))
    outputs = [(estimate, ["b", 2]), (innovation, ["b", 1])]
    if twice:
        outputs.append((net.op("Identity", estimate), ["b", 2]))
    return save(net.model(outputs), folder), x, z


@pytest.mark.parametrize("state_first", [False, True])
@pytest.mark.parametrize("twice", [False, True])
def test_a_measurement_is_data(tmp_path: Path, state_first: bool, twice: bool) -> None:
    path, x, _ = _filter(tmp_path, state_first, twice)
    model = load_model(path)
    assert list(model.states) == [x]
    (system,) = model.systems
    assert (system.states, system.inputs) == (2, 1)


@pytest.mark.parametrize("wide", [1, 2])
@pytest.mark.parametrize("data_last", [False, True])
def test_a_residual_is_no_state(tmp_path: Path, data_last: bool, wide: int) -> None:
    """y = u + C x, of the state's own width."""
    net = Net()
    first, second = (net.input(["b", wide]) for _ in range(2))
    u, x = (second, first) if data_last else (first, second)
    decayed = net.op("Mul", x, net.const(np.linspace(0.5, 0.8, wide)))
    new = net.op("Add", decayed, net.op("Mul", u, net.const(np.linspace(1.0, 2.0, wide))))
    y = net.op("Add", u, net.op("Mul", x, net.const(np.linspace(0.4, 0.3, wide))))
    model = load_model(save(net.model([(y, ["b", wide]), (new, ["b", wide])]), tmp_path))
    assert list(model.states) == [x]


def test_a_sum_is_a_state(tmp_path: Path) -> None:
    """A running sum moves as its input does, too, and drives nothing."""
    net = Net()
    u, x, total = (net.input(["b", 2]) for _ in range(3))
    new = net.op("Add", net.op("Mul", x, net.const(np.array([0.5, 0.8]))), u)
    summed = net.op("Add", total, new)
    y = net.op("Add", net.op("Mul", u, net.const(np.array([0.3, 0.4]))), new)
    model = load_model(save(net.model([(y, ["b", 2]), (new, ["b", 2]), (summed, ["b", 2])]), tmp_path))
    assert set(model.states) == {x, total}


def test_a_covariance_that_runs_along_is_told(tmp_path: Path) -> None:
    """One step of a Kalman filter of two states whose covariance is a state, too."""
    net = Net()
    z, x, p = net.input([1, 1]), net.input([1, 2]), net.input([2, 2], name="covariance")
    sees = net.const(np.array([[1.0], [0.0]]))
    foreseen = net.op("MatMul", x, net.const(A.T))
    before = net.op("MatMul", net.op("MatMul", net.const(A), p), net.const(A.T))
    before = net.op("Add", before, net.const(0.01 * np.eye(2)))
    column = net.op("MatMul", before, sees)
    seen = net.op("Add", net.op("MatMul", net.op("Transpose", sees, perm=[1, 0]), column), net.const(np.array([[0.1]])))
    gain = net.op("Div", column, seen)
    missed = net.op("Sub", z, net.op("MatMul", foreseen, sees))
    estimate = net.op("Add", foreseen, net.op("MatMul", missed, net.op("Transpose", gain, perm=[1, 0])))
    row = net.op("Transpose", column, perm=[1, 0])
    after = net.op("Sub", before, net.op("MatMul", gain, row))
    y = net.op("Relu", estimate)
    path = save(net.model([(y, [1, 2]), (estimate, [1, 2]), (after, [2, 2])]), tmp_path)
    refused(path, "state 'covariance'", "follows from it alone", "Riccati", "the gain that this settles at")


@pytest.mark.parametrize("batch", ["b", 1])
def test_a_forecast_before_the_measurement(tmp_path: Path, batch: int | str) -> None:
    """Holt's level and trend: the forecast is made of both states, and the measurement, of their shape, comes after."""
    net = Net()
    y, level, trend = (net.input([batch, 1]) for _ in range(3))
    forecast = net.op("Add", level, trend)
    missed = net.op("Sub", y, forecast)
    new = net.op("Add", forecast, net.op("Mul", missed, net.const(np.float32(0.3))))
    risen = net.op("Mul", net.op("Sub", new, level), net.const(np.float32(0.1)))
    slope = net.op("Add", net.op("Mul", trend, net.const(np.float32(0.9))), risen)
    outputs = [(forecast, [batch, 1]), (new, [batch, 1]), (slope, [batch, 1])]
    assert load_model(save(net.model(outputs), tmp_path)).states == {level: new, trend: slope}
