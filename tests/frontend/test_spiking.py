"""Integrate-and-fire neurons: every reset, in every form of loop; held against onnxruntime and a plain loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from ssmc.frontend import load_model
from ssmc.frontend.model import Model
from ssmc.frontend.proofs.proof import run_graph
from ssmc.frontend.states.spiking import find_neurons
from ssmc.ir import Graph, StreamType, Tensor, interpret
from tests.frontend.unrolled import Writer, joined, steps_of

BATCH, LENGTH, WIDTH, NEURONS = 2, 12, 3, 5
RESETS = ("subtract", "subtract before the leak", "to zero", "to zero with its drive", "to a value", "none")


def following(w: Writer, reset: str, before: str | None, u: str, a: str, theta: str) -> str:
    """The next potential; at the first step what an exporter leaves of it, the drive."""
    if before is None:
        return u
    fired = w.op("Cast", w.op("Greater", w.op("Sub", before, theta), w.const(0.0)), to=TensorProto.FLOAT)
    leak = w.op("Add", w.op("Mul", a, before), u)
    silent = w.op("Sub", w.const(1.0), fired)
    match reset:
        case "none":
            return leak
        case "subtract":
            return w.op("Sub", leak, w.op("Mul", fired, theta))
        case "subtract before the leak":
            return w.op("Add", w.op("Mul", a, w.op("Sub", before, w.op("Mul", fired, theta))), u)
        case "to zero":
            return w.op("Add", w.op("Mul", a, w.op("Mul", before, silent)), u)
        case "to zero with its drive":
            return w.op("Mul", leak, silent)
        case _:
            kept = w.op("Where", w.op("Greater", before, theta), w.const(-0.25), before)
            return w.op("Add", w.op("Mul", a, kept), u)


def plain(reset: str, u: Any, a: Any, theta: Any) -> tuple[Any, Any]:
    """(potentials, spikes) by a loop over steps, in float64."""
    x, potentials = np.zeros(u.shape[::2]), []
    for k in range(u.shape[1]):
        fired = (x > theta) * 1.0
        x = {
            "none": a * x + u[:, k],
            "subtract": a * x + u[:, k] - fired * theta,
            "subtract before the leak": a * (x - fired * theta) + u[:, k],
            "to zero": a * x * (1 - fired) + u[:, k],
            "to zero with its drive": (a * x + u[:, k]) * (1 - fired),
            "to a value": a * np.where(fired, -0.25, x) + u[:, k],
        }[reset]
        potentials.append(x)
    x = np.stack(potentials, 1)
    return x, (x > theta) * 1.0


def lifted(path: Path, x: Any) -> tuple[Model, dict[str, Any]]:
    """The model and its outputs, which must be onnxruntime's."""
    model = load_model(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    expected = dict(zip(names, session.run(names, {"x": x}), strict=True))
    found = run_graph(model.graph, model.inputs, model.outputs, {"x": x})
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-4 * np.abs(expected[name]).max())
    return model, found


@pytest.mark.parametrize("reset", RESETS)
def test_unrolled_neurons(tmp_path: Path, reset: str) -> None:
    rng, w = np.random.default_rng(1), Writer()
    a, theta = rng.uniform(0.7, 0.95, NEURONS), rng.uniform(0.4, 1.2, NEURONS)
    weight = rng.standard_normal((WIDTH, NEURONS))
    rows = w.const(a), w.const(theta)
    inputs = steps_of(w, w.op("MatMul", "x", w.const(weight)), LENGTH, 1, "gather")
    potentials: list[str] = []
    for u in inputs:
        potentials.append(following(w, reset, potentials[-1] if potentials else None, u, *rows))
    spikes = [w.op("Cast", w.op("Greater", x, rows[1]), to=TensorProto.FLOAT) for x in potentials]
    outputs = {name: joined(w, v, 1, "concat", [BATCH, NEURONS]) for name, v in (("m", potentials), ("s", spikes))}
    path = w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, outputs, {"m": 3, "s": 3})
    x = rng.standard_normal((BATCH, LENGTH, WIDTH)).astype(np.float32)
    model, found = lifted(path, x)
    assert [s.kind for s in model.systems] == ["linear time-invariant" if reset == "none" else "integrate and fire"]
    single = [np.float32(v).astype(np.float64) for v in (weight, a, theta)]
    m, s = plain(reset, x.astype(np.float64) @ single[0], *single[1:])
    assert s.any() and not s.all()
    np.testing.assert_allclose(found["m"], m, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found["s"], s)


