"""Smoothing whose states start from the first inputs: a level, and a trend that is a difference (Holt)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssmc.frontend import load_model
from tests.frontend.checks import LINEAR, kinds, on_targets, refused
from tests.frontend.unrolled import Writer, joined, steps_of

BATCH, LENGTH, WIDTH = 2, 18, 3
A, B = 0.3, 0.1


def blend(w: Writer, by: float, new: str, old: str) -> str:
    return w.op("Add", w.op("Mul", w.const(by), new), w.op("Mul", w.const(1.0 - by), old))


def smoothed(w: Writer, x: list[str]) -> list[str]:
    """Forecasts of the step (double exponential smoothing); the first is the input that the level starts from."""
    level, trend, found = x[0], w.op("Sub", x[1], x[0]), [x[0]]
    for u in x[1:]:
        found.append(w.op("Add", level, trend))
        new = blend(w, A, u, found[-1])
        trend, level = blend(w, B, w.op("Sub", new, level), trend), new
    return found


def test_smoothing_from_the_first_inputs(tmp_path: Path) -> None:
    w = Writer()
    y = joined(w, smoothed(w, steps_of(w, "x", LENGTH, 1, "gather")), 1, "concat", [BATCH, WIDTH])
    path = w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, {"y": y}, {"y": 3})
    model = load_model(path)
    assert kinds(model) == [LINEAR]
    assert model.systems[0].groups * model.systems[0].states <= 2 * WIDTH
    on_targets(model, BATCH, LENGTH)


def test_a_trend_has_two_states(tmp_path: Path) -> None:
    """Level and trend turn together: a pair of complex poles of [[1-a, 1-a], [-ab, 1-ab]]."""
    w = Writer()
    y = joined(w, smoothed(w, steps_of(w, "x", LENGTH, 1, "gather")), 1, "concat", [BATCH, WIDTH])
    (system,) = load_model(w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, {"y": y}, {"y": 3})).systems
    poles = np.linalg.eigvals([[1 - A, 1 - A], [-A * B, 1 - A * B]])
    assert system.is_complex and system.time_constants is not None
    found = np.unique(np.round(np.abs(np.exp(-1 / np.asarray(system.time_constants, float))), 4))
    np.testing.assert_allclose(found, np.abs(poles[:1]), atol=2e-4)


def test_a_gain_that_follows_the_number_of_the_step(tmp_path: Path) -> None:
    """A Kalman filter of two states whose covariance the graph computes along: linear, another one at every step."""
    w, turn = Writer(), np.array([[0.95, 0.05], [0.0, 0.95]])
    mean, P, found = w.const(np.zeros((BATCH, 2))), w.const(np.eye(2)), []
    a, at, c, ct = (w.const(m) for m in (turn, turn.T, [[1.0, 0.3]], [[1.0], [0.3]]))
    for u in steps_of(w, "x", LENGTH, 1, "gather"):
        P = w.op("Add", w.op("MatMul", w.op("MatMul", a, P), at), w.const(0.1 * np.eye(2)))
        seen = w.op("Add", w.op("MatMul", w.op("MatMul", c, P), ct), w.const(0.5))
        gain = w.op("Div", w.op("MatMul", P, ct), seen)
        ahead = w.op("MatMul", mean, at)
        missed = w.op("Sub", u, w.op("MatMul", ahead, ct))
        mean = w.op("Add", ahead, w.op("MatMul", missed, w.op("Transpose", gain, perm=[1, 0])))
        P = w.op("Sub", P, w.op("MatMul", w.op("MatMul", gain, c), P))
        found.append(mean)
    y = joined(w, found, 1, "concat", [BATCH, 2])
    path = w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, 1]}, {"y": y}, {"y": 3})
    refused(path, "its weights follow the number of the step and not the data", "Kalman")


def test_fewer_steps_than_go_in(tmp_path: Path) -> None:
    w = Writer()
    found = smoothed(w, steps_of(w, "x", LENGTH, 1, "gather"))[1:]
    y = joined(w, found, 1, "concat", [BATCH, WIDTH])
    path = w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, {"y": y}, {"y": 3})
    refused(path, f"of {LENGTH} steps it makes {BATCH} x {LENGTH - 1} x {WIDTH} numbers")
