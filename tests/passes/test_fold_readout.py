"""What surrounds a system word by word becomes part of it, exactly, whatever the system is like."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from ssmc.ir import Graph, SequenceType, StreamType, Tensor, Value, interpret
from ssmc.passes import Context, PassManager
from ssmc.passes.validation import relative_error
from ssmc.statespace import StateSpace
from ssmc.target import RunSettings
from tests.examples import examples


def systems(rng: np.random.Generator, groups: int, states: int, outputs: int, inputs: int, kind: str) -> StateSpace:
    is_complex = kind in ("complex", "halved", "complex output")
    shape = (groups, states)

    def numbers(*shape: int) -> Any:
        x = rng.standard_normal(shape)
        return x + 1j * rng.standard_normal(shape) if is_complex else x

    a = rng.uniform(0.5, 0.98, shape) * (np.exp(1j * rng.uniform(-1, 1, shape)) if is_complex else 1)
    real = kind != "complex output"
    d = rng.standard_normal((groups, outputs, inputs))
    system = StateSpace(a, numbers(groups, states, inputs), numbers(groups, outputs, states), d, real_output=real)
    if kind == "dense":
        return replace(system, A=a[:, :, None] * np.eye(states) + 0.05 * rng.standard_normal((groups, states, states)))
    return replace(system, halved=kind == "halved")


def surrounded(
    seed: int, kind: str, channels: int, size: int, outputs: int, read_before: bool, start: bool, like_s4: bool
) -> Graph:
    """channels x size groups; every channel's inputs are one word of the stream, and its outputs are weighed, added to
    a word of the stream, and summed. What was weighed is wanted after the last step, too."""
    rng, g = np.random.default_rng(seed), Graph()
    groups = channels * size
    system = replace(systems(rng, groups, 2, outputs, 1, kind), read_before=read_before)
    x = g.add("input", [], {"name": "x", "type": StreamType((channels,))}, name="x")
    index = np.repeat(np.arange(channels), size)
    u = g.add("take", [x], {"axis": -1, "index": Tensor(index)})
    gain = g.add("constant", [], {"value": Tensor(rng.standard_normal(groups))})
    u = g.add("binary", [gain, u], {"fn": "mul"})
    x0 = g.add("input", [], {"name": "x0", "type": SequenceType((2 * groups,))}, name="x0") if start else None
    y = g.add("ssm", [u, None, x0], {"system": system}, name="layer")
    if not system.real_output:
        factor = g.add("constant", [], {"value": Tensor(rng.standard_normal(groups * outputs) * (1 + 2j))})
        both = g.add("binary", [y, factor], {"fn": "mul"})
        parts = [g.add(part, [both]) for part in ("real", "imag")]
        y = g.add("binary", parts, {"fn": "sub"})
    y = g.add("reshape", [y], {"shape": (channels, size, outputs)})
    wide = g.add("reshape", [x], {"shape": (channels, 1, 1)})
    y = g.add("binary", [y, wide], {"fn": "add"})
    if like_s4:
        weight = g.add("constant", [], {"value": Tensor(rng.standard_normal((size, outputs)))})
        weighed = g.add("binary", [y, weight], {"fn": "mul"})
        z = g.add("reduce", [weighed], {"fn": "sum", "axes": (-2, -1)})
    else:
        weight = g.add("constant", [], {"value": Tensor(rng.standard_normal((channels, size, outputs)))})
        z = g.add("contract", [y, weight], {"equation": "hno,hno->h"})
    z = g.add("unary", [z], {"fn": "neg"})
    g.add("output", [g.add("unary", [z], {"fn": "tanh"})], {"name": "z"})
    g.add("output", [g.add("pool", [y], {"kind": "last"}, name="end")], {"name": "end"})
    last = Value("layer", 1)
    for part in ("real", "imag") if system.is_complex else ():
        g.add("output", [g.add(part, [last])], {"name": f"states.{part}"})
    if not system.is_complex:
        g.add("output", [last], {"name": "states"})
    return g


def inputs_of(g: Graph, seed: int, steps: int = 13) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    found = {}
    for node in g.inputs():
        kind: Any = node.types[0]
        found[node.op["name"]] = rng.standard_normal((2, *((steps,) if node.op["name"] == "x" else ()), *kind.shape))
    return found


@given(
    st.integers(0, 99),
    st.sampled_from(["real", "complex", "halved", "complex output", "dense"]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    *(st.booleans() for _ in range(3)),
)
@settings(max_examples=examples(60), deadline=None)
def test_surroundings_are_folded_exactly(
    seed: int, kind: str, channels: int, size: int, outputs: int, read_before: bool, start: bool, like_s4: bool
) -> None:
    g = surrounded(seed, kind, channels, size, outputs, read_before, start, like_s4)
    result = PassManager("fold-readout").run(g, Context())
    (node,) = result.nodes("ssm")
    system: StateSpace = node.op["system"]
    # where the last step of what was read before the update is wanted, a dense system is left alone
    folds = size * outputs > 1 and not (kind == "dense" and read_before)
    if folds:
        assert (system.groups, system.outputs) == (channels, channels) and system.states == 2 * size
        assert system.B.shape[2] == 1 and system.real_output
        assert result.operand(node.name, 0) == Value("x")
    else:
        assert node.name == "layer"
    inputs = inputs_of(g, seed)
    expected, found = interpret(g, inputs), interpret(result, inputs)
    assert max(relative_error(expected[name], found[name]) for name in expected) < 1e-9


def test_what_would_not_be_less_stays() -> None:
    """Outputs that are wanted one by one, and groups that are mixed as a matrix mixes them."""
    for mixed in (False, True):
        rng, g = np.random.default_rng(0), Graph()
        x = g.add("input", [], {"name": "x", "type": StreamType((8,))}, name="x")
        y = g.add("ssm", [x], {"system": systems(rng, 8, 4, 1, 1, "complex")}, name="layer")
        if mixed:
            weight = g.add("constant", [], {"value": Tensor(rng.standard_normal((8, 3)))})
            y = g.add("contract", [y, weight], {"equation": "i,io->o"})
        y = g.add("unary", [y], {"fn": "gelu"})
        g.add("output", [y], {"name": "y"})
        assert PassManager("fold-readout").run(g, Context()) is g


def test_outputs_that_nobody_reads_go() -> None:
    rng, g = np.random.default_rng(0), Graph()
    x = g.add("input", [], {"name": "x", "type": StreamType((4,))}, name="x")
    y = g.add("ssm", [x], {"system": systems(rng, 4, 2, 3, 1, "real")}, name="layer")
    y = g.add("slice", [g.add("reshape", [y], {"shape": (4, 3)})], {"axis": -1, "start": 1, "stop": 2})
    g.add("output", [g.add("unary", [y], {"fn": "gelu"})], {"name": "y"})
    result = PassManager("fold-readout").run(g, Context())
    (node,) = result.nodes("ssm")
    assert node.op["system"].outputs == 4 and node.op["system"].states == 2


@pytest.mark.parametrize("kind", ["real", "complex output"])
def test_a_step_read_state_by_state_takes_whole_chunks(kind: str) -> None:
    """As one-step models are written: the readout as products and a sum, the next states as outputs."""
    arch = BACKEND.load_arch("epochcore-small")
    g = surrounded(1, kind, 16, 16, 2, False, True, False)
    context = Context(machine=BACKEND.machine(arch, ideal=True), ideal=True)
    pipeline = BACKEND.pipeline(arch, ideal=True)
    programs = []
    for text in (pipeline, pipeline.replace("fold-readout,", "")):
        tiled = PassManager(text).run(g, context)
        programs.append(BACKEND.lower(tiled, arch, ideal=True))
    folded, plain = ([int(i["limit"]) for i in p.sections[0].code if i.mnemonic == "chunks"] for p in programs)
    assert min(folded) > 4 * min(plain)
    inputs = inputs_of(g, 3, steps=100)
    expected = interpret(g, inputs)
    cycles = []
    for program in programs:
        run = BACKEND.simulate(program, inputs, RunSettings())
        cycles.append(run.stats.cycles or 0)
        for name, y in expected.items():
            assert relative_error(y, run.outputs[name]) < 1e-5
    assert 2 * cycles[0] < cycles[1]


@given(
    st.integers(0, 99),
    st.sampled_from(["real", "complex", "halved"]),
    st.integers(1, 4),
    st.integers(2, 3),
    *(st.booleans() for _ in range(3)),
)
@settings(max_examples=examples(40), deadline=None)
def test_a_word_for_every_state_of_a_channel_enters_once(
    seed: int, kind: str, channels: int, wide: int, read_before: bool, beside: bool, start: bool
) -> None:
    """As scans with complex states in two parts are written: a channel's word for real halves, zeros for the others;
    what leaves is as narrow as it can be."""
    rng, g = np.random.default_rng(seed), Graph()
    inputs = 2 * wide if beside else wide
    system = replace(systems(rng, channels, 3, 1, inputs, kind), read_before=read_before)
    x = g.add("input", [], {"name": "x", "type": StreamType((channels,))}, name="x")
    u = g.add("broadcast", [g.add("reshape", [x], {"shape": (channels, 1)})], {"shape": (channels, wide)})
    u = g.add("reshape", [u], {"shape": (channels * wide,)})
    if beside:
        zeros = g.add("constant", [], {"value": Tensor(np.zeros(channels * wide))})
        both = g.add("concat", [u, zeros], {"axis": -1})
        index = np.arange(2 * channels * wide).reshape(2, channels, wide).transpose(1, 0, 2).ravel()
        u = g.add("take", [both], {"axis": -1, "index": Tensor(index)})
    x0 = g.add("input", [], {"name": "x0", "type": SequenceType((3 * channels,))}, name="x0") if start else None
    y = g.add("ssm", [u, None, x0], {"system": system, "reverse": bool(seed % 2)}, name="layer")
    g.add("output", [g.add("unary", [y], {"fn": "tanh"})], {"name": "y"})
    result = PassManager("fold-readout").run(g, Context())
    (node,) = result.nodes("ssm")
    assert node.name == "layer" and node.op["system"].B.shape == (channels, 3, 1)
    assert result.operand("layer", 0) == Value("x")
    given_ = inputs_of(g, seed)
    assert relative_error(interpret(g, given_)["y"], interpret(result, given_)["y"]) < 1e-9


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_inputs_of_a_wide_system_are_added_to(kind: str) -> None:
    """What many inputs go through, straight and by the states, where words are taken twice, scaled, or not at all: of
    200 inputs and outputs that is a product of matrices, not a sum over all their triples."""
    rng, g = np.random.default_rng(0), Graph()
    x = g.add("input", [], {"name": "x", "type": StreamType((100,))}, name="x")
    index = rng.permutation(np.repeat(np.arange(100), 2))
    gain = g.add("constant", [], {"value": Tensor(rng.standard_normal(200))})
    u = g.add("binary", [gain, g.add("take", [x], {"axis": -1, "index": Tensor(index)})], {"fn": "mul"})
    y = g.add("ssm", [u], {"system": systems(rng, 1, 3, 200, 200, kind)}, name="layer")
    g.add("output", [y], {"name": "y"})
    folded = PassManager("fold-readout").run(g, Context())
    assert folded.node("layer").op["system"].inputs == 100
    inputs = {"x": rng.standard_normal((2, 5, 100))}
    assert relative_error(interpret(g, inputs)["y"], interpret(folded, inputs)["y"]) <= 1e-12
