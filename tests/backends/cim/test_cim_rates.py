"""Streams that came to one rate in different ways and meet: at lengths that give them as many steps, in any blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.cim import BACKEND
from isa import Program
from ssmc.diagnostics import UserError
from ssmc.ir import Graph, interpret
from ssmc.passes import Context, PassManager
from ssmc.target import RunSettings
from tests.backends.epochcore.test_rates import WAYS, meeting
from tests.examples import examples

PUBLISHED = BACKEND.load_arch("cim-published")


def program(g: Graph) -> Program:
    passes = PassManager(BACKEND.pipeline(PUBLISHED, ideal=True))
    return BACKEND.lower(passes.run(g, Context(BACKEND.machine(PUBLISHED, ideal=True))), PUBLISHED, ideal=True)


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(WAYS, min_size=2, max_size=3), st.integers(1, 9), st.integers(1, 20))
def test_streams_of_one_rate_meet(ways: list[list[tuple[str, int, int]]], windows: int, block: int) -> None:
    g = meeting(ways)
    data = {"x": np.random.default_rng(windows).standard_normal((2, 6 * windows, 3))}
    result = BACKEND.simulate(program(g), data, RunSettings(block=block))
    for name, array in interpret(g, data).items():
        np.testing.assert_allclose(result.outputs[name], array, rtol=1e-12, atol=1e-12)


def test_a_length_that_gives_more_of_one_is_refused() -> None:
    """It ran, and left the last steps of the longer stream out."""
    made = program(meeting([[("take", 2, 0)], [("take", 2, 1)]]))
    with pytest.raises(UserError, match="differ in time where the input has 15 steps") as error:
        BACKEND.simulate(made, {"x": np.zeros((1, 15, 3))}, RunSettings())
    assert "8 from step 0 on, 7 from step 1 on" in str(error.value)
