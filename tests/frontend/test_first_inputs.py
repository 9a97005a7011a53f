"""Smoothing whose states start from the first inputs: a level, and a trend that is a difference (Holt)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ssmc.frontend import load_model
from ssmc.frontend.graph.flow import Unsupported
from ssmc.frontend.mixing import cuts
from ssmc.frontend.mixing.mixing import explain_region
from tests.frontend import disguise_parallel
from tests.frontend.checks import LINEAR, kinds, on_targets, refused
from tests.frontend.net import save
from tests.frontend.test_disguises import random_system
from tests.frontend.unrolled import Writer, joined, steps_of

BATCH, LENGTH, WIDTH = 2, 18, 3
A, B = 0.3, 0.1

Smooth = Callable[[Writer, list[str]], list[str]]


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


def level_and_season(w: Writer, x: list[str], period: int) -> list[str]:
    """Holt-Winters' additive smoothing from the first period: forecasts of the steps behind it (Winters, 1960)."""
    level = w.op("Mul", w.op("Sum", *x[:period]), w.const(1 / period))
    trend = w.op("Mul", w.op("Sub", x[period], x[0]), w.const(1 / period))
    seasons, found = [w.op("Sub", u, level) for u in x[:period]], []
    for u in x[period:]:
        before, *seasons = seasons
        new = blend(w, A, w.op("Sub", u, before), w.op("Add", level, trend))
        trend, level = blend(w, B, w.op("Sub", new, level), trend), new
        seasons.append(blend(w, 0.2, w.op("Sub", u, level), before))
        found.append(w.op("Sum", level, trend, seasons[0]))
    return found


def from_zero(w: Writer, x: list[str], period: int) -> list[str]:
    """The same with all states 0 at first; without seasons if the period is 0 (Holt)."""
    level = trend = w.const(np.zeros((BATCH, WIDTH)))
    seasons, found = [level] * period, []
    for u in x:
        before = seasons.pop(0) if period else w.const(0.0)
        new = blend(w, A, w.op("Sub", u, before), w.op("Add", level, trend))
        trend, level = blend(w, B, w.op("Sub", new, level), trend), new
        seasons += [blend(w, 0.2, w.op("Sub", u, level), before)] * (period > 0)
        found.append(w.op("Sum", level, trend, *seasons[:1]))
    return found


@pytest.mark.parametrize(
    "smooth",
    [
        lambda w, x: smoothed(w, x)[1:],
        lambda w, x: smoothed(w, x)[2:],
        lambda w, x: level_and_season(w, x, 3),
        lambda w, x: from_zero(w, x, 0),
        lambda w, x: from_zero(w, x, 3),
    ],
    ids=["holt", "holt from the second", "holt-winters", "holt from zero", "holt-winters from zero"],
)
def test_smoothing_in_every_usual_form(smooth: Smooth, tmp_path: Path) -> None:
    w, length = Writer(), 24
    y = joined(w, smooth(w, steps_of(w, "x", length, 1, "gather")), 1, "concat", [BATCH, WIDTH])
    model = load_model(w.save(tmp_path / "m.onnx", {"x": [BATCH, length, WIDTH]}, {"y": y}, {"y": 3}))
    assert kinds(model) == [LINEAR] and model.inputs[0].axes == "btf"
    assert not any("run through" in note for note in model.notes)
    on_targets(model, BATCH, length)


@pytest.mark.parametrize("part", [slice(1, None), slice(0, -1)], ids=["[1:]", "[:-1]"])
def test_the_state_before_the_first_step_is_among_the_results(part: slice, tmp_path: Path) -> None:
    """Results of one step more than go in, from a learned state, of which one is cut off."""
    w = Writer()
    h = w.const(np.tile(np.array([0.5, -1.0, 2.0]), (BATCH, 1)))
    a, found = w.const(np.array([0.5, 0.7, 0.9])), [h]
    for u in steps_of(w, "x", LENGTH, 1, "gather"):
        found.append(w.op("Add", w.op("Mul", found[-1], a), u))
    whole = joined(w, found, 1, "concat", [BATCH, WIDTH])
    ends = [w.const([n]) for n in (part.start, LENGTH + 1 if part.stop is None else part.stop, 1, 1)]
    path = w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, {"y": w.op("Slice", whole, *ends)}, {"y": 3})
    model = load_model(path)
    assert kinds(model) == [LINEAR]
    on_targets(model, BATCH, LENGTH)


def test_the_state_before_the_first_step_is_a_result(tmp_path: Path) -> None:
    w = Writer()
    found = [w.const(np.ones((BATCH, WIDTH)))]
    for u in steps_of(w, "x", LENGTH, 1, "gather"):
        found.append(w.op("Add", w.op("Mul", found[-1], w.const(np.array([0.5, 0.7, 0.9]))), u))
    y = joined(w, found, 1, "concat", [BATCH, WIDTH])
    path = w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, {"y": y}, {"y": 3})
    refused(path, "one step more than goes in", "without it (y[:, 1:])")


def test_a_local_response_norm_is_named(tmp_path: Path) -> None:
    w = Writer()
    found = smoothed(w, steps_of(w, "x", LENGTH, 1, "gather"))
    y = w.op("LRN", w.op("Transpose", joined(w, found, 1, "concat", [BATCH, WIDTH]), perm=[0, 2, 1]), size=3)
    path = w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, {"y": y}, {"y": 3})
    refused(path, "LRN", "the squares of neighbouring channels")


def test_first_inputs_last_longer_than_the_taps_that_later_ones_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parallel scan that takes its first two steps 15 fold at its second level, whose kernels are of every second
    step: the last tap that later inputs tell is zero, and the one behind it, of the first inputs, is not."""
    model = disguise_parallel.as_associative_scan(random_system(3, 1, 2, 1, 1, True), 8)
    nodes = list(model.graph.node)
    at = [i for i, node in enumerate(nodes) if node.op_type == "Concat"][2]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([15.0], np.float32), "fifteen"))
    nodes.insert(at, onnx.helper.make_node("Mul", [nodes[at].input[0], "fifteen"], ["fifteenfold"]))
    nodes[at + 1].input[0] = "fifteenfold"
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    failed: list[tuple[Any, ...]] = []

    def explained(translator: Any, region: Any) -> Any:
        try:
            return explain_region(translator, region)
        except Unsupported:
            failed.append((translator, region.target, region.entries, region.flows))
            raise

    monkeypatch.setattr(cuts, "explain_region", explained)
    assert all(proof.passed for proof in load_model(save(model, tmp_path)).proofs)
    assert failed and len(failed) == len(set(failed))  # many cuts meet the same regions, which are tried once
