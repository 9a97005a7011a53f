"""What the lowering writes: sizes, places, sources, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import load_arch
from backends.epochcore.simulate.elementwise import into
from isa.assembler import assemble
from isa.disassembler import disassemble
from isa.epochcore import EPOCHCORE
from isa.epochcore_fields import BINARY, REDUCE, UNARY
from ssmc.diagnostics import Misfit, UserError
from ssmc.ir import Graph, Piece, SequenceType, StreamType, Tensor, Value, functions, interpret
from ssmc.passes import Context, PassManager
from ssmc.statespace import StateSpace
from ssmc.target import RunSettings
from tests.backends.epochcore.test_costs import with_changes
from tests.backends.epochcore.test_end_to_end import model
from tests.examples import examples
from tests.passes.graphs import graphs

SMALL = load_arch("epochcore-small")


def test_functions_are_those_of_the_ir() -> None:
    assert set(UNARY) == set(functions.UNARY)
    assert set(BINARY) == set(functions.BINARY)
    assert set(REDUCE) == set(functions.REDUCE)


@pytest.mark.parametrize("name", sorted(functions.UNARY))
def test_fast_functions_agree_with_the_table(name: str) -> None:
    x = np.concatenate([np.linspace(-12, 12, 4001), [-1e30, 1e30, -1e-300, 0.0, np.inf, -np.inf, np.nan]])
    out = np.full(x.shape, np.nan)
    with np.errstate(all="ignore"):
        expected = functions.UNARY[name](x)
        into(name)(x, out)
    bound = 1e-13 * np.maximum(1.0, np.abs(expected))
    same = (out == expected) | (np.isnan(out) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        assert (same | (np.abs(out - expected) <= bound)).all()


@settings(max_examples=examples(40), deadline=None)
@given(graphs(), st.sampled_from(BACKEND.architectures()), st.integers(0, 2**32))
def test_models_through_the_passes(graph: Graph, name: str, seed: int) -> None:
    """The whole way from a lifted graph, ideal: outputs within 1e-9 of what the graph means."""
    arch, rng = load_arch(name), np.random.default_rng(seed)
    arrays = {}
    for node in graph.inputs():
        kind = node.types[0]
        shape = (2, 8, *kind.shape) if isinstance(kind, StreamType) else (2, *kind.shape)
        if node.op["role"] == "dt":
            arrays[node.op["name"]] = rng.uniform(0.1, 1.0, shape)
        else:
            index = kind.element == "index"
            arrays[node.op["name"]] = rng.integers(0, 5, shape) if index else rng.standard_normal(shape)
    try:
        expected = interpret(graph, arrays)
    except UserError:
        return  # an elapsed time of another rate than its stream's
    machine = BACKEND.machine(arch, ideal=True)
    tiled = PassManager(BACKEND.pipeline(arch, ideal=True), validate=False).run(graph, Context(machine=machine))
    actual = BACKEND.simulate(BACKEND.lower(tiled, arch, ideal=True), arrays, RunSettings()).outputs
    for output, reference in expected.items():
        assert np.abs(actual[output] - reference).max() <= 1e-9 * max(1e-6, np.abs(reference).max())


def test_the_text_of_a_program_is_the_program() -> None:
    program = BACKEND.lower(model(), SMALL, ideal=False)
    assert assemble(disassemble(program), data=program.data) == program


def test_instructions_know_their_layer_and_onnx_node() -> None:
    program = BACKEND.lower(model(), SMALL, ideal=True)
    (fri,) = {
        program.source(ins) for ins in program.section("main").code if ins.mnemonic == "fri" and not ins["reverse"]
    }
    assert fri is not None
    assert (fri.layer, fri.op, fri.onnx_nodes) == ("forward", "tile.ssm", ("/scan",))


def test_two_directions_are_two_loops() -> None:
    code = BACKEND.lower(model(), SMALL, ideal=True).section("main").code
    loops = [ins["backward"] for ins in code if ins.mnemonic == "chunks"]
    assert loops == [False, True]


def test_a_block_goes_through_dram_at_its_ends_only() -> None:
    """State-space layer, activation, matrix, gate, matrix: one stream comes in and one goes out, whatever the array."""
    rng, g = np.random.default_rng(0), Graph()
    u = g.add("input", [], {"name": "u", "type": StreamType((8,))})
    a, c, one = rng.uniform(0.5, 0.9, (8, 4)), rng.standard_normal((8, 1, 4)), np.ones((8, 1, 1))
    system = StateSpace(a, np.ones((8, 4, 1)), c, one)
    y = g.add("unary", [g.add("ssm", [u], {"system": system})], {"fn": "gelu"})
    left, right = (g.add("linear", [y], {"weight": Tensor(rng.standard_normal((8, 8)))}) for _ in range(2))
    gated = g.add("gate", [left, right], {"fn": "sigmoid"})
    g.add("output", [g.add("linear", [gated], {"weight": Tensor(rng.standard_normal((8, 3)))})], {"name": "y"})
    for name in BACKEND.architectures():
        arch = load_arch(name)
        made = PassManager(BACKEND.pipeline(arch, ideal=True)).run(g, Context(BACKEND.machine(arch, ideal=True)))
        code = BACKEND.lower(made, arch, ideal=True).section("main").code
        moved = [ins.mnemonic for ins in code if ins.mnemonic in ("load", "store") and ins["steps"] != "one"]
        assert moved == ["load", "store"], name


def test_the_last_step_of_a_window_comes_when_its_mean_does() -> None:
    g = Graph()
    x = g.add("input", [], {"name": "x", "type": StreamType((3,))})
    last = g.add("downsample", [x], {"kind": "take", "stride": 4, "offset": 3})
    mean = g.add("downsample", [x], {"kind": "mean", "stride": 4, "offset": 0})
    g.add("output", [g.add("binary", [last, mean], {"fn": "add"})], {"name": "y"})
    data = {"x": np.random.default_rng(0).standard_normal((2, 22, 3))}
    result = BACKEND.simulate(BACKEND.lower(g, SMALL, ideal=True), data, RunSettings())
    np.testing.assert_allclose(result.outputs["y"], interpret(g, data)["y"], rtol=1e-12)


def test_chunks_use_the_scratchpad_and_do_not_exceed_it() -> None:
    limits = []
    for words in (600, 6000):
        # with no wait for DRAM, which shorter chunks would shorten
        arch = with_changes(SMALL, memory__scratchpad_words=words, dram__bytes_per_second=1e15)
        code = BACKEND.lower(model(), arch, ideal=True).section("main").code
        limits.append(max(int(ins["limit"]) for ins in code if ins.mnemonic == "chunks"))
    assert 8 * limits[0] < limits[1] <= 12 * limits[0] + 12


def test_small_memories_give_the_same_numbers() -> None:
    """Parameters fetched before each use, a step a chunk: slower, and equal."""
    x = {"x": np.random.default_rng(0).standard_normal((2, 9, 5))}
    narrow = with_changes(SMALL, memory__parameter_words=490, memory__scratchpad_words=256)
    results, fetched = [], []
    for arch in (SMALL, narrow):
        program = BACKEND.lower(model(), arch, ideal=False)
        results.append(BACKEND.simulate(program, x, RunSettings()))
        fetched.append([ins["src"] for ins in program.section("main").code if ins.mnemonic == "fetch"])
    assert len(fetched[0]) == len(set(fetched[0])) and set(fetched[0]) == set(fetched[1])
    assert len(fetched[1]) >= len(fetched[0])
    for name, value in results[0].outputs.items():
        np.testing.assert_array_equal(results[1].outputs[name], value)
    assert results[1].stats.energy_joules > results[0].stats.energy_joules


@pytest.mark.parametrize("words", [400, 160, 40, 12])
@pytest.mark.parametrize("ideal", [True, False])
def test_matrices_are_cut_to_the_parameter_memory(words: int, ideal: bool) -> None:
    """Tiles that two of have room, down to a few words of a column; the numbers are those of whole tiles."""
    rng, graph = np.random.default_rng(0), Graph()
    x = graph.add("input", attrs={"name": "x", "type": StreamType((18,))})
    weight, bias = Tensor(rng.standard_normal((18, 23))), Tensor(rng.standard_normal(23))
    y = graph.add("linear", [x], {"weight": weight, "bias": bias}, name="first")
    y = graph.add("linear", [y], {"weight": Tensor(rng.standard_normal((23, 23)))}, name="second")
    graph.add("output", [y], {"name": "y"})
    tiled = PassManager(BACKEND.pipeline(SMALL, ideal=ideal), validate=False).run(
        graph, Context(machine=BACKEND.machine(SMALL, ideal=ideal), ideal=ideal)
    )
    arrays, narrow = {"x": rng.standard_normal((2, 7, 18))}, with_changes(SMALL, memory__parameter_words=words)
    program = BACKEND.lower(tiled, narrow, ideal=ideal)
    found = BACKEND.simulate(program, arrays, RunSettings()).outputs["y"]
    whole = BACKEND.simulate(BACKEND.lower(tiled, SMALL, ideal=ideal), arrays, RunSettings()).outputs["y"]
    np.testing.assert_allclose(found, whole, rtol=1e-6, atol=1e-6)
    if ideal:
        np.testing.assert_allclose(found, interpret(graph, arrays)["y"], rtol=1e-9, atol=1e-9)


def test_what_does_not_fit() -> None:
    with pytest.raises(Misfit) as caught:
        BACKEND.lower(model(), with_changes(SMALL, memory__scratchpad_words=60), ideal=True)
    text = str(caught.value)
    assert "demand" in text and "bound 60 words, gap" in text and "memory.scratchpad_words" in text
    graph = model()
    graph.attributes["schedule"] = {"form": "state in place"}
    for words in (100, 1):
        with pytest.raises(Misfit, match="half of the parameter memory"):
            BACKEND.lower(graph, with_changes(SMALL, memory__parameter_words=words), ideal=True)


def test_all_unknown_ops_are_listed() -> None:
    graph = Graph()
    x = graph.add("input", attrs={"name": "x", "type": StreamType((3,))})
    y = graph.add("linear", [x], {"weight": Tensor(np.eye(3))}, name="first", provenance=["/MatMul"])
    y = graph.add("linear", [y], {"weight": Tensor(np.eye(3))}, name="second")
    graph.add("output", [y], {"name": "y"})
    with pytest.raises(UserError) as caught:
        BACKEND.lower(graph, SMALL, ideal=True)
    assert "'first' (from /MatMul)" in str(caught.value) and "'second'" in str(caught.value)


def test_a_layer_too_wide_for_an_instruction_is_refused() -> None:
    graph = Graph()
    x = graph.add("input", attrs={"name": "x", "type": StreamType((70_000,))})
    graph.add("output", [graph.add("reduce", [x], {"fn": "max", "axes": (-1,)}, name="wide")], {"name": "y"})
    with pytest.raises(UserError, match="too large for an instruction"):
        BACKEND.lower(graph, load_arch("epochcore-128"), ideal=True)


def test_constant_outputs_and_states_left_out() -> None:
    graph = Graph()
    x = graph.add("input", attrs={"name": "x", "type": StreamType((2,))})
    x0 = graph.add("input", attrs={"name": "x0", "type": SequenceType((2,)), "role": "state"})
    attrs = {"decay": Tensor(np.array([0.5, 0.25])), "pieces": ()}
    state = graph.add("tile.state", [x, None, x0], {**attrs, "pieces": (Piece(0, 2, 0, 1),)})
    graph.add("output", [Value(state.node, 1)], {"name": "last", "role": "state"})
    constant = graph.add("constant", attrs={"value": Tensor(np.arange(3.0))})
    graph.add("output", [constant], {"name": "c"})
    arrays = {"x": np.ones((2, 3, 2))}
    for given_arrays in (arrays, {**arrays, "x0": np.full((2, 2), 8.0)}):
        program = BACKEND.lower(graph, SMALL, ideal=True)
        outputs = BACKEND.simulate(program, given_arrays, RunSettings()).outputs
        for name, reference in interpret(graph, given_arrays).items():
            np.testing.assert_allclose(outputs[name], reference, rtol=1e-14)
    assert [port.kind for port in program.inputs] == ["stream", "state"]


def test_machine_tells_the_passes_what_they_must_know() -> None:
    arch = load_arch("epochcore-128")
    ideal, real = (BACKEND.machine(arch, ideal=flag) for flag in (True, False))
    assert (ideal.weight_bits, real.weight_bits) == (None, 8)
    assert any(bank.fused for bank in ideal.banks) and any(bank.computed_decay for bank in ideal.banks)
    # where no element holds a state, the forms of whole systems are chosen between
    plain, liquid = BACKEND.machine(load_arch("tpu-like-128"), ideal=True).banks
    assert plain.kind == "vector" and plain.fused and liquid.liquid and liquid.fused
    assert "quantize{weights=8}" in BACKEND.pipeline(arch, ideal=False)
    assert "quantize" not in BACKEND.pipeline(arch, ideal=True)
    assert BACKEND.instruction_set is EPOCHCORE
