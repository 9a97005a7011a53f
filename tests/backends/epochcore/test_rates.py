"""Streams that came to one rate in different ways and meet: at lengths that give them as many steps, in any chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import load_arch
from ssmc.diagnostics import UserError
from ssmc.ir import Graph, StreamType, Value, interpret
from ssmc.target import RunSettings
from tests.backends.epochcore.test_costs import with_changes
from tests.examples import examples

SMALL = load_arch("epochcore-small")
# How to take every sixth step, or make one of six: downsamplings one after the other.
WAYS = st.one_of(
    st.integers(0, 5).map(lambda offset: [("take", 6, offset)]),
    st.tuples(st.integers(0, 1), st.integers(0, 2)).map(lambda at: [("take", 2, at[0]), ("take", 3, at[1])]),
    st.tuples(st.integers(0, 2), st.integers(0, 1)).map(lambda at: [("take", 3, at[0]), ("take", 2, at[1])]),
    st.tuples(st.sampled_from(["mean", "sum", "max"]), st.integers(0, 1)).map(
        lambda way: [(way[0], 3, 0), ("take", 2, way[1])]
    ),
    st.sampled_from(["mean", "sum", "max"]).map(lambda kind: [("take", 3, 0), (kind, 2, 0)]),
)


def meeting(ways: list[list[tuple[str, int, int]]]) -> Graph:
    """The sum of one stream's ways, and every second step of that sum."""
    g, ends = Graph(), list[Value]()
    x = g.add("input", [], {"name": "x", "type": StreamType((3,))})
    for way in ways:
        at = g.add("unary", [x], {"fn": "tanh"})
        for kind, stride, offset in way:
            at = g.add("downsample", [at], {"kind": kind, "stride": stride, "offset": offset})
        ends.append(at)
    y = ends[0]
    for end in ends[1:]:
        y = g.add("binary", [y, end], {"fn": "add"})
    g.add("output", [y], {"name": "y"})
    g.add("output", [g.add("downsample", [y], {"kind": "take", "stride": 2, "offset": 0})], {"name": "z"})
    return g


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(WAYS, min_size=2, max_size=3), st.integers(1, 9), st.sampled_from([160, 300, 16384]), st.integers(1, 20)
)
def test_streams_of_one_rate_meet(ways: list[list[tuple[str, int, int]]], windows: int, words: int, block: int) -> None:
    g = meeting(ways)
    data = {"x": np.random.default_rng(windows).standard_normal((2, 6 * windows, 3))}
    program = BACKEND.lower(g, with_changes(SMALL, memory__scratchpad_words=words), ideal=True)
    expected = interpret(g, data)
    for settings_ in (RunSettings(), RunSettings(block=block)):
        result = BACKEND.simulate(program, data, settings_)
        for name, array in expected.items():
            np.testing.assert_allclose(result.outputs[name], array, rtol=1e-12, atol=1e-12)


def test_a_length_that_gives_more_of_one_is_refused() -> None:
    program = BACKEND.lower(meeting([[("take", 2, 0)], [("take", 2, 1)]]), SMALL, ideal=True)
    with pytest.raises(UserError, match="makes 8 steps of 15 from step 0 on, and n1 counts 7"):
        BACKEND.simulate(program, {"x": np.zeros((1, 15, 3))}, RunSettings())


def test_streams_of_different_windows_are_refused() -> None:
    with pytest.raises(UserError, match="whose steps lie in different windows"):
        BACKEND.lower(meeting([[("take", 2, 3)], [("take", 2, 4)]]), SMALL, ideal=True)