@pytest.mark.parametrize("layers", [1, 3])
def test_layers_of_neurons_in_a_scan(tmp_path: Path, layers: int) -> None:
    """Each layer's potential is a state of one Scan, and what it fires drives the next layer."""
    rng, nodes, weights = np.random.default_rng(2), [], []

    def const(name: str, array: Any) -> str:
        weights.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def op(kind: str, *operands: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, operands, [f"t{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    u, states = "u", []
    for layer in range(layers):
        width = WIDTH if layer == 0 else NEURONS
        drive = op("MatMul", u, const(f"w{layer}", 2 * rng.standard_normal((width, NEURONS))))
        leak = op("Add", op("Mul", f"m{layer}", const(f"a{layer}", rng.uniform(0.7, 0.95, NEURONS))), drive)
        theta = const(f"theta{layer}", 1.0)
        fired = op("Cast", op("Greater", f"m{layer}", theta), to=TensorProto.FLOAT)
        states.append(op("Sub", leak, op("Mul", fired, theta)))
        u = op("Cast", op("Greater", states[-1], theta), to=TensorProto.FLOAT)

    def info(name: str, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    body = helper.make_graph(
        [*nodes, helper.make_node("Identity", [u], ["spikes"])],
        "step",
        [*(info(f"m{k}", ["b", NEURONS]) for k in range(layers)), info("u", ["b", WIDTH])],
        [*(info(name, ["b", NEURONS]) for name in states), info("spikes", ["b", NEURONS])],
    )
    scan = helper.make_node(
        "Scan",
        [*(["zero"] * layers), "x"],
        [*(f"last{k}" for k in range(layers)), "y"],
        body=body,
        num_scan_inputs=1,
        scan_input_axes=[1],
        scan_output_axes=[1],
    )
    const("zero", np.zeros((BATCH, NEURONS)))
    graph = helper.make_graph(
        [scan], "g", [info("x", [BATCH, LENGTH, WIDTH])], [info("y", [BATCH, LENGTH, NEURONS])], weights
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    model, found = lifted(path, rng.standard_normal((BATCH, LENGTH, WIDTH)).astype(np.float32))
    assert [s.kind for s in model.systems] == ["integrate and fire"] * layers
    assert found["y"].any()


@pytest.mark.parametrize("or_equal", [False, True])
def test_a_potential_on_the_threshold(or_equal: bool) -> None:
    """Whether it fires is found, and the op does it."""
    theta = np.array([0.5, 1.0, 0.75])

    def step(x: Any) -> Any:
        fired = x >= theta if or_equal else x > theta
        return 0.5 * x + 0.125 - fired * theta

    found = find_neurons([step, step], 2, 3)
    assert found is not None and found.or_equal == or_equal
    np.testing.assert_array_equal(found.threshold, theta)
    graph = Graph()
    v = graph.add("input", [], {"name": "v", "type": StreamType((3,)), "axes": "btf", "role": "data"})
    x0 = graph.add("constant", [], {"value": Tensor(theta)})
    graph.add("output", [graph.add("spike", [v, x0], found.attributes((3,)))], {"name": "x", "axes": "btf"})
    x = interpret(graph, {"v": np.full((1, 1, 3), 0.125)})["x"][0, 0]
    np.testing.assert_array_equal(x, step(theta))


@pytest.mark.parametrize("what", ["two thresholds", "a square", "neighbours", "a threshold that the data move"])
def test_what_is_no_neuron(what: str) -> None:
    rng = np.random.default_rng(4)
    maps = []
    for drive in rng.standard_normal((2, 2, 4)):
        maps.append(
            {
                "two thresholds": lambda x, v=drive: 0.9 * x + v - (x > 0.5) - (x > 1.5),
                "a square": lambda x, v=drive: 0.9 * x + v + 0.01 * x**2,
                "neighbours": lambda x, v=drive: 0.9 * np.roll(x, 1, -1) + v - (x > 0.5),
                "a threshold that the data move": lambda x, v=drive: 0.9 * x + v - (x > 1.5 + np.tanh(v)),
            }[what]
        )
    assert find_neurons(maps, 2, 4) is None
