"""Liquid-S4 in a recurrence: one op with what drives and reads it, and nothing else taken for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from ssmc.ir import Graph, SequenceType, StreamType, Tensor, Value, interpret
from ssmc.passes import Context, PassManager
from ssmc.passes.validation import relative_error
from ssmc.target import RunSettings
from tests.examples import examples


@dataclass(frozen=True)
class Layer:
    """Channels of several states, driven by a word each; `other`: what makes it no liquid system."""

    seed: int
    channels: int
    states: int
    spelling: str  # real, complex (parts put together), halves (parts behind each other), turned (b imaginary)
    reverse: bool = False
    read_before: bool = False
    start: bool = False
    last: bool = False
    apart: bool = False  # every state is read by itself, if it is real
    other: str = ""


def graph_of(layer: Layer) -> Graph:
    rng, g, shape = np.random.default_rng(layer.seed), Graph(), (layer.channels, layer.states)

    def constant(values: Any) -> Value:
        return g.add("constant", [], {"value": Tensor(np.asarray(values))})

    def apply(fn: str, a: Value, b: Value) -> Value:
        return g.add("binary", [a, b], {"fn": fn})

    def gain() -> Value:
        return constant(0.3 * rng.standard_normal(shape))

    x = g.add("input", [], {"name": "x", "type": StreamType((layer.channels,))}, name="x")
    u = g.add("unary", [x], {"fn": "tanh"})
    wide = g.add("reshape", [u], {"shape": (layer.channels, 1)})
    drives = [apply("mul", wide, gain()) for _ in range(1 if layer.spelling == "real" else 2)]
    if layer.other == "two words":
        drives = [apply("add", drive, g.add("reverse", [apply("mul", wide, gain())])) for drive in drives]
    sources = [apply("mul", drive, constant(1.5)) for drive in drives] if layer.other == "other gain" else drives
    decays = [apply("add", constant(rng.uniform(0.1, 0.6, shape)), source) for source in sources]
    if layer.other == "product":
        decays = [apply("mul", decay, wide) for decay in decays]
    if layer.spelling == "turned":
        still = [constant(rng.uniform(0.1, 0.6, shape)), constant(np.zeros(shape))]
        decays[0], drives[0] = (g.add("spread", [part, drives[1]]) for part in still)
    width = layer.channels * layer.states
    flat = [[g.add("reshape", [part], {"shape": (width,)}) for part in parts] for parts in (decays, drives)]
    if layer.spelling == "real":
        (a,), (v,) = flat
    else:
        if layer.spelling == "halves":
            both = [g.add("concat", parts, {"axis": -1}) for parts in flat]
            order = np.arange(2 * width).reshape(2, -1)
            flat = [[g.add("take", [row], {"axis": -1, "index": Tensor(index)}) for index in order] for row in both]
        a, v = (g.add("complex", parts) for parts in flat)
    element: Any = "real" if layer.spelling == "real" else "complex"
    kind = SequenceType((width,), element)
    x0 = g.add("input", [], {"name": "x0", "type": kind}, name="x0") if layer.start else None
    y = g.add("recurrence", [a, v, x0], {"reverse": layer.reverse, "read_before": layer.read_before}, name="states")
    last = Value(y.node, 1)
    parts = [y] if layer.spelling == "real" else [g.add(part, [y]) for part in ("real", "imag")]
    read = [apply("mul", g.add("reshape", [part], {"shape": shape}), gain()) for part in parts]
    if layer.apart and layer.spelling == "real":
        read = [g.add("unary", [part], {"fn": "tanh"}) for part in read]
    total = read[0] if len(read) == 1 else apply("sub", *read)
    out = g.add("reshape", [g.add("reduce", [total], {"fn": "sum", "axes": (-1,)})], {"shape": (layer.channels,)})
    g.add("output", [apply("add", out, apply("mul", u, constant(rng.standard_normal(layer.channels))))], {"name": "y"})
    if layer.last:
        g.add("output", [last if element == "real" else g.add("imag", [last])], {"name": "last"})
    return g


def inputs_of(layer: Layer, steps: int) -> dict[str, Any]:
    rng, states = np.random.default_rng(layer.seed + 1), layer.channels * layer.states
    x0 = rng.standard_normal((2, states)) + (0 if layer.spelling == "real" else 1j * rng.standard_normal((2, states)))
    return {"x": rng.standard_normal((2, steps, layer.channels)), **({"x0": x0} if layer.start else {})}


layers = st.builds(
    Layer,
    seed=st.integers(0, 1 << 16),
    channels=st.integers(1, 4),
    states=st.integers(1, 4),
    spelling=st.sampled_from(["real", "complex", "halves", "turned"]),
    reverse=st.booleans(),
    read_before=st.booleans(),
    start=st.booleans(),
    last=st.booleans(),
    apart=st.booleans(),
)


@settings(max_examples=examples(40), deadline=None)
@given(layers, st.integers(1, 6))
def test_it_is_one_system_and_does_what_it_did(layer: Layer, steps: int) -> None:
    graph, inputs = graph_of(layer), inputs_of(layer, steps)
    found = PassManager("fold-liquid").run(graph, Context())
    assert not list(found.nodes("recurrence"))
    (node,) = found.nodes("liquid_ssm")
    assert node.op["system"].A.size == layer.channels * layer.states
    got, want = interpret(found, inputs), interpret(graph, inputs)
    assert got.keys() == want.keys()
    assert all(relative_error(got[name], want[name]) < 1e-12 for name in want)


@pytest.mark.parametrize("spelling", ["real", "complex", "halves"])
@pytest.mark.parametrize("other", ["two words", "other gain", "product"])
def test_what_is_not_liquid_stays(other: str, spelling: str) -> None:
    graph = graph_of(Layer(3, 3, 2, spelling, other=other))
    assert PassManager("fold-liquid").run(graph, Context()) is graph


@pytest.mark.parametrize("layer", [Layer(1, 5, 3, "complex", last=True), Layer(2, 5, 3, "real", reverse=True)])
def test_the_array_steps_it(layer: Layer) -> None:
    """A word of a channel goes in, and one comes out: no streamed decays."""
    arch, graph, inputs = BACKEND.load_arch("epochcore-small"), graph_of(layer), inputs_of(layer, 9)
    pipeline = PassManager(BACKEND.pipeline(arch, ideal=True))
    tiled = pipeline.run(graph, Context(machine=BACKEND.machine(arch, ideal=True), ideal=True))
    program = BACKEND.lower(tiled, arch, ideal=True)
    used = {ins.mnemonic for ins in program.sections[0].code}
    assert "tri" in used and not {"sel", "tri.x"} & used
    got, want = BACKEND.simulate(program, inputs, RunSettings()).outputs, interpret(graph, inputs)
    assert all(relative_error(got[name], want[name]) < 1e-9 for name in want)
