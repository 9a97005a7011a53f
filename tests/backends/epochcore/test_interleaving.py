"""States that share an element hide the pipeline of its multiplier: those of a channel, and those of several."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, load_arch
from backends.epochcore.clock.occupancy import occupancy
from isa import Program
from ssmc.ir import Graph, StreamType, interpret
from ssmc.passes import Context, PassManager
from ssmc.passes.validation import relative_error
from ssmc.statespace import StateSpace
from ssmc.target import RunSettings
from tests.backends.epochcore.test_costs import with_changes

SMALL = load_arch("epochcore-small")
NATIVE = with_changes(SMALL, array__complex="native")
STEPS = 200


def graph(channels: int, states: int, inputs: int) -> Graph:
    """A system of one input a channel, or one of many inputs, whose states are driven and read by matrices."""
    rng, g = np.random.default_rng(0), Graph()
    x = g.add("input", [], {"name": "x", "type": StreamType((channels if inputs == 1 else inputs,))}, name="x")
    groups = channels if inputs == 1 else 1
    shape = (groups, states if inputs == 1 else channels * states)
    a = rng.uniform(0.6, 0.9, shape) * np.exp(1j * rng.uniform(-1, 1, shape))
    b = rng.standard_normal((*shape, inputs)) + 0j
    c = rng.standard_normal((groups, 1 if inputs == 1 else 3, shape[1])) / np.sqrt(shape[1]) + 0j
    d = rng.standard_normal((groups, c.shape[1], inputs))
    y = g.add("ssm", [x], {"system": StateSpace(a, b, c, d)}, name="layer")
    g.add("output", [y], {"name": "y"})
    return g


def program(g: Graph, arch: Arch, *, ideal: bool) -> Program:
    context = Context(machine=BACKEND.machine(arch, ideal=ideal), ideal=ideal)
    pipeline = BACKEND.pipeline(arch, ideal=ideal) + '{form="state in place"}'
    return BACKEND.lower(PassManager(pipeline).run(g, context), arch, ideal=ideal)


def preloads(p: Program) -> list[tuple[int, int]]:
    modes = ("fri", "fri.x")
    code = p.sections[0].code
    return [(int(i["rows"]), int(i["cols"])) for i in code if i.mnemonic == "preload" and i["mode"] in modes]


@pytest.mark.parametrize("ideal", [True, False])
@pytest.mark.parametrize("arch", [SMALL, NATIVE], ids=["ganged", "native"])
@pytest.mark.parametrize("inputs", [1, 5])
def test_channels_share_columns_where_the_pipeline_is_deep(inputs: int, arch: Arch, ideal: bool) -> None:
    g = graph(48, 8, inputs)
    deep = with_changes(
        arch, array__mac_depth=8, array__port_words_in=128, array__port_words_out=128, memory__banks=128
    )
    x = {"x": np.random.default_rng(1).standard_normal((2, STEPS, 48 if inputs == 1 else inputs))}
    expected, cycles = interpret(g, x)["y"], {}
    for states in (1, 6):
        own = with_changes(deep, array__states_per_element=states)
        p = program(g, own, ideal=ideal)
        run = BACKEND.simulate(p, x, RunSettings())
        assert relative_error(expected, run.outputs["y"]) < (1e-6 if ideal else 0.05)
        cycles[states] = run.stats.cycles or 0
        assert (max(cols for _, cols in preloads(p)) > own.array.cols) == (states > 1)
        busy = occupancy(p, own, 1, STEPS)
        assert busy.min() >= 0 and busy.max() <= cycles[states]
    assert cycles[6] < 0.9 * cycles[1]


@pytest.mark.parametrize("states", [1, 2, 5])
def test_nothing_shares_an_element_where_nothing_is_gained(states: int) -> None:
    """One product a cycle is all that an element does; nor do ports bring more words for it."""
    for change in ({"array__mac_depth": 1}, {"array__mac_depth": 4, "array__port_words_in": 4}):
        arch = with_changes(NATIVE, array__states_per_element=states, **change)
        assert {cols for _, cols in preloads(program(graph(48, 16, 1), arch, ideal=True))} == {16}


def test_how_states_are_shared_out() -> None:
    def shares(states: int, channels: int, **changes: Any) -> tuple[int, int]:
        ports = {"array__port_words_in": 64, "array__port_words_out": 64, "memory__banks": 64}
        return with_changes(NATIVE, **ports, **changes).shares(states, channels, 1, False)[:2]

    assert shares(16, 64, array__mac_depth=4) == (16, 16)
    assert shares(16, 64, array__mac_depth=4, array__states_per_element=4) == (16, 64)
    assert shares(64, 16, array__mac_depth=4, array__states_per_element=4) == (64, 16)
    assert shares(16, 64, array__mac_depth=4, array__states_per_element=10**9) == (16, 64)  # and takes no time
    assert shares(32, 32, array__mac_depth=4, array__states_per_element=4) == (32, 32)
    # a channel that has no other one beside it
    assert shares(16, 16, array__mac_depth=4, array__states_per_element=4) == (16, 16)
