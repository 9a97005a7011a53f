"""Samples that are run together: each with its own states and its own words, beside or in turn with the others'."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import samples
from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, load_arch
from backends.epochcore.clock.occupancy import occupancy
from backends.epochcore.clock.timing import measure
from backends.epochcore.lower.objective import best
from backends.epochcore.program.rounds import rounds_of
from isa import Program
from isa.frozen import FrozenMap
from ssmc.diagnostics import Misfit, UserError
from ssmc.driver import compile_model
from ssmc.ir import Graph, interpret
from ssmc.target import RunSettings
from tests.backends.epochcore.graphs import build, inputs
from tests.backends.epochcore.test_costs import with_changes
from tests.backends.epochcore.test_directions import Shape, graph, program
from tests.backends.epochcore.test_random_graphs import OP_LISTS, close
from tests.examples import examples

WIDE, SMALL = load_arch("epochcore-128"), load_arch("epochcore-small")
DEEP = with_changes(WIDE, array__mac_depth=4, array__states_per_element=4)


def cycles_of(p: Program, g: Graph, batch: int, steps: int = 300) -> int:
    x = np.zeros((batch, steps, g.inputs()[0].types[0].shape[0]))
    return BACKEND.simulate(p, {"x": x}, RunSettings()).stats.cycles or 0


@pytest.mark.parametrize("channels", [128, 32])
@pytest.mark.parametrize("batch", [1, 3, 4, 9])
def test_rounds_change_no_number(batch: int, channels: int) -> None:
    """Also of a last round that is not full."""
    g = graph(Shape(channels, 4, layers=1))
    x = {"x": np.random.default_rng(0).standard_normal((batch, 300, channels))}
    found = {}
    for together in (1, 4):
        p = program(g, DEEP, together=together, directions="apart")
        assert rounds_of(p).together == together
        found[together] = BACKEND.simulate(p, x, RunSettings())
        busy = occupancy(p, DEEP, batch, 300)
        assert busy.min() >= 0 and busy.max() <= (found[together].stats.cycles or 0)
        assert busy.sum() == batch * occupancy(p, DEEP, 1, 300).sum()
    np.testing.assert_array_equal(found[1].outputs["y"], found[4].outputs["y"])
    assert found[1].stats.macs == found[4].stats.macs


def test_every_number_of_samples_is_looked_at() -> None:
    """Also behind one that serves no better, and the batch itself."""
    p = program(graph(Shape(128, 4, layers=1)), DEEP, batch=3, directions="apart")
    told = {line["schedule"]: line for line in p.meta["schedules"] if line["choice"] == "samples"}
    assert set(told) == {"one sample after the other", *(f"{n} samples together" for n in (2, 3))}
    costs = [(line["cycles"], line["joules"]) for line in told.values()]
    assert [line["chosen"] for line in told.values()].index(True) == best(costs, "cycles")


def test_larger_rounds_are_not_tried_where_smaller_ones_gain_nothing() -> None:
    """The array is full at every step: more samples only make chunks shorter. Compiling them takes most of the time."""
    told = program(graph(Shape(128, 4, layers=1)), WIDE, batch=16, directions="apart").meta["schedules"]
    names = [line["schedule"] for line in told if line["choice"] == "samples"]
    assert names[0] == "one sample after the other" and "16 samples together" not in names


def test_a_batch_hides_the_pipeline_of_deep_elements() -> None:
    """Cycles of a sample as predicted, beside those of elements that give a product every cycle."""
    g, cycles = graph(Shape(128, 4, layers=1)), {}
    for arch in (WIDE, DEEP):
        for batch in (1, 16):
            p = program(g, arch, batch=batch)
            cycles[arch.array.mac_depth, batch] = (measure(p, arch, batch, 1000)[0].cycles or 0) / batch
    assert cycles[4, 1] > 1.5 * cycles[1, 1]
    assert cycles[4, 16] < 1.02 * cycles[1, 16]


def test_full_rounds_cost_what_each_adds() -> None:
    p = program(graph(Shape(128, 4)), DEEP, together=2)
    cycles = {batch: cycles_of(p, graph(Shape(128, 4)), batch) for batch in range(1, 14)}
    assert all(cycles[b] < cycles[b + 1] for b in range(1, 13))
    assert cycles[12] - cycles[10] == cycles[10] - cycles[8]
    assert cycles[13] - cycles[11] == cycles[11] - cycles[9]


@pytest.mark.parametrize(
    ("arch", "channels"),
    [(DEEP, 128), (WIDE, 32)],  # idle cycles, idle columns
)
def test_samples_are_together_where_it_pays_and_told(arch: Arch, channels: int) -> None:
    g = graph(Shape(channels, 4, layers=1, before=(False, True)))
    alone, own = (program(g, arch, **asked) for asked in ({"together": 1}, {"batch": 4}))
    assert rounds_of(own).together > 1
    assert cycles_of(own, g, 4) < 0.75 * cycles_of(alone, g, 4)
    told = [made["schedule"] for made in own.meta["schedules"] if made["chosen"]]
    assert any("samples together" in line for line in told)


def test_nobody_guesses_a_batch() -> None:
    assert rounds_of(program(graph(Shape(32, 4)), DEEP)).together == 1


def test_full_arrays_run_one_sample_after_the_other() -> None:
    p = program(graph(Shape(128, 4)), WIDE, batch=4, directions="apart")
    assert rounds_of(p).together == 1


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(0, 2**32), OP_LISTS, st.integers(2, 4), st.integers(1, 5), st.integers(1, 9))
def test_whatever_a_program_holds(seed: int, ops: list[str], together: int, batch: int, steps: int) -> None:
    """All kinds of layers, in windows of the scratchpad; time and energy of every instruction are there."""
    g, x = build(seed, ops), inputs(seed, batch, steps)
    expected = interpret(g, x)
    g.attributes["schedule"] = {"together": together}
    arch = with_changes(SMALL, array__states_per_element=together)
    p = BACKEND.lower(g, arch, ideal=True)
    assert rounds_of(p).together == together
    found = BACKEND.simulate(p, x, RunSettings())
    for name, reference in expected.items():
        close(found.outputs[name], reference)
    assert (found.stats.cycles or 0) > 0 and found.stats.batch == batch


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(Misfit, match="several samples") as misfit:
        program(graph(Shape(32, 4)), SMALL, together=255)
    assert misfit.value.demand > misfit.value.bound
    with pytest.raises(UserError, match="256 samples"):
        program(graph(Shape(32, 4)), SMALL, together=256)
    p = program(graph(Shape(32, 4, layers=1)), DEEP, together=4, directions="apart")
    for place, value, message in (("window", 1, "a sample's own words are"), ("window", 1 << 21, "the scratchpad has")):
        with pytest.raises(UserError, match=message):
            BACKEND.simulate(changed(p, place, value), {"x": np.zeros((4, 9, 32))}, RunSettings())


def changed(p: Program, place: str, value: int) -> Program:
    section = p.sections[0]
    code = tuple(
        replace(i, operands=FrozenMap({**i.operands, place: value})) if i.mnemonic == "samples" else i
        for i in section.code
    )
    return replace(p, sections=(replace(section, code=code),))


def test_states_with_a_drive_of_their_own_are_counted() -> None:
    """A system with many inputs, whose states are not fused with its products."""
    sample = samples.load("realdecay-vowels")
    x = {name: array[:6] for name, array in sample.test.items()}
    one, several = (
        compile_model(sample.model_path, "epochcore", passes=f"default{more}", validate=False).run(x)
        for more in ("", ",schedule{batch=4}")
    )
    np.testing.assert_array_equal(one.outputs["logits"], several.outputs["logits"])
    assert (several.stats.cycles or 0) <= (one.stats.cycles or 0)
