"""Neurons that are nets of sums and thresholds: recurrent, adaptive, refractory, reset by what they just fired."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from ssmc.frontend.states.whole_numbers import off_edges
from tests.frontend.neuron_steps import BATCH, LENGTH, NEURONS, WIDTH, Step, as_scan, as_step, fired_in_runtime


def recurrent(s: Step) -> None:
    """The spikes of the step before come back through weights."""
    back = s.op("MatMul", "x1", s.const(s.rng.standard_normal((NEURONS, NEURONS))))
    potential = s.op("Add", s.op("Add", s.op("Mul", "x0", s.const(0.9)), s.drive()), back)
    spikes = s.fired(potential, s.const(0.5))
    s.states, s.output = [("x0", potential), ("x1", spikes)], spikes


def adaptive(s: Step) -> None:
    """The threshold rises with each spike."""
    spikes = s.fired("x0", "x1")
    potential = s.op("Sub", s.op("Add", s.op("Mul", "x0", s.const(0.9)), s.drive()), s.op("Mul", spikes, "x1"))
    theta = s.op("Add", s.op("Mul", "x1", s.const(0.9)), s.op("Add", s.const(0.1), spikes))
    s.states, s.output = [("x0", potential), ("x1", theta)], spikes


def moved_threshold(s: Step) -> None:
    """Fires where the potential is above what the input says."""
    spikes = s.fired("x0", s.op("Sigmoid", s.drive()))
    leak = s.op("Add", s.op("Mul", "x0", s.const(0.9)), s.drive())
    s.states, s.output = [("x0", s.op("Sub", leak, spikes))], spikes


def refractory(s: Step) -> None:
    """A neuron that fired takes nothing for three steps."""
    free = s.op("Cast", s.op("LessOrEqual", "x1", s.const(0.0)), to=TensorProto.FLOAT)
    charged = s.op("Add", s.op("Mul", "x0", s.const(0.9)), s.op("Mul", free, s.drive()))
    spikes = s.fired(charged, s.const(0.8))
    left = s.op("Relu", s.op("Sub", "x1", s.const(1.0)))
    waiting = s.op("Add", left, s.op("Mul", spikes, s.const(3.0)))
    s.states, s.output = [("x0", s.op("Mul", charged, s.silent(spikes))), ("x1", waiting)], spikes


def at_once(s: Step, reset: str) -> None:
    """snnTorch without a delay of the reset: what it just fired is taken away, but for what the step before fired."""
    theta, unit = s.const(0.7), s.const(1.0)
    before = s.fired("x0", theta)
    leak = s.op("Add", s.op("Mul", "x0", s.const(0.8)), s.drive())
    charged = s.op("Sub", leak, s.op("Mul", before, theta if reset == "subtract" else leak))
    spikes = s.fired(charged, theta)
    more = s.op("Sub", s.op("Div", spikes, unit), before)
    kept = s.op("Sub", charged, s.op("Mul", more, theta if reset == "subtract" else charged))
    s.states, s.output = [("x0", kept)], spikes


def alpha(s: Step, reset: str) -> None:
    """Two synaptic traces make the potential; all three are reset to zero, or the potential alone by subtraction."""
    theta, u = s.const(1.0), s.drive(3.0)
    fired = s.fired("x2", theta)
    up = s.op("Add", s.op("Mul", "x0", s.const(0.85)), u)
    down = s.op("Sub", s.op("Mul", "x1", s.const(0.75)), u)
    potential = s.op("Mul", s.const(2.5), s.op("Add", up, down))
    if reset == "subtract":
        potential = s.op("Sub", potential, s.op("Mul", fired, theta))
    else:
        up, down, potential = (s.op("Sub", x, s.op("Mul", fired, x)) for x in (up, down, potential))
    s.states, s.output = [("x0", up), ("x1", down), ("x2", potential)], s.fired(potential, theta)


def logic(s: Step) -> None:
    """Fires above one threshold and below another, unless it just did; a hold by Where, and a Sign."""
    above, below = s.op("Greater", "x0", s.const(0.3)), s.op("Less", "x0", s.const(1.5))
    inside = s.op("And", s.op("And", above, below), s.op("Not", s.op("GreaterOrEqual", "x1", s.const(0.5))))
    fired = s.op("Cast", inside, to=TensorProto.FLOAT)
    leak = s.op("Add", s.op("Mul", "x0", s.const(0.9)), s.drive())
    held = s.op("Where", s.op("Or", inside, s.op("Less", "x0", s.const(-2.0))), s.op("Mul", "x0", s.const(0.5)), leak)
    trace = s.op("Add", s.op("Mul", "x1", s.const(0.5)), s.op("Mul", s.const(0.25), s.op("Sign", "x0")))
    s.states, s.output = [("x0", held), ("x1", trace)], fired


def two_steps_before(s: Step) -> None:
    """A potential that is reset by what it was two steps before."""
    kept = s.op("Sub", s.op("Add", s.op("Mul", "x0", s.const(0.5)), s.drive()), s.fired("x1", s.const(0.6)))
    s.states, s.output = [("x0", kept), ("x1", s.op("Identity", "x0"))], s.fired(kept, s.const(0.6))


def below_zero(s: Step, reset: str) -> None:
    """A threshold below zero, and a rest further below, as of millivolts in other units."""
    theta, rest = s.const(-0.5), s.const(-1.25)
    charged = s.op("Add", "x0", s.op("Mul", s.op("Sub", s.drive(), s.op("Sub", "x0", rest)), s.const(0.4)))
    fired = s.op("GreaterOrEqual", charged, theta)
    spikes = s.op("Cast", fired, to=TensorProto.FLOAT)
    if reset == "where":
        kept = s.op("Where", fired, rest, charged)
    else:
        kept = s.op("Add", s.op("Mul", spikes, rest), s.op("Mul", s.silent(spikes), charged))
    s.states, s.output = [("x0", kept)], spikes


KINDS: dict[str, Callable[[Step], None]] = {
    "recurrent weights": recurrent,
    "adaptive threshold": adaptive,
    "refractory": refractory,
    "a threshold that the data move": moved_threshold,
    "reset at once: subtract": lambda s: at_once(s, "subtract"),
    "reset at once: zero": lambda s: at_once(s, "zero"),
    "alpha: subtract": lambda s: alpha(s, "subtract"),
    "alpha: zero": lambda s: alpha(s, "zero"),
    "below zero: where": lambda s: below_zero(s, "where"),
    "below zero: products": lambda s: below_zero(s, "products"),
    "logic": logic,
    "two steps before": two_steps_before,
}


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_scan(tmp_path: Path, kind: str) -> None:
    s = Step()
    KINDS[kind](s)
    path = as_scan(s, tmp_path / "m.onnx")
    model = load_model(path)
    assert "integrate and fire" in [system.kind for system in model.systems]
    assert not model.notes or kind != "refractory"  # no counter lies on the edge of what it is compared with
    u, expected = fired_in_runtime(s, path)
    for target in ("cim", "epochcore"):
        found = compile_model(model, target, ideal=True).run({"u": u}).outputs
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["adaptive threshold", "refractory", "reset at once: zero"])
def test_as_one_step(tmp_path: Path, kind: str) -> None:
    """States in and out, from any states."""
    s = Step()
    KINDS[kind](s)
    model = load_model(as_step(s, tmp_path / "m.onnx"))
    assert model.form == "step" and len(model.states) == len(s.states)
    given = {"u": s.rng.standard_normal((BATCH, LENGTH, WIDTH)).astype(np.float32)}
    given |= {now: s.rng.standard_normal((BATCH, NEURONS)).astype(np.float32) for now, _ in s.states}
    expected = reference(model, given)
    for target in ("cim", "epochcore"):
        found = compile_model(model, target, ideal=True).run(given).outputs
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-5)


def test_counters_lie_on_no_edge() -> None:
    """A counter of spikes, whole, is moved off the edge; a potential that the data drive is not, nor a fraction."""
    grid = np.array([[1.0, 0, 1.0, 1.0], [0] * 4, [0] * 4, [0] * 4, [1.0] * 4])
    terms = np.array([[1, 1, 2, 3], [1, 4, 5, 1], [1.0, 1.0, 1.0, 0.5]])
    drive = np.array([np.nan, 2.0, 0.0, 0.0])
    moved = off_edges(grid, terms, drive, np.zeros(4), "ceil")[1]
    np.testing.assert_array_equal(moved, [0.0, 0.0, -0.5, 0.0])
    np.testing.assert_array_equal(off_edges(grid, terms, drive, np.full(4, 0.5), "ceil")[1], np.zeros(4))
    np.testing.assert_array_equal(off_edges(grid, terms, drive, np.zeros(4), "nearest"), grid)
