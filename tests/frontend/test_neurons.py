"""Neurons as spiking libraries write them: resets within the step, carried spikes, synaptic currents; and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.diagnostics import UserError
from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from tests.frontend.neuron_steps import BATCH, LENGTH, NEURONS, WIDTH, Step, as_scan, as_step, fired_in_runtime
from tests.frontend.unrolled import Writer, joined, steps_of


def integrate(s: Step, reset: str) -> None:
    """The potential is reset in the step in which it fires."""
    theta = s.row(0.4, 1.2)
    charged = s.op("Add", "x0", s.op("Mul", s.op("Sub", s.drive(), "x0"), s.const(1 / 2.5)))
    spikes = s.fired(charged, theta)
    if reset == "subtract":
        kept = s.op("Sub", charged, s.op("Mul", spikes, theta))
    elif reset == "where":
        kept = s.op("Where", s.op("Greater", charged, theta), s.const(0.125), charged)
    else:
        value = s.op("Mul", spikes, s.const(0.0 if reset == "zero" else -0.25))
        kept = s.op("Add", s.op("Mul", s.silent(spikes), charged), value)
    s.states, s.output = [("x0", kept)], spikes


def carried_spikes(s: Step) -> None:
    """mem = a mem (1 - spike) + u; spike = mem > theta: both are carried."""
    leak = s.op("Mul", s.op("Mul", "x0", s.row(0.6, 0.9)), s.silent("x1"))
    potential = s.op("Add", leak, s.drive())
    spikes = s.fired(potential, s.row(0.4, 1.2))
    s.states, s.output = [("x0", potential), ("x1", spikes)], spikes


def synaptic(s: Step) -> None:
    """A current that decays feeds the membrane."""
    current = s.op("Add", s.op("Mul", "x0", s.row(0.5, 0.8)), s.drive(0.8))
    theta = s.const(1.0)
    leak = s.op("Add", s.op("Mul", "x1", s.row(0.6, 0.9)), current)
    potential = s.op("Sub", leak, s.op("Mul", s.fired("x1", theta), theta))
    s.states, s.output = [("x0", current), ("x1", potential)], s.fired(potential, theta)


def current_and_reset(s: Step) -> None:
    """The membrane takes the current of the step before, and is reset in the step (Norse's order)."""
    charged = s.op("Add", "x1", s.op("Mul", s.const(0.3), s.op("Sub", "x0", "x1")))
    spikes = s.fired(charged, s.const(0.5))
    potential = s.op("Mul", s.silent(spikes), charged)
    current = s.op("Add", s.op("Mul", "x0", s.const(0.7)), s.drive())
    s.states, s.output = [("x0", current), ("x1", potential)], spikes


def after_a_system(s: Step) -> None:
    """A threshold behind a linear system that nothing resets."""
    state = s.op("Add", s.op("Mul", "x0", s.row(0.6, 0.9)), s.drive())
    s.states, s.output = [("x0", state)], s.fired(state, s.row(0.4, 1.2))


def two_layers(s: Step) -> None:
    integrate(s, "subtract")
    (state,), inner = s.states, s.output
    theta = s.const(0.75)
    charged = s.op("Add", s.op("Mul", "x1", s.const(0.875)), s.op("MatMul", inner, s.const(np.eye(NEURONS))))
    spikes = s.fired(charged, theta)
    s.states, s.output = [state, ("x1", s.op("Sub", charged, s.op("Mul", spikes, theta)))], spikes


def subtracted_spikes(s: Step) -> None:
    """mem = a mem + u - theta spike."""
    theta = s.const(0.8)
    potential = s.op("Sub", s.op("Add", s.op("Mul", "x0", s.row(0.6, 0.9)), s.drive()), s.op("Mul", "x1", theta))
    spikes = s.fired(potential, theta)
    s.states, s.output = [("x0", potential), ("x1", spikes)], spikes


def gated_spikes(s: Step) -> None:
    """mem = (a mem + u) (1 - spike): the reset swallows the drive too."""
    charged = s.op("Add", s.op("Mul", "x0", s.row(0.6, 0.9)), s.drive())
    potential = s.op("Mul", charged, s.silent("x1"))
    spikes = s.fired(potential, s.row(0.4, 1.2))
    s.states, s.output = [("x0", potential), ("x1", spikes)], spikes


def zero_reset(s: Step) -> None:
    """snnTorch's zero reset: the potential of the step before says whether all of the step is thrown away."""
    theta = s.const(0.8)
    charged = s.op("Add", s.op("Mul", "x0", s.const(0.9)), s.drive())
    potential = s.op("Sub", charged, s.op("Mul", s.fired("x0", theta), charged))
    s.states, s.output = [("x0", potential)], s.fired(potential, theta)


def several_spikes(s: Step) -> None:
    """As many spikes in a step as the threshold is in the potential, and a current to which they are fed back."""
    spikes = s.op("Floor", "x0")
    fed = s.op("Add", s.op("Add", "x1", s.drive()), s.op("MatMul", spikes, s.const(np.zeros((NEURONS, NEURONS)))))
    current = s.op("Mul", fed, s.const(0.9))
    kept = s.op("Mul", s.op("Sub", "x0", spikes), s.const(0.8))
    s.states, s.output = [("x0", s.op("Add", kept, current)), ("x1", current)], spikes


NEURON = "integrate and fire"
CARRIED = ("carried spikes", "subtracted spikes", "gated spikes")
KINDS: dict[str, tuple[Callable[[Step], None], list[str]]] = {
    **{
        f"reset at once: {reset}": (lambda s, reset=reset: integrate(s, reset), [NEURON])
        for reset in ("subtract", "zero", "value", "where")
    },
    "carried spikes": (carried_spikes, [NEURON]),
    "subtracted spikes": (subtracted_spikes, [NEURON]),
    "gated spikes": (gated_spikes, [NEURON]),
    "zero reset": (zero_reset, [NEURON]),
    "synaptic": (synaptic, ["linear time-invariant", NEURON]),
    "current and reset": (current_and_reset, ["linear time-invariant", NEURON]),
    "after a system": (after_a_system, ["linear time-invariant"]),
    "two layers": (two_layers, [NEURON, NEURON]),
    "several spikes": (several_spikes, ["rounded"]),
}
AS_ONE_STEP = {"several spikes": ["rounded", "rounded", "linear time-invariant"]}


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_scan(tmp_path: Path, kind: str) -> None:
    build, kinds = KINDS[kind]
    s = Step()
    build(s)
    path = as_scan(s, tmp_path / "m.onnx")
    model = load_model(path)
    assert sorted(system.kind for system in model.systems) == sorted(kinds)
    u, expected = fired_in_runtime(s, path)
    for target in ("cim", "epochcore"):
        found = compile_model(model, target, ideal=True).run({"u": u}).outputs
        np.testing.assert_array_equal(found["y"], expected["y"])
        for name in list(expected)[1:]:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-5)


