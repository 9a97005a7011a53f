"""Unrolled loops become Scans again, whatever the exporter; held against onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ssmc.frontend import load_model
from ssmc.frontend.model import Model
from ssmc.frontend.proofs.proof import run_graph
from ssmc.frontend.source.importer import import_onnx
from ssmc.frontend.source.listing import list_calls
from ssmc.frontend.unrolled.reroll import reroll
from ssmc.ir.graph import Graph
from tests.examples import examples
from tests.frontend.unrolled import (
    JOINS,
    READINGS,
    Writer,
    complex_step,
    diagonal_step,
    joined,
    run_steps,
    steps_of,
)

BATCH, LENGTH, WIDTH, STATES = 2, 9, 3, 4
KINDS = ("ssm", "recurrence", "fir")


def rerolled(path: Path) -> Graph:
    graph = import_onnx(path)
    return reroll(graph, list_calls(graph))


def scans(path: Path) -> int:
    """How many Scans a file has after re-rolling; nothing of the unrolled loops may be left."""
    listing = list_calls(rerolled(path))
    kinds = [call.kind for call in listing.calls]
    assert len(kinds) < 30, kinds
    return kinds.count("Scan")


def lifted(path: Path, **shapes: tuple[int, ...]) -> Model:
    """The lifted model, after a comparison with onnxruntime on inputs of its own."""
    model = load_model(path)
    rng = np.random.default_rng(11)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    shapes = shapes or {"x": (BATCH, LENGTH, WIDTH)}
    for scale in (1.0, 10.0):
        inputs = {name: (scale * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
        names = [output.name for output in session.get_outputs()]
        expected = dict(zip(names, session.run(names, inputs), strict=True))
        found = run_graph(model.graph, model.inputs, model.outputs, inputs)
        for name in names:
            assert found[name].shape == expected[name].shape
            tolerance = 1e-4 * np.abs(expected[name]).max()  # of float32 against float64
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=tolerance)
    return model


def decays(rng: np.random.Generator, n: int = STATES) -> Any:
    return rng.uniform(0.3, 0.95, n)


def projected(w: Writer, x: str, rng: np.random.Generator, shape: tuple[int, int]) -> str:
    return w.op("MatMul", x, w.const(rng.standard_normal(shape)))


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("joining", JOINS)
def test_every_way_to_read_and_to_join(tmp_path: Path, reading: str, joining: str) -> None:
    rng, w = np.random.default_rng(0), Writer()
    u = projected(w, "x", rng, (WIDTH, STATES))
    states = run_steps(diagonal_step(w, w.const(decays(rng))), steps_of(w, u, LENGTH, 1, reading))
    y = joined(w, states, 1, joining, [BATCH, STATES])
    out = projected(w, y, rng, (STATES, 2))
    path = w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, {"y": out}, {"y": 3})
    assert scans(path) == 1
    model = lifted(path)
    assert [system.kind for system in model.systems] == ["linear time-invariant"]
    assert [system.disguise for system in model.systems] == ["unrolled steps"]


def test_steps_joined_along_the_batch_and_reshaped(tmp_path: Path) -> None:
    """`torch.cat(outputs, 0).view(steps, batch, -1)`."""
    rng, w = np.random.default_rng(0), Writer()
    u = projected(w, "x", rng, (WIDTH, STATES))
    states = run_steps(diagonal_step(w, w.const(decays(rng))), steps_of(w, u, LENGTH, 1, "gather"))
    y = w.op("Transpose", joined(w, states, 0, "reshape", [BATCH, STATES]), perm=[1, 0, 2])
    path = w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, {"y": y}, {"y": 3})
    assert scans(path) == 1
    assert [system.kind for system in lifted(path).systems] == ["linear time-invariant"]


@pytest.mark.parametrize("first", ["one and zero", "any"])
def test_numbers_of_each_steps_own(tmp_path: Path, first: str) -> None:
    """Pairs turned by an angle that grows with the step, in front of a loop whose first step is folded."""
    rng, w = np.random.default_rng(4), Writer()
    u = steps_of(w, projected(w, "x", rng, (WIDTH, STATES)), LENGTH, 1, "gather")
    start, turned = 0.0 if first == "one and zero" else 0.3, []
    for t, v in enumerate(u):
        angle = start + t * np.repeat([1.0, 0.1], 2)
        odd, even = (w.op("Slice", v, w.const([k]), w.const([STATES]), w.const([1]), w.const([2])) for k in (1, 0))
        pair = w.op("Concat", *(w.op("Unsqueeze", p, w.const([-1])) for p in (w.op("Neg", odd), even)), axis=-1)
        other = w.op("Mul", w.op("Reshape", pair, w.const([BATCH, STATES])), w.const(np.sin(angle)))
        turned.append(w.op("Add", w.op("Mul", v, w.const(np.cos(angle))), other))
    y = joined(w, run_steps(diagonal_step(w, w.const(decays(rng))), turned), 1, "concat", [BATCH, STATES])
    path = w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, {"y": y}, {"y": 3})
    assert scans(path) == 1
    lifted(path)


@pytest.mark.parametrize("reading", READINGS)
def test_layers_applied_step_by_step(tmp_path: Path, reading: str) -> None:
    """A layer that is written out for every step (TimeDistributed), in front of a cumulative sum."""
    rng, w = np.random.default_rng(5), Writer()
    matrix = w.const(rng.standard_normal((WIDTH, STATES)))
    found = [w.op("Elu", w.op("MatMul", v, matrix)) for v in steps_of(w, "x", LENGTH, 1, reading)]
    y = w.op("CumSum", joined(w, found, 1, "concat", [BATCH, STATES]), w.const(1))
    lifted(w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, {"y": y}, {"y": 3}))


@pytest.mark.parametrize("start", ["zeros", "a step times zero", "folded", "constant", "folded constant"])
@pytest.mark.parametrize("output", ["after", "before"])
def test_first_steps(tmp_path: Path, start: str, output: str) -> None:
    """Zeros given, shaped like a step or folded away; a learned initial state given or folded into a constant."""
    rng, w = np.random.default_rng(1), Writer()
    a, x0 = decays(rng), rng.standard_normal((1, STATES))
    u = steps_of(w, projected(w, "x", rng, (WIDTH, STATES)), LENGTH, 1, "gather")
    step = diagonal_step(w, w.const(a))
    if start == "zeros":
        first = w.const(np.zeros((BATCH, STATES)))
        states = run_steps(step, u, first)
    elif start == "a step times zero":
        first = w.op("Mul", u[0], w.const(np.zeros(())))
        states = run_steps(step, u, first)
    elif start == "folded":
        first = w.const(np.zeros((BATCH, STATES)))
        states = run_steps(step, u)
    elif start == "constant":
        first = w.const(np.repeat(x0, BATCH, 0))
        states = run_steps(step, u, first)
    else:
        first = w.const(np.repeat(x0, BATCH, 0))
        states = run_steps(step, u[1:], w.op("Add", w.const(np.repeat(a * x0, BATCH, 0)), u[0]))
        states = [w.nodes[[n.output[0] for n in w.nodes].index(states[0]) - 1].input[1], *states]
    values = [first, *states[:-1]] if output == "before" else states
    y = joined(w, values, 1, "concat", [BATCH, STATES])
    path = w.save(
        tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, {"y": projected(w, y, rng, (STATES, 2))}, {"y": 3}
    )
    assert scans(path) == 1
    assert len(lifted(path).systems) == 1


@pytest.mark.parametrize("stored", ["as run", "in time"])
@pytest.mark.parametrize("output", ["after", "before"])
def test_backward_in_time(tmp_path: Path, stored: str, output: str) -> None:
    """The loop runs from the last step to the first; its list is reversed, or the stacked result is."""
    rng, w = np.random.default_rng(2), Writer()
    zero = w.const(np.zeros((BATCH, STATES)))
    u = steps_of(w, projected(w, "x", rng, (WIDTH, STATES)), LENGTH, 1, "gather")
    states = run_steps(diagonal_step(w, w.const(decays(rng))), u[::-1])
    values = [zero, *states[:-1]] if output == "before" else states
    if stored == "in time":
        y = joined(w, values[::-1], 1, "concat", [BATCH, STATES])
    else:
        y = joined(w, values, 1, "concat", [BATCH, STATES])
        y = w.op("Slice", y, w.const([-1]), w.const([-(2**62)]), w.const([1]), w.const([-1]))
    path = w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, {"y": y}, {"y": 3})
    assert scans(path) == 1
    assert [system.reverse for system in lifted(path).systems] == [True]


@pytest.mark.parametrize("meeting", ["at each step", "joined"])
def test_both_directions(tmp_path: Path, meeting: str) -> None:
    rng, w = np.random.default_rng(3), Writer()
    u = steps_of(w, projected(w, "x", rng, (WIDTH, STATES)), LENGTH, 1, "gather")
    there = run_steps(diagonal_step(w, w.const(decays(rng))), u)
    back = run_steps(diagonal_step(w, w.const(decays(rng))), u[::-1])[::-1]
    if meeting == "joined":
        parts = [joined(w, values, 1, "concat", [BATCH, STATES]) for values in (there, back)]
        y = w.op("Concat", *parts, axis=-1)
    else:
        both = [w.op("Concat", a, b, axis=-1) for a, b in zip(there, back, strict=True)]
        y = joined(w, both, 1, "concat", [BATCH, 2 * STATES])
    path = w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, {"y": y}, {"y": 3})
    assert scans(path) == 2
    assert sorted(system.reverse for system in lifted(path).systems) == [False, True]


@pytest.mark.parametrize("between", ["joined", "a list", "both"])
def test_layers(tmp_path: Path, between: str) -> None:
    """Layers that hand on a joined tensor, or a list of steps; `both` also reads the list again after a join."""
    rng, w = np.random.default_rng(4), Writer()
    x = projected(w, "x", rng, (WIDTH, STATES))
    inputs = steps_of(w, x, LENGTH, 1, "split")
    for layer in range(3):
        step = diagonal_step(w, w.const(decays(rng)), swapped=layer == 1)
        matrix = w.const(rng.standard_normal((STATES, STATES)) / 2)
        outputs = [w.op("Tanh", w.op("MatMul", h, matrix)) for h in run_steps(step, inputs)]
        inputs = [w.op("Add", u, y) for u, y in zip(inputs, outputs, strict=True)]
        if between != "a list":
            x = joined(w, inputs, 1, "concat", [BATCH, STATES])
        if between == "joined":
            inputs = steps_of(w, x, LENGTH, 1, "gather")
    y = joined(w, inputs, 1, "concat", [BATCH, STATES])
    path = w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, {"y": y}, {"y": 3})
    assert scans(path) == (3 if between == "joined" else 1)
    assert len(lifted(path).systems) == 3


@pytest.mark.parametrize("reading", READINGS)
def test_complex_states_in_a_last_axis_of_two(tmp_path: Path, reading: str) -> None:
    rng, w = np.random.default_rng(5), Writer()
    poles = rng.uniform(0.6, 0.95, STATES) * np.exp(1j * rng.uniform(0.2, 2.5, STATES))
    u = projected(w, "x", rng, (WIDTH, 2 * STATES))
    u = w.op("Reshape", u, w.const([BATCH, LENGTH, STATES, 2]))
    step = complex_step(w, w.const(poles.real), w.const(poles.imag))
    states = run_steps(step, steps_of(w, u, LENGTH, 1, reading))
    real = [w.op("Gather", h, w.const(0), axis=-1) for h in states]
    y = projected(w, joined(w, real, 1, "concat", [BATCH, STATES]), rng, (STATES, 2))
    path = w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, {"y": y}, {"y": 3})
    assert scans(path) == 1
    (system,) = lifted(path).systems
    assert system.is_complex


@pytest.mark.parametrize("wanted", ["last", "sum", "last and all", "running sum"])
def test_what_is_left_at_the_last_step(tmp_path: Path, wanted: str) -> None:
    """Nothing joins the steps: the state after the last one is read, or the sum of what each gave."""
    rng, w = np.random.default_rng(6), Writer()
    u = steps_of(w, projected(w, "x", rng, (WIDTH, STATES)), LENGTH, 1, "gather")
    states = run_steps(diagonal_step(w, w.const(decays(rng))), u)
    matrix = w.const(rng.standard_normal((STATES, 2)))
    outputs = {"y": w.op("MatMul", states[-1], matrix)}
    if wanted == "running sum":
        total = w.op("Sigmoid", states[0])
        for h in states[1:]:
            total = w.op("Add", total, w.op("Sigmoid", h))
        outputs = {"y": w.op("MatMul", total, matrix)}
    elif wanted == "sum":
        outputs = {"y": w.op("MatMul", w.op("Sum", *(w.op("Sigmoid", h) for h in states)), matrix)}
    elif wanted == "last and all":
        outputs["all"] = joined(w, states, 1, "concat", [BATCH, STATES])
    path = w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, outputs, {"y": 2, "all": 3})
    assert scans(path) == 1
    assert lifted(path).systems


@pytest.mark.parametrize("edge", ["zeros", "left out"])
def test_steps_that_look_further_back(tmp_path: Path, edge: str) -> None:
    """A short causal convolution on a list of earlier inputs, and a state of two steps ago."""
    rng, w = np.random.default_rng(7), Writer()
    u = steps_of(w, projected(w, "x", rng, (WIDTH, STATES)), LENGTH, 1, "gather")
    zero = w.const(np.zeros((BATCH, STATES)))
    taps = [w.const(rng.standard_normal(STATES)) for _ in range(3)]
    a, b = w.const(0.5 * decays(rng)), w.const(-0.4 * decays(rng))
    history, states = [zero, zero, *u], [zero, zero]
    for t in range(LENGTH):
        terms = [w.op("Mul", taps[k], history[t + 2 - k]) for k in range(3) if edge == "zeros" or t >= k]
        terms += [w.op("Mul", c, states[-k]) for k, c in ((1, a), (2, b)) if edge == "zeros" or t >= k]
        total = terms[0]
        for term in terms[1:]:
            total = w.op("Add", total, term)
        states.append(total)
    y = joined(w, states[2:], 1, "concat", [BATCH, STATES])
    path = w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, {"y": y}, {"y": 3})
    if edge == "zeros":  # where terms are missing, the sums do not have the same form
        assert scans(path) == 1
    assert lifted(path).systems


def test_decays_that_depend_on_the_data(tmp_path: Path) -> None:
    rng, w = np.random.default_rng(8), Writer()
    v = projected(w, "x", rng, (WIDTH, STATES))
    a = w.op("Sigmoid", projected(w, "x", rng, (WIDTH, STATES)))
    states: list[str] = []
    for t in range(LENGTH):
        at, vt = (w.op("Gather", s, w.const(t), axis=1) for s in (a, v))
        states.append(w.op("Add", w.op("Mul", at, states[-1]), vt) if states else vt)
    path = w.save(
        tmp_path / "m.onnx",
        {"x": [BATCH, LENGTH, WIDTH]},
        {"y": joined(w, states, 2, "concat", [BATCH, STATES])},
        {"y": 3},
    )
    assert scans(path) == 1
    assert [system.kind for system in lifted(path).systems] == ["selective"]


@pytest.mark.parametrize("start", ["expanded", "filled", "left out"])
def test_the_batch_may_be_dynamic(tmp_path: Path, start: str) -> None:
    rng, w = np.random.default_rng(9), Writer()
    u = projected(w, "x", rng, (WIDTH, STATES))
    size = w.op("Slice", w.op("Shape", u), w.const([0]), w.const([1]))
    shape = w.op("Concat", size, w.const([STATES]), axis=0)
    first = None
    if start == "expanded":
        first = w.op("Expand", w.const(np.zeros(())), shape)
    elif start == "filled":
        first = w.op("ConstantOfShape", shape)
    states = run_steps(diagonal_step(w, w.const(decays(rng))), steps_of(w, u, LENGTH, 1, "gather"), first)
    y = joined(w, states, 1, "concat", [])
    path = w.save(tmp_path / "m.onnx", {"x": ["batch", LENGTH, WIDTH]}, {"y": y, "h": states[-1]}, {"y": 3, "h": 2})
    assert scans(path) == 1
    for batch in (1, 5):
        assert lifted(path, x=(batch, LENGTH, WIDTH)).systems


def test_what_is_no_loop_stays(tmp_path: Path) -> None:
    """Heads that are split, treated alike and joined again are no steps of time."""
    rng, w = np.random.default_rng(10), Writer()
    heads = w.ops("Split", projected(w, "x", rng, (WIDTH, 4)), w.const([1] * 4), results=4, axis=-1)
    y = w.op("Concat", *(w.op("Tanh", h) for h in heads), axis=-1)
    path = w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, {"y": y}, {"y": 3})
    graph = import_onnx(path)
    assert reroll(graph, list_calls(graph)) is graph


def test_steps_that_differ_are_left_alone(tmp_path: Path) -> None:
    """One step with another decay: no Scan may claim to be that loop."""
    rng, w = np.random.default_rng(12), Writer()
    u = steps_of(w, projected(w, "x", rng, (WIDTH, STATES)), LENGTH, 1, "gather")
    a, other = w.const(decays(rng)), w.const(decays(rng))
    states = [u[0]]
    for t in range(1, LENGTH):
        states.append(w.op("Add", w.op("Mul", other if t == LENGTH // 2 else a, states[-1]), u[t]))
    y = joined(w, states, 1, "concat", [BATCH, STATES])
    path = w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, {"y": y}, {"y": 3})
    assert all(call.kind != "Scan" for call in list_calls(rerolled(path)).calls)


@given(data=st.data())
@settings(max_examples=examples(25), deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
def test_random_loops(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any sizes, ways to read and join, axes, directions and numbers of layers."""
    draw = data.draw
    seed = draw(st.integers(0, 2**32 - 1))
    rng, w = np.random.default_rng(seed), Writer()
    length, states = draw(st.integers(4, 12)), draw(st.integers(1, 6))
    layers = draw(st.integers(1, 3))
    x, width, backward = "x", WIDTH, []
    for _ in range(layers):
        time_first = draw(st.booleans())
        u = projected(w, x, rng, (width, states))
        if time_first:
            u = w.op("Transpose", u, perm=[1, 0, 2])
        inputs = steps_of(w, u, length, 0 if time_first else 1, draw(st.sampled_from(READINGS)))
        backward.append(draw(st.booleans()))
        order = -1 if backward[-1] else 1
        zero = w.const(np.zeros((BATCH, states))) if draw(st.booleans()) else None
        step = diagonal_step(w, w.const(decays(rng, states)), swapped=draw(st.booleans()))
        found = run_steps(step, inputs[::order], zero)[::order]
        if draw(st.booleans()):
            matrix = w.const(rng.standard_normal((states, states)))
            found = [w.op("Add", w.op("MatMul", h, matrix), v) for h, v in zip(found, inputs, strict=True)]
        axis = draw(st.integers(0, 2))
        y = joined(w, found, axis, draw(st.sampled_from(JOINS)), [BATCH, states])
        perm = {0: [1, 0, 2], 1: [0, 1, 2], 2: [0, 2, 1]}[axis]
        x, width = w.op("Tanh", w.op("Transpose", y, perm=perm)), states
    path = tmp_path_factory.mktemp("random") / "m.onnx"
    w.save(path, {"x": [BATCH, length, WIDTH]}, {"y": x}, {"y": 3})
    assert scans(path) == layers
    model = lifted(path, x=(BATCH, length, WIDTH))
    assert sorted(system.reverse for system in model.systems) == sorted(backward)
