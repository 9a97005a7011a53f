"""Several channels in a column, each with rows, and words, of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch
from backends.epochcore.clock.occupancy import occupancy, of_pass
from isa import Program, instruction
from isa.epochcore import EPOCHCORE
from isa.frozen import FrozenMap
from ssmc.diagnostics import UserError
from ssmc.ir import interpret
from ssmc.target import RunSettings
from tests.backends.epochcore.graphs import build, inputs
from tests.backends.epochcore.test_costs import with_changes
from tests.backends.epochcore.test_directions import SMALL, WIDE, Shape, graph, program
from tests.backends.epochcore.test_interleaving import graph as one_layer
from tests.backends.epochcore.test_interleaving import program as of_one_layer
from tests.backends.epochcore.test_random_graphs import OP_LISTS, close
from tests.examples import examples

PACKED, ALONE = "channels in a column's rows", "one channel in a column's rows"


def fed(arch: Arch, words: int, ports: int) -> Arch:
    """With so many words a column, and so many through the ports."""
    ends = {"array__port_words_in": ports, "array__port_words_out": ports}
    return with_changes(arch, array__column_words=words, memory__banks=512, **ends)


def groups(p: Program) -> list[int]:
    """Of the passes over states."""
    code = p.sections[0].code
    return [int(i["groups"]) for i in code if i.mnemonic == "preload" and not str(i["mode"]).startswith("mac")]


def test_cycles_fall_with_the_words_of_a_column() -> None:
    """Twice the ports bring nothing to columns that take a word a cycle; then both halve the passes."""
    g, x, cycles = graph(Shape(256, 4, layers=1)), {"x": np.zeros((1, 4096, 256))}, {}
    for words, ports in ((1, 128), (1, 256), (2, 128), (2, 256)):
        p = program(g, fed(WIDE, words, ports), steps=4096, directions="apart")
        cycles[words, ports] = BACKEND.simulate(p, x, RunSettings()).stats.cycles or 0
        assert set(groups(p)) == {2 if (words, ports) == (2, 256) else 1}
    assert cycles[1, 256] > 0.98 * cycles[1, 128] and cycles[2, 128] == cycles[1, 128]
    # of two passes a direction one is left; the matrix behind them takes as long as before, but DRAM is waited for more
    assert 0.6 < (cycles[1, 256] - cycles[2, 256]) / (2 * 4096) < 1.05
    told = {made["schedule"]: made for made in p.meta["schedules"]}
    assert told[f"up to 2 {PACKED}"]["chosen"] and told[ALONE]["cycles"] >= cycles[1, 256]  # in fewest chunks
    # what wires take is less than what is saved elsewhere costs in time
    saved, wired = (told[name]["joules"] for name in (ALONE, f"up to 2 {PACKED}"))
    assert wired < 1.05 * saved and wired * cycles[2, 256] < 0.9 * saved * cycles[1, 256]


def test_further_words_of_a_column_cost_energy() -> None:
    """A channel below another one: its word goes down to its four rows, its sum from there to the last one."""
    g, x = graph(Shape(256, 4, layers=1)), {"x": np.zeros((1, 512, 256))}
    found = {}
    for words in (1, 2):
        p = program(g, fed(WIDE, words, 256), steps=512, directions="apart")
        found[words] = BACKEND.simulate(p, x, RunSettings()).stats
        parts: Any = found[words].notes["breakdown_joules"]
        assert found[words].energy_joules == pytest.approx(sum(parts.values()), rel=1e-12)
        below = 128 * (words - 1) * 2  # channels below others, of both directions
        assert parts.get("column_words", 0) == pytest.approx(
            512 * below * (128 + 4) / 2 * WIDE.energy.column_word_joules
        )


@pytest.mark.parametrize("changes", [{"array__mac_depth": 4}, {"array__complex": "ganged"}])
def test_cycles_in_which_a_step_takes_its_time_are_used(changes: dict[str, Any]) -> None:
    """A word a column and cycle feeds several channels where each takes several cycles: with the ports as they are."""
    g, cycles = graph(Shape(128, 4)), {}
    for words in (1, 4):
        p = program(g, with_changes(WIDE, array__column_words=words, **changes), steps=4096)
        cycles[words] = BACKEND.simulate(p, {"x": np.zeros((1, 4096, 128))}, RunSettings()).stats.cycles or 0
    assert cycles[4] < 0.75 * cycles[1]


def test_where_it_does_not_pay_channels_are_alone() -> None:
    """Full columns, few ports, and where it is asked for."""
    for arch, states, asked in (
        (fed(WIDE, 4, 512), 65, {}),
        (fed(WIDE, 4, 128), 4, {}),
        (fed(WIDE, 4, 512), 4, {"groups": 1}),
    ):
        p = program(graph(Shape(256, states, layers=1)), arch, **asked)
        assert set(groups(p)) == {1} and ALONE not in {made["schedule"] for made in p.meta.get("schedules", ())}


@pytest.mark.parametrize("ideal", [True, False])
@pytest.mark.parametrize("channels", [1, 5])
def test_states_driven_by_matrices_lie_below_each_other(channels: int, ideal: bool) -> None:
    """Each is a column of one row: an array of 16 x 16 has all 192 states of them in a pass."""
    g = one_layer(24, 8, channels)
    arch = fed(with_changes(SMALL, array__complex="native"), 16, 512)
    x = {"x": np.random.default_rng(1).standard_normal((2, 40, 24 if channels == 1 else channels))}
    p = of_one_layer(g, arch, ideal=ideal)
    assert groups(p) == [2 if channels == 1 else 12]
    found = BACKEND.simulate(p, x, RunSettings()).outputs["y"]
    expected = interpret(g, x)["y"]
    assert np.abs(found - expected).max() < (1e-6 if ideal else 0.05) * np.abs(expected).max()


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(0, 2**32), OP_LISTS, st.integers(1, 4), st.integers(1, 5), st.integers(1, 9), st.integers(2, 5))
def test_whatever_a_program_holds(seed: int, ops: list[str], together: int, batch: int, steps: int, words: int) -> None:
    """All kinds of layers, with samples beside each other, and with stretches of time."""
    g, x = build(seed, ops), inputs(seed, batch, steps)
    expected = interpret(g, x)
    g.attributes["schedule"] = {"together": together, "steps": 64, "chunk": 4}
    arch = with_changes(fed(SMALL, words, 64), array__rows=6, array__cols=4, array__states_per_element=together)
    p = BACKEND.lower(g, arch, ideal=True)
    found = BACKEND.simulate(p, x, RunSettings(occupancy=True))
    for name, reference in expected.items():
        close(found.outputs[name], reference)
    assert found.occupancy is not None and found.occupancy.max() <= (found.stats.cycles or 0)


def test_states_lie_where_the_array_has_them() -> None:
    """Two groups of two rows of complex states, in gangs of 2 x 2: three columns of four, then two below them."""
    arch = with_changes(SMALL, array__rows=9, array__cols=6, array__column_words=2, array__complex="ganged")
    shape = {"src": 0, "scale": 0, "bias": 0, "rows": 2, "cols": 5, "complex": True, "groups": 2}
    found = of_pass(instruction(EPOCHCORE, "preload", None, mode="fri", **shape), 10, arch)
    assert found.tolist() == [[20] * 6] * 4 + [[20] * 4 + [0, 0]] * 4 + [[0] * 6]


def test_more_of_the_array_is_at_work() -> None:
    g = graph(Shape(256, 4, layers=1))
    alone, packed = (
        occupancy(program(g, arch, steps=512), arch, 1, 512) for arch in (fed(WIDE, 1, 256), fed(WIDE, 2, 256))
    )
    assert (packed[:4] + packed[4:8] == alone[:4] + alone[4:8]).all() and packed.max() < alone.max()


def test_groups_that_the_array_does_not_have() -> None:
    arch = fed(with_changes(SMALL, array__complex="native"), 4, 64)
    p = program(graph(Shape(64, 4, layers=1)), arch, directions="apart")
    assert max(groups(p)) == 4
    section = p.sections[0]
    for more in (5, 17):
        code = tuple(
            replace(i, operands=FrozenMap({**i.operands, "groups": more})) if i.mnemonic == "preload" else i
            for i in section.code
        )
        with pytest.raises(UserError, match=f"in {more} groups"):
            BACKEND.simulate(
                replace(p, sections=(replace(section, code=code),)), {"x": np.zeros((1, 9, 64))}, RunSettings()
            )