def read_before(s: Step) -> None:
    subtracted_spikes(s)
    s.output = s.op("Add", s.output, s.op("Add", "x0", s.op("Mul", "x1", s.const(0.5))))


@pytest.mark.parametrize("kind", [*KINDS, "read before"])
def test_as_one_step(tmp_path: Path, kind: str) -> None:
    """States in and out, from any potentials, also such as have fired."""
    build, kinds = KINDS.get(kind, (read_before, [NEURON]))
    kinds = AS_ONE_STEP.get(kind, kinds)
    s = Step()
    build(s)
    model = load_model(as_step(s, tmp_path / "m.onnx"))
    assert model.form == "step" and len(model.states) == len(s.states)
    assert sorted(system.kind for system in model.systems) == sorted(kinds)
    given = {"u": s.rng.standard_normal((BATCH, LENGTH, WIDTH)).astype(np.float32)}
    given |= {now: (3 * s.rng.standard_normal((BATCH, NEURONS))).astype(np.float32) for now, _ in s.states}
    if kind in CARRIED or kind == "read before":
        given["x1"] = (given["x1"] > 0).astype(np.float32)  # whatever the potential says
    expected = reference(model, given)
    for target in ("cim", "epochcore"):
        found = compile_model(model, target, ideal=True).run(given).outputs
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-5)


