"""Columns left over of layers that read one stream: fewer passes, the same numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import load_arch
from backends.epochcore.clock.timing import measure
from isa import Program
from ssmc.ir import Graph, Piece, StreamType, Tensor, interpret
from ssmc.target import RunSettings
from tests.backends.epochcore.test_costs import with_changes

LARGE = load_arch("epochcore-128")
NARROW = with_changes(LARGE, vector__width=16)  # copies would take it longer than a pass takes the array


def matrices(inputs: int, outputs: list[int], biased: bool, seed: int = 0) -> Graph:
    rng, graph = np.random.default_rng(seed), Graph()
    x = graph.add("input", attrs={"name": "x", "type": StreamType((inputs,)), "axes": "btf"}, name="x")
    for number, n in enumerate(outputs):
        attrs = {"weight": Tensor(rng.standard_normal((inputs, n))), "pieces": (Piece(0, inputs, 0, n),)}
        if biased and number % 2:
            attrs["bias"] = Tensor(rng.standard_normal(n))
        graph.add("output", [graph.add("tile.matmul", [x], attrs)], {"name": f"y{number}"})
    return graph


def systems(channels: int, states: list[int], reverse: bool, liquid: bool, seed: int = 0) -> Graph:
    # in place on either array: other forms, which the narrow one takes for small systems, round other numbers
    rng, graph = np.random.default_rng(seed), Graph(attributes={"schedule": {"form": "state in place"}})
    x = graph.add("input", attrs={"name": "x", "type": StreamType((channels,)), "axes": "btf"}, name="x")
    for number, n in enumerate(states):
        shape = (channels, n)
        decay = np.exp(-rng.uniform(0.2, 0.5, shape) + 1j * rng.uniform(0, 2, shape))
        c = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
        attrs = {"decay": Tensor(decay), "b": Tensor(0.05 * np.ones(shape, complex)), "c": Tensor(c)}
        attrs |= {"d": Tensor(rng.standard_normal(channels)), "pieces": (Piece(0, channels, 0, n),)}
        y = graph.add("tile.ssm", [x], {**attrs, "reverse": reverse, "read_before": reverse, "liquid": liquid})
        graph.add("output", [y], {"name": f"y{number}"})
    return graph


def passes(program: Program) -> int:
    return sum(ins.mnemonic == "preload" for ins in program.sections[0].code)


def check(graph: Graph, width: int) -> tuple[Program, Program]:
    """Both programs, with passes shared and not, after they gave what the interpreter gives, and each other."""
    x = {"x": np.random.default_rng(1).standard_normal((2, 19, width))}
    expected = interpret(graph, x)
    for ideal in (True, False):
        programs = [BACKEND.lower(graph, arch, ideal=ideal) for arch in (LARGE, NARROW)]
        one, other = (BACKEND.simulate(program, x, RunSettings()).outputs for program in programs)
        for name, value in expected.items():
            size = np.abs(value).max()
            np.testing.assert_allclose(one[name], other[name], rtol=0, atol=1e-12 * size)
            np.testing.assert_allclose(one[name], value, rtol=0, atol=(1e-9 if ideal else 0.02) * size)
    return programs[0], programs[1]


def test_matrices_share_their_last_columns() -> None:
    shared, alone = check(matrices(150, [170, 180], True), 150)
    assert passes(alone) == 8 and passes(shared) == 6


def test_matrices_side_by_side_take_one_pass() -> None:
    shared, alone = check(matrices(20, [30, 40, 50], False), 20)
    assert passes(alone) == 3 and passes(shared) == 1
    (fast, _), (slow, _) = (measure(p, LARGE, 1, 4000) for p in (shared, alone))
    assert fast.cycles is not None and slow.cycles is not None and fast.cycles < 0.6 * slow.cycles


def test_systems_share_their_last_channels() -> None:
    shared, alone = check(systems(160, [3, 3, 3, 3], False, True), 160)
    assert passes(alone) == 8 and passes(shared) == 5


def test_systems_that_differ_do_not() -> None:
    shared, alone = check(systems(20, [2, 3], True, False), 20)
    assert passes(alone) == passes(shared) == 2


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 140),
    st.lists(st.integers(1, 200), min_size=2, max_size=4),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_shared_or_not_the_numbers_are_the_same(
    width: int, sizes: list[int], flag: bool, states: bool, seed: int
) -> None:
    """Any matrices, and any systems of one stream."""
    if states:
        check(systems(width, [1 + n % 3 for n in sizes], flag, False, seed), width)
    else:
        check(matrices(width, sizes, flag, seed), width)
