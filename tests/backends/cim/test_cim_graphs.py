"""Random tile graphs on the simulator against the interpreter: values, taps, blocks of steps, text form."""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backends.cim import BACKEND
from isa.assembler import assemble
from isa.disassembler import disassemble
from ssmc.ir import Graph, interpret
from ssmc.target import RunSettings
from tests.examples import examples

from .chips import small
from .graphs import arrays, random_graph

SEEDS = st.integers(0, 2**32 - 1)
LAYERS = st.integers(1, 12)
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def agree(got: np.ndarray, want: np.ndarray, what: str) -> None:
    assert got.shape == want.shape, what
    if want.size and np.isfinite(want).all():
        assert np.abs(got - want).max() <= 1e-12 * max(1.0, np.abs(want).max()), what


STEPS = {"greater", "greater_or_equal", "equal", "sign", "floor", "ceil", "round", "heaviside", "heaviside_or_equal"}


def behind_steps(graph: Graph, got: Mapping[str, np.ndarray], want: Mapping[str, np.ndarray]) -> set[str]:
    """Nodes behind a step function whose operand is rounded otherwise than the interpreter's: it may step elsewhere."""
    found: set[str] = set()
    for node in graph.nodes():
        if node.op.name not in ("spike", "rounded", "rounded_sums") and node.op.get("fn") not in STEPS:
            continue
        names = [value.node for value in graph.operands(node.name) if value is not None]
        if any(name in got and not np.array_equal(got[name], want[f"%{name}"]) for name in names):
            found |= {node.name, *nx.descendants(graph.net, node.name)}
    return found


@settings(max_examples=examples(60), deadline=None)
@example(seed=794, layers=7, batch=1)  # compares a filter's results with numbers that are equal to some of them
@example(seed=3029, layers=5, batch=1)  # a slice whose words are taken for others by the time it would be read
@given(seed=SEEDS, layers=LAYERS, batch=st.integers(1, 3))
def test_ideal_simulation_is_the_interpreter(seed: int, layers: int, batch: int) -> None:
    t = random_graph(seed, layers)
    inputs = arrays(t, batch, 12, seed)
    want = interpret(t.graph, inputs, keep=True)
    program = BACKEND.lower(t.graph, small(), ideal=True)
    got = BACKEND.simulate(program, inputs, RunSettings(taps=True))
    stepped = behind_steps(t.graph, got.taps, want)
    for node in t.graph.outputs():
        if node.name not in stepped:
            agree(got.outputs[node.op["name"]], want[node.op["name"]], node.name)
    for layer, value in got.taps.items():
        if layer not in stepped:
            agree(value, want[f"%{layer}"], f"layer {layer}")
    layers_read = {n.name for n in t.graph.nodes() if n.name in got.taps}
    assert layers_read >= {n.name for n in t.graph.nodes("tile.matmul", "tile.state", "fir", "norm") if used(t, n.name)}


def used(t: object, name: str) -> bool:
    from ssmc.ir import Value

    return bool(t.graph.users(Value(name)))  # type: ignore[attr-defined]


@settings(max_examples=examples(25), deadline=None)
@given(seed=SEEDS, layers=LAYERS, block=st.integers(1, 13), noise=st.sampled_from([None, "ideal", "pcm", "all"]))
def test_every_block_gives_the_same_bits(seed: int, layers: int, block: int, noise: str | None) -> None:
    from . import presets

    t = random_graph(seed, layers)
    inputs = arrays(t, 2, 12, seed)
    program = BACKEND.lower(t.graph, small(), ideal=False)
    with presets.everything():
        runs = [BACKEND.simulate(program, inputs, RunSettings(block=b, noise=noise, seed=5)) for b in (None, 1, block)]
    for name, want in runs[0].outputs.items():
        for other in runs[1:]:
            assert np.array_equal(other.outputs[name], want, equal_nan=True), name
    assert runs[0].stats == runs[1].stats == runs[2].stats


@settings(max_examples=examples(25), deadline=None)
@given(seed=SEEDS, layers=LAYERS)
def test_text_form_runs_the_same(seed: int, layers: int) -> None:
    t = random_graph(seed, layers)
    inputs = arrays(t, 1, 4, seed)
    program = BACKEND.lower(t.graph, small(), ideal=True)
    again = assemble(disassemble(program), data=dict(program.data))
    assert again == program
    a, b = (BACKEND.simulate(p, inputs, RunSettings()).outputs for p in (program, again))
    assert all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)


@settings(max_examples=examples(25), deadline=None)
@given(seed=SEEDS, layers=LAYERS, steps=st.integers(2, 40).map(lambda n: 2 * n))
def test_a_sample_does_not_see_its_batch(seed: int, layers: int, steps: int) -> None:
    t = random_graph(seed, layers)
    inputs = arrays(t, 3, steps, seed)
    program = BACKEND.lower(t.graph, small(), ideal=False)
    whole = BACKEND.simulate(program, inputs, RunSettings(noise="pcm")).outputs
    first = BACKEND.simulate(program, {k: v[:1] for k, v in inputs.items()}, RunSettings(noise="pcm")).outputs
    for name, value in first.items():
        assert np.array_equal(value, whole[name][:1], equal_nan=True), name