def nonlinear(s: Step) -> None:
    s.states = [("x0", s.op("Tanh", s.op("Add", s.op("Mul", "x0", s.const(0.9)), s.drive())))]
    s.output = s.states[0][1] + ""


def slightly_bent(s: Step) -> None:
    """No threshold, though what bends is too small for neighbouring potentials to tell."""
    square = s.op("Mul", s.op("Mul", "x0", "x0"), s.const(1e-6))
    s.states = [("x0", s.op("Add", s.op("Sub", s.op("Mul", "x0", s.const(0.9)), square), s.drive()))]
    s.output = s.states[0][1] + ""


def conductance(s: Step) -> None:
    """A current that the potential itself scales."""
    current = s.op("Add", s.op("Mul", "x1", s.const(0.8)), s.drive())
    spikes = s.fired("x0", s.const(0.8))
    potential = s.op("Sub", s.op("Add", "x0", s.op("Mul", "x1", s.op("Sub", s.const(1.0), "x0"))), spikes)
    s.states, s.output = [("x0", potential), ("x1", s.op("Sub", current, spikes))], spikes


def driven_leak(s: Step) -> None:
    """What is left of the potential is what the input says."""
    spikes, leak = s.fired("x0", s.const(0.8)), s.op("Sigmoid", s.drive())
    potential = s.op("Sub", s.op("Add", s.op("Mul", leak, "x0"), s.drive()), s.op("MatMul", spikes, s.const(np.eye(4))))
    s.states, s.output = [("x0", potential)], spikes


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (nonlinear, "not a linear function"),
        (slightly_bent, "not a linear function"),
        (conductance, "go through Mul '.*', a product of two of their states"),
        (driven_leak, "go through Mul '.*', which multiplies a state by what the data give"),
    ],
)
def test_refused_with_the_reason(tmp_path: Path, build: Callable[[Step], None], reason: str) -> None:
    s = Step()
    build(s)
    with pytest.raises(UserError, match=reason):
        load_model(as_scan(s, tmp_path / "m.onnx"))


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("compare", ["Greater", "GreaterOrEqual"])
def test_unrolled_and_reset_at_once(tmp_path: Path, reset: str, compare: str) -> None:
    """v = v + (u - v) / tau, a spike where v reaches the threshold, then the reset; written out for every step."""
    w, rng = Writer(), np.random.default_rng(6)
    weight, theta = rng.standard_normal((WIDTH, NEURONS)), w.const(0.25)
    inputs = steps_of(w, w.op("MatMul", "x", w.const(weight)), LENGTH, 1, "gather")
    kept, spikes = None, []
    for u in inputs:
        away = u if kept is None else w.op("Sub", u, kept)
        step = w.op("Div", away, w.const(2.0))
        charged = step if kept is None else w.op("Add", kept, step)
        fired = w.op("Cast", w.op(compare, charged, theta), to=TensorProto.FLOAT)
        if reset == "zero":
            kept = w.op("Mul", w.op("Sub", w.const(1.0), fired), charged)
        else:
            kept = w.op("Sub", charged, w.op("Mul", fired, theta))
        spikes.append(fired)
    y = joined(w, spikes, 1, "concat", [BATCH, NEURONS])
    path = w.save(tmp_path / "m.onnx", {"x": [BATCH, LENGTH, WIDTH]}, {"y": y}, {"y": 3})
    model = load_model(path)
    assert [system.kind for system in model.systems] == [NEURON]
    assert model.graph.op(model.systems[0].node)["or_equal"] == (compare == "GreaterOrEqual")
    x = rng.standard_normal((BATCH, LENGTH, WIDTH)).astype(np.float32)
    x[:, 3] = 0.0
    expected = reference(model, {"x": x})["y"]
    assert expected.any() and not expected.all()
    for target in ("cim", "epochcore"):
        np.testing.assert_array_equal(compile_model(model, target, ideal=True).run({"x": x}).outputs["y"], expected)
