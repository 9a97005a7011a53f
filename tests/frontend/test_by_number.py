"""Linear layers whose first steps are others: Holt's smoothing as a scripted loop, and what needs later inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from ssmc.frontend import load_model
from tests.frontend.blocks import RNG
from tests.frontend.checks import LINEAR, kinds, on_targets, refused
from tests.frontend.disguise import SEQUENCE
from tests.frontend.net import Net, save
from tests.frontend.unrolled import Writer, joined, steps_of

LENGTH, WIDTH = 14, 3


@pytest.mark.parametrize("length", ["t", LENGTH])
def test_levels_from_a_scripted_loop(tmp_path: Path, length: int | str) -> None:
    """`level = x[:, 0]`, a trend from zero, a list of levels; then `for t in range(1, T)`, as torch.jit.script does."""
    net, body = Net(), Net()
    x = net.input(["b", length, WIDTH])
    whole = net.op("Slice", x, net.ints(0), net.ints(2**31 - 1), net.ints(0), net.ints(1))  # x[:, 0] is x[:][:, 0]
    first = net.op("Gather", whole, net.const(np.int64(0)), axis=1)
    zero = net.op("ConstantOfShape", net.op("Shape", first), value=helper.make_tensor("", TensorProto.FLOAT, [1], [0]))
    trip, going = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL)
    level, trend, held = body.input(None), body.input(None), body.fresh()
    body.inputs.append(helper.make_value_info(held, SEQUENCE))
    u = body.op("Gather", x, body.op("Add", trip, body.const(np.int64(1))), axis=1)
    ahead = body.op("Mul", body.op("Add", level, trend), body.const(0.7))
    new = body.op("Add", body.op("Mul", u, body.const(0.3)), ahead)
    slope = body.op("Mul", body.op("Sub", new, level), body.const(0.1))
    slope = body.op("Add", slope, body.op("Mul", trend, body.const(0.9)))
    more = body.op("SequenceInsert", held, new)
    graph = body.subgraph([(body.op("Identity", going), []), (new, None), (slope, None)], {going: TensorProto.BOOL})
    graph.output[0].type.tensor_type.elem_type = TensorProto.BOOL
    graph.output.append(helper.make_value_info(more, SEQUENCE))
    trips = net.op("Sub", net.op("Squeeze", net.op("Shape", x, start=1, end=2)), net.const(np.int64(1)))
    start = net.op("SequenceConstruct", first)
    *_, found = net.op("Loop", trips, net.const(True), first, zero, start, outputs=3, body=graph)
    y = net.op("ConcatFromSequence", found, axis=1, new_axis=1)
    model = load_model(save(net.model([(y, ["b", length, WIDTH])]), tmp_path))
    assert kinds(model) == [LINEAR]
    on_targets(model, 2, LENGTH)


def holt(w: Writer, x: list[str], start: int) -> list[str]:
    """Forecasts of the next step, of a level and a slope that the first two inputs give (Holt, 1957)."""
    level, slope, found = x[0], w.op("Sub", x[1], x[0]), []
    found.append(w.op("Add", level, slope))
    for u in x[1:]:
        new = w.op("Add", w.op("Mul", u, w.const(0.3)), w.op("Mul", found[-1], w.const(0.7)))
        change = w.op("Mul", w.op("Sub", new, level), w.const(0.1))
        slope, level = w.op("Add", change, w.op("Mul", slope, w.const(0.9))), new
        found.append(w.op("Add", level, slope))
    return found[start:]


def test_a_forecast_that_needs_the_step_that_it_forecasts(tmp_path: Path) -> None:
    w = Writer()
    y = joined(w, holt(w, steps_of(w, "x", LENGTH, 1, "gather"), 0), 1, "concat", [2, WIDTH])
    path = w.save(tmp_path / "m.onnx", {"x": [2, LENGTH, WIDTH]}, {"y": y}, {"y": 3})
    message = refused(path, "for step 0 needs the input of step 1", "from step 1 on (y[:, 1:])")
    assert "Kalman" not in message


def test_what_the_hint_says_is_lifted(tmp_path: Path) -> None:
    w = Writer()
    y = joined(w, holt(w, steps_of(w, "x", LENGTH, 1, "gather"), 1), 1, "concat", [2, WIDTH])
    model = load_model(w.save(tmp_path / "m.onnx", {"x": [2, LENGTH, WIDTH]}, {"y": y}, {"y": 3}))
    assert kinds(model) == [LINEAR]


def test_a_matrix_over_time_that_is_none_of_one_op(tmp_path: Path) -> None:
    """Every step weighed by its number and added to the step behind it: later steps count everywhere."""
    w = Writer()
    x = steps_of(w, "x", LENGTH, 1, "gather")
    behind, gains = [*x[1:], x[0]], RNG.uniform(1, 2, LENGTH)
    found = [w.op("Add", u, w.op("Mul", v, w.const(g))) for u, v, g in zip(x, behind, gains, strict=True)]
    y = joined(w, found, 1, "concat", [2, WIDTH])
    path = w.save(tmp_path / "m.onnx", {"x": [2, LENGTH, WIDTH]}, {"y": y}, {"y": 3})
    assert "Kalman" not in refused(path, "it weighs steps by their numbers, later ones too")
