"""Many-input systems, and states with drives of their own, as matrix products over windows of steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import load_arch
from backends.epochcore.clock.timing import measure
from backends.epochcore.lower.objective import NEAR
from ssmc.diagnostics import UserError
from ssmc.ir import Graph, Piece, SequenceType, StreamType, Tensor, Value, interpret
from ssmc.target import RunSettings
from tests.backends.epochcore.test_costs import with_changes
from tests.backends.epochcore.test_forms import chosen
from tests.examples import examples

PLAIN = load_arch("tpu-like-128")


@dataclass(frozen=True)
class Shape:
    """A system: `alone` are its states without the matrices around them."""

    inputs: int = 3
    states: int = 4
    outputs: int = 2
    is_complex: bool = True
    reverse: bool = False
    before: bool = False
    start: bool = False
    alone: bool = False
    slowest: float = 0.99
    seed: int = 0

    @property
    def words(self) -> int:
        return self.states * (2 if self.is_complex else 1)


def graph(s: Shape, asked: dict[str, Any]) -> Graph:
    """input (-> matrix) -> states (-> matrix) -> output"""
    rng, g = np.random.default_rng(s.seed), Graph("wide", {"schedule": asked})
    width = s.words if s.alone else s.inputs
    v = g.add("input", [], {"name": "u", "type": StreamType((width,))}, name="u")
    start = None
    if s.start:
        kind = SequenceType((s.words,))
        start = g.add("input", [], {"name": "x0", "type": kind, "role": "state"}, name="x0")

    def matrix(x: Value, inputs: int, outputs: int) -> Value:
        attrs = {"weight": Tensor(rng.standard_normal((inputs, outputs))), "pieces": (Piece(0, inputs, 0, outputs),)}
        return x if s.alone else g.add("tile.matmul", [x], attrs)

    phase = np.exp(1j * rng.uniform(-3, 3, s.states)) if s.is_complex else 1.0
    attrs = {"decay": Tensor(rng.uniform(0.3, s.slowest, s.states) * phase), "pieces": (Piece(0, s.states, 0, 1),)}
    attrs |= {"reverse": s.reverse, "read_before": s.before, "asynchronous": False}
    x = g.add("tile.state", [matrix(v, s.inputs, s.words), None, start], attrs, name="layer")
    g.add("output", [matrix(x, s.words, s.outputs)], {"name": "y"})
    return g


def arrays(s: Shape, batch: int, steps: int) -> dict[str, Any]:
    rng = np.random.default_rng(s.seed + 1)
    found = {"u": rng.standard_normal((batch, steps, s.words if s.alone else s.inputs))}
    return found | ({"x0": rng.standard_normal((batch, s.words))} if s.start else {})


shapes = st.builds(
    Shape,
    inputs=st.integers(1, 4),
    states=st.integers(1, 5),
    outputs=st.integers(1, 4),
    is_complex=st.booleans(),
    reverse=st.booleans(),
    before=st.booleans(),
    alone=st.booleans(),
    seed=st.integers(0, 2**16),
)


@settings(max_examples=examples(40), deadline=None)
@given(shapes, st.integers(1, 12), st.integers(0, 50), st.booleans(), st.sampled_from([1, 7]), st.booleans())
def test_windows_of_many_inputs_mean_the_same(
    s: Shape, window: int, steps: int, start: bool, block: int, narrow: bool
) -> None:
    """Any length, with the last window cut; arrays smaller and larger than the matrices; many chunks."""
    s = Shape(**{**s.__dict__, "start": start and not s.reverse})
    arch = with_changes(PLAIN, array__rows=8, array__cols=6, memory__scratchpad_words=6000 if narrow else 1 << 20)
    g = graph(s, {"form": "chunked", "window": window, "steps": 64})
    program, x = BACKEND.lower(g, arch, ideal=True), arrays(s, 2, steps)
    assert chosen(program)["form"].startswith(f"chunked, windows of {window} steps")
    expected = interpret(g, x)["y"]
    results = [BACKEND.simulate(program, x, RunSettings(block=n)).outputs["y"] for n in (None, block)]
    assert np.abs(results[0] - expected).max(initial=0.0) <= 1e-11 * max(1.0, np.abs(expected).max(initial=0.0))
    np.testing.assert_array_equal(*results)


@settings(max_examples=examples(20), deadline=None)
@given(shapes, st.integers(1, 12), st.integers(0, 60))
def test_kernels_that_end_are_bands(s: Shape, window: int, steps: int) -> None:
    s = Shape(**{**s.__dict__, "reverse": False, "alone": False, "slowest": 0.6})
    g = graph(s, {"form": "convolution", "window": window, "steps": 64})
    program, x = BACKEND.lower(g, PLAIN, ideal=True), arrays(s, 2, steps)
    assert chosen(program)["form"].startswith(f"convolution, windows of {window} steps")
    expected = interpret(g, x)["y"]
    actual = BACKEND.simulate(program, x, RunSettings()).outputs["y"]
    assert np.abs(actual - expected).max(initial=0.0) <= 2e-7 * max(1.0, np.abs(expected).max(initial=0.0))


@settings(max_examples=examples(20), deadline=None)
@given(shapes, st.integers(0, 30), st.booleans(), st.booleans(), st.sampled_from([1, 7]))
def test_one_product_a_step_means_the_same(s: Shape, steps: int, start: bool, last: bool, block: int) -> None:
    s = Shape(**{**s.__dict__, "start": start, "reverse": False, "alone": False})
    g = graph(s, {"form": "mat-vec", "steps": 64})
    if last:
        g.add("output", [Value("layer", 1)], {"name": "last"})
    program, x = BACKEND.lower(g, PLAIN, ideal=True), arrays(s, 2, steps)
    assert chosen(program)["form"] == "one mat-vec a step"
    expected = interpret(g, x)
    for n in (None, block):
        found = BACKEND.simulate(program, x, RunSettings(block=n)).outputs
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-11 * max(1.0, np.abs(value).max(initial=0)))


def test_the_fastest_form_of_a_plain_array() -> None:
    """Products over windows beat a scan that waits at every step, for few states of many inputs and for many steps."""
    for s, steps, form in (
        (Shape(inputs=16, states=32, outputs=16), 4096, "chunked"),
        (Shape(states=8, alone=True), 4096, "chunked"),
        (Shape(states=512, alone=True), 4096, "scan"),
        (Shape(inputs=16, states=32, outputs=16), 8, "scan"),
        (Shape(inputs=4, states=16, outputs=4, slowest=0.4), 4096, "convolution"),
    ):
        program = BACKEND.lower(graph(s, {"steps": steps}), PLAIN, ideal=True)
        found: Any = program.meta["forms"]["layer"]  # type: ignore[index, call-overload]
        assert chosen(program)["form"].startswith(form)
        best, fastest = chosen(program), min((a for a in found if a["cycles"] is not None), key=lambda a: a["cycles"])
        # of near ties the one that saves a larger share of the energy than it costs time
        assert best["cycles"] <= (1 + NEAR) * fastest["cycles"]
        assert best["cycles"] * best["joules"] <= fastest["cycles"] * fastest["joules"]
        scan = BACKEND.lower(graph(s, {"steps": steps, "form": "scan"}), PLAIN, ideal=True)
        times = [measure(p, PLAIN, 1, steps)[0].cycles or 0 for p in (program, scan)]
        assert times[0] <= times[1] * (1.0 if form == "scan" else 0.5)


@pytest.mark.parametrize("form", ["", "chunked", "mat-vec"])
def test_reversed_states_are_together_with_their_matrices(form: str) -> None:
    """The matrix that drives them is in the loop that goes backward, with what follows them: nothing goes to DRAM."""
    s = Shape(inputs=16, states=32, outputs=16, reverse=True)
    asked = {"steps": 4096} | ({"form": form} if form else {"objective": "energy"})
    arch, g = (PLAIN if form else load_arch("epochcore-128")), graph(s, asked)
    y = g.operand("output", 0)
    g.remove("output")
    y = g.add("gate", [y, g.add("unary", [y], {"fn": "gelu"})], {"fn": "sigmoid"})
    weight = Tensor(np.random.default_rng(0).standard_normal((16, 8)))
    y = g.add("tile.matmul", [y], {"weight": weight, "pieces": (Piece(0, 16, 0, 8),)})
    g.add("output", [y], {"name": "y"})
    program, x = BACKEND.lower(g, arch, ideal=True), arrays(s, 2, 50)
    assert [stream["kind"] for stream in program.meta["streams"]] == ["input", "output"]  # type: ignore[union-attr, call-overload]
    assert form in ("", chosen(program)["form"].split(",")[0].replace("one mat-vec a step", "mat-vec"))
    assert sum(ins.mnemonic == "chunks" for ins in program.sections[0].code) == 1
    expected, found = interpret(g, x)["y"], BACKEND.simulate(program, x, RunSettings()).outputs["y"]
    assert np.abs(found - expected).max() <= 1e-10 * np.abs(expected).max()


def test_what_has_no_windows() -> None:
    """States that are given at the end of a reversed sequence, or asked for, and a kernel that does not end."""
    g = graph(Shape(start=True, reverse=True), {"form": "chunked"})
    with pytest.raises(UserError, match="cannot be computed in the form asked for"):
        BACKEND.lower(g, PLAIN, ideal=True)
    g = graph(Shape(), {"steps": 4096})
    g.add("output", [Value("layer", 1)], {"name": "last"})
    assert chosen(BACKEND.lower(g, PLAIN, ideal=True))["form"] == "scan"
    with pytest.raises(UserError, match="does not end within 4096 steps"):
        BACKEND.lower(graph(Shape(slowest=1 - 1e-7, states=40), {"form": "convolution"}), PLAIN, ideal=True)


@pytest.mark.parametrize("alone", [False, True])
def test_integers_stay_near(alone: bool) -> None:
    s = Shape(inputs=8, states=8, outputs=8, alone=alone)
    g, x = graph(s, {"form": "chunked", "window": 8}), arrays(s, 2, 100)
    actual = BACKEND.simulate(BACKEND.lower(g, PLAIN, ideal=False), x, RunSettings()).outputs["y"]
    expected = interpret(g, x)["y"]
    assert 0 < np.abs(actual - expected).max() <= 0.03 * np.abs(expected).max()
