"""One number of an architecture is moved, the others stay: results do not change, nor do more means make slower."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, load_arch
from ssmc.diagnostics import UserError
from ssmc.target import RunResult, RunSettings
from tests.backends.epochcore.test_costs import with_changes
from tests.backends.epochcore.test_directions import Shape, graph, program

NATIVE = with_changes(load_arch("epochcore-small"), array__complex="native", array__handover_steps=4)
GRAPH = graph(Shape(20, 4, layers=1, biased=False))
STEPS = 40
ABSURD = 10**9
UNBOUNDED = (
    *("array__rows", "array__cols", "array__states_per_element", "array__handover_steps"),
    *("memory__banks", "memory__bank_ports", "memory__stream_words", "vector__pipes", "array__port_words_in"),
)
MORE = {
    **dict.fromkeys(("array__port_words_in", "array__port_words_out"), 2),
    **dict.fromkeys(("array__states_per_element", "array__column_words"), 2),
    **dict.fromkeys(("memory__banks", "memory__bank_ports", "memory__stream_words", "memory__scratchpad_words"), 2),
    **dict.fromkeys(("vector__width", "vector__pipes", "dram__bytes_per_second", "memory__parameter_words"), 2),
    **dict.fromkeys(("array__mac_depth", "dram__latency_cycles", "vector__latency_cycles"), 0.5),
    "vector__function_passes": 0.5,
}


def ran(arch: Arch) -> RunResult:
    x = {"x": np.random.default_rng(0).standard_normal((1, STEPS, 20))}
    return BACKEND.simulate(program(GRAPH, arch, steps=STEPS), x, RunSettings())


@cache
def usual() -> RunResult:
    return ran(banked(NATIVE))


def banked(arch: Arch) -> Arch:
    """With banks that feed twice as wide ports."""
    return with_changes(arch, memory__bank_ports=2, array__states_per_element=2)


def value(arch: Arch, name: str) -> float:
    part, key = name.split("__")
    return float(getattr(getattr(arch, part), key))


def given(arch: Arch, name: str, number: float) -> Arch:
    return with_changes(arch, **{name: number if name == "dram__bytes_per_second" else int(number)})


@pytest.mark.parametrize("name", MORE)
def test_more_is_no_slower_and_changes_no_result(name: str) -> None:
    base = banked(NATIVE)
    now = ran(given(base, name, MORE[name] * value(base, name)))
    assert (now.stats.cycles or 0) <= 1.01 * (usual().stats.cycles or 0)
    np.testing.assert_allclose(now.outputs["y"], usual().outputs["y"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", UNBOUNDED)
def test_absurd_numbers_end_in_a_program_or_a_message(name: str) -> None:
    """In memory and time as usual: nothing is made as large as they say."""
    try:
        now = ran(given(banked(NATIVE), name, ABSURD))
    except (UserError, ValueError) as error:
        assert name.split("__")[1] in str(error) or "words" in str(error)
        return
    np.testing.assert_allclose(now.outputs["y"], usual().outputs["y"], rtol=1e-9, atol=1e-12)
