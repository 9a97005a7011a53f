"""float32 words in ideal programs: where they are, where they must not be, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, load_arch
from backends.epochcore.simulate.elementwise import into
from backends.epochcore.simulate.run import plan_of
from isa import Program
from ssmc.ir import Graph, Piece, StreamType, Tensor, functions, interpret
from ssmc.target import RunSettings
from tests.backends.epochcore.graphs import OPS, build, inputs
from tests.backends.epochcore.test_end_to_end import model
from tests.backends.epochcore.test_random_graphs import tiny
from tests.examples import examples

ARCH = load_arch("epochcore-128")
OP_LISTS = st.lists(st.sampled_from(sorted(OPS)), min_size=1, max_size=7)


def lowered(graph: Graph, kind: str = "float32", arch: Arch = ARCH) -> Program:
    """The program of a model whose floating inputs and outputs are `kind`, and its whole numbers int64."""
    program = BACKEND.lower(graph, arch, ideal=True)
    inputs = [{"name": p.name, "dtype": "int64" if p.dtype == "int64" else kind} for p in program.inputs]
    outputs = [{"name": p.name, "dtype": kind} for p in program.outputs]
    return replace(program, meta={**program.meta, "interface": {"inputs": inputs, "outputs": outputs}})


def narrow(program: Program) -> set[str]:
    """The layers that write float32."""
    results, taps = plan_of(program).results, program.meta["taps"]
    assert isinstance(taps, list)
    return {tap["layer"] for tap in taps if not results[tap["at"]][tap["address"]].wide}


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(("kind", "bound"), [("float32", 1e-6), ("float64", 1e-12)])
def test_words_have_the_precision_of_the_model(kind: str, bound: float) -> None:
    graph, x = model(), np.random.default_rng(1).standard_normal((4, 21, 5))
    expected = interpret(graph, {"x": x})
    found = BACKEND.simulate(lowered(graph, kind), {"x": x}, RunSettings()).outputs
    errors = [relative(found[name], expected[name]) for name in expected]
    assert max(errors) < bound and (kind == "float64" or max(errors) > 1e-9)


def bank(decay: np.ndarray, b: np.ndarray, c: np.ndarray | None) -> Graph:
    """y = gelu(C x), or of the states themselves, with x <- a x + B u."""
    graph, (inputs, states) = Graph(), b.shape
    u = graph.add("input", attrs={"name": "u", "type": StreamType((inputs,))})
    weight = {"weight": Tensor(b), "pieces": (Piece(0, inputs, 0, states),)}
    drive = graph.add("tile.matmul", [u], weight, name="drive")
    pieces = (Piece(0, states, 0, 1),)
    x = graph.add("tile.state", [drive], {"decay": Tensor(decay), "pieces": pieces}, name="states")
    if c is not None:
        weight = {"weight": Tensor(c), "pieces": (Piece(0, states, 0, c.shape[1]),)}
        x = graph.add("tile.matmul", [x], weight, name="read")
    y = graph.add("unary", [x], {"fn": "tanh"}, name="after")
    graph.add("output", [graph.add("unary", [y], {"fn": "neg"}, name="last")], {"name": "y"})
    return graph


def test_states_that_are_summed_stay_wide_with_their_drives() -> None:
    decay, b, c = np.full(3, 0.9), np.ones((2, 3)), np.ones((3, 2))
    assert narrow(lowered(bank(decay, b, c))) == {"read", "after", "last"}
    assert narrow(lowered(bank(decay, b, None))) == {"drive", "states", "after", "last"}


def test_a_system_in_a_bad_basis_keeps_its_accuracy() -> None:
    """Two states of nearly the same decay, read with the difference of large numbers: float32 would leave nothing."""
    rng, large = np.random.default_rng(0), 1e5
    decay, b = np.array([0.9, 0.9 + 1e-5]), np.repeat(rng.standard_normal((3, 1)), 2, 1)
    graph, u = bank(decay, b, large * np.array([[-1.0], [1.0]])), rng.standard_normal((2, 50, 3)).astype(np.float32)
    expected = interpret(graph, {"u": u.astype(np.float64)})["y"]
    found = BACKEND.simulate(lowered(graph), {"u": u}, RunSettings()).outputs["y"]
    assert relative(found, expected) < 1e-6


def test_codes_of_many_bits_are_those_of_the_model() -> None:
    """Words in float32 put one in some hundred on the other side of an edge between two codes."""
    rng, graph = np.random.default_rng(3), Graph()
    u = graph.add("input", attrs={"name": "u", "type": StreamType((8,))})
    w = {"weight": Tensor(rng.standard_normal((8, 8))), "pieces": (Piece(0, 8, 0, 8),)}
    scale = graph.add("constant", attrs={"value": Tensor(np.full(8, 3.1e-5))})
    y = graph.add("unary", [graph.add("tile.matmul", [u], w)], {"fn": "tanh"})
    y = graph.add("unary", [graph.add("binary", [y, scale], {"fn": "div"})], {"fn": "round"})
    graph.add("output", [graph.add("unary", [y], {"fn": "neg"})], {"name": "y"})
    x = rng.standard_normal((4, 100, 8)).astype(np.float32)
    found = BACKEND.simulate(lowered(graph), {"u": x}, RunSettings()).outputs["y"]
    np.testing.assert_array_equal(found, interpret(graph, {"u": x.astype(np.float64)})["y"])


def test_streamed_decays_stay_wide() -> None:
    """exp(-r dt) near 1 in float32 has another time constant."""
    graph = Graph()
    u = graph.add("input", attrs={"name": "u", "type": StreamType((2,))})
    rate = graph.add("input", attrs={"name": "rate", "type": StreamType((2,))})
    a = graph.add("unary", [graph.add("unary", [rate], {"fn": "neg"})], {"fn": "exp"})
    x = graph.add("tile.recurrence", [a, u], {"is_complex": False})
    graph.add("output", [graph.add("unary", [x], {"fn": "tanh"})], {"name": "y"})
    steps = np.arange(2000.0)[None, :, None]
    arrays = {"u": np.full((1, 2000, 2), 1e-5), "rate": 1e-5 * (2 + np.sin(steps)) * np.ones(2)}
    arrays = {name: value.astype(np.float32) for name, value in arrays.items()}
    expected = interpret(graph, {name: value.astype(np.float64) for name, value in arrays.items()})["y"]
    found = BACKEND.simulate(lowered(graph), arrays, RunSettings()).outputs["y"]
    assert relative(found, expected) < 3e-7


def test_whole_numbers_stay_whole() -> None:
    graph = Graph()
    t = graph.add("input", attrs={"name": "t", "type": StreamType((1,), "index")})
    one = graph.add("constant", attrs={"value": Tensor(np.full(1, float(2**25)))})
    graph.add("output", [graph.add("binary", [t, one], {"fn": "sub"})], {"name": "y"})
    t_value = 2**25 + np.arange(5).reshape(1, 5, 1)
    np.testing.assert_array_equal(
        BACKEND.simulate(lowered(graph), {"t": t_value}, RunSettings()).outputs["y"], t_value - 2**25
    )


@pytest.mark.parametrize("arch", ["tiny", "plain", "default"])
@settings(max_examples=examples(40), deadline=None)
@given(st.integers(0, 2**32), OP_LISTS, st.integers(1, 3), st.integers(1, 9))
def test_blocks_give_the_same_bits(arch: str, seed: int, ops: list[str], batch: int, steps: int) -> None:
    machine = {"tiny": tiny(), "plain": load_arch("tpu-like-128"), "default": ARCH}[arch]
    program, arrays = lowered(build(seed, ops), arch=machine), inputs(seed, batch, steps)
    whole = BACKEND.simulate(program, arrays, RunSettings()).outputs
    for block in (1, 3):
        parts = BACKEND.simulate(program, arrays, RunSettings(block=block)).outputs
        for name, value in whole.items():
            np.testing.assert_array_equal(parts[name], value)


# What a graph may hold so that a rounded word moves the result by no more than its own size, a few times over.
SMOOTH = ("matmul", "state", "ssm", "fir", "gate", "concat", "rearrange", "softmax", "delay", "reverse", "downsample")


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, 2**32), st.lists(st.sampled_from(SMOOTH), min_size=1, max_size=7), st.integers(1, 9))
def test_smooth_models_lose_what_float32_loses(seed: int, ops: list[str], steps: int) -> None:
    graph, arrays = build(seed, ops), inputs(seed, 2, steps)
    program = lowered(graph)
    found = BACKEND.simulate(program, arrays, RunSettings(taps=True))
    for name, reference in interpret(graph, arrays).items():
        assert np.abs(found.outputs[name] - reference).max(initial=0) <= 1e-5 * max(
            1.0, np.abs(reference).max(initial=0)
        )


@pytest.mark.parametrize("name", sorted(functions.UNARY))
def test_functions_of_float32_are_right_to_its_rounding(name: str) -> None:
    """Against float64 at the same points, within five roundings of the result, or of 1 where it is smaller."""
    x = np.concatenate([np.linspace(-12, 12, 8001), [-3e38, 3e38, -1e-30, 0.0, -88.0, 88.0]]).astype(np.float32)
    out = np.full_like(x, np.nan)
    with np.errstate(all="ignore"):
        expected = functions.UNARY[name](x.astype(np.float64)).astype(np.float32)
        into(name)(x, out)
        near = np.abs(out.astype(np.float64) - expected) <= 3e-7 * np.maximum(1.0, np.abs(expected))
    assert (near | (out == expected) | (np.isnan(out) & np.isnan(expected))).all()


def test_values_of_layers_are_told_in_either_format() -> None:
    graph, x = model(), np.random.default_rng(1).standard_normal((2, 8, 5))
    taps = BACKEND.simulate(lowered(graph), {"x": x}, RunSettings(taps=True, block=3)).taps
    values = interpret(graph, {"x": x}, keep=True)
    assert taps and all(relative(value, values[f"%{layer}"]) < 1e-5 for layer, value in taps.items())
