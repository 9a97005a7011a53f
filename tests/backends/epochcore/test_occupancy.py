"""Which elements computed for how long: against what every pass must have computed, and against the clock."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import load_arch
from backends.epochcore.clock.occupancy import occupancy, of_pass
from backends.epochcore.program.dispatch import dispatch
from backends.epochcore.program.passes import PASSES
from isa import instruction
from isa.epochcore import EPOCHCORE
from ssmc.target import RunSettings
from tests.backends.epochcore.small_programs import archs, programs
from tests.backends.epochcore.test_costs import with_changes
from tests.backends.epochcore.test_end_to_end import model
from tests.examples import examples

SMALL = load_arch("epochcore-small")


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_every_weight_and_state_is_counted_once_a_step(data: st.DataObject) -> None:
    arch = data.draw(archs())
    program = data.draw(programs(arch))
    batch, steps = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 9))
    x = np.zeros((batch, steps, program.inputs[0].shape[0]))
    result = BACKEND.simulate(program, {"x": x}, RunSettings(occupancy=True))
    expected = 0
    for op in dispatch(program, batch, steps, shadow=arch.array.shadow):
        if op.ins.mnemonic in PASSES and op.held is not None:
            gang = arch.gang if op.held["complex"] else 1
            # a gang of g x g elements takes g cycles for a state
            tiles = int(op.held["tiles"])
            expected += op.samples * op.steps * tiles * int(op.held["rows"]) * int(op.held["cols"]) * gang**3
    assert result.occupancy is not None and result.stats.cycles is not None
    assert result.occupancy.sum() == expected
    assert result.occupancy.max() <= result.stats.cycles


def test_states_lie_where_the_array_has_them() -> None:
    """Five rows of complex states, two an element, in gangs of 2 x 2, three columns, on 6 x 8 elements."""
    arch = with_changes(SMALL, array__rows=6, array__cols=8, array__states_per_element=2)
    shape = {"src": 0, "scale": 0, "bias": 0, "rows": 5, "cols": 3, "complex": True}
    found = of_pass(instruction(EPOCHCORE, "preload", None, mode="fri", **shape), 10, arch)
    wide = [1] * 6 + [0] * 2
    assert found.tolist() == [[n * u for u in wide] for n in (40, 40, 40, 40, 20, 20)]


def test_results_in_place_go_round_the_rows() -> None:
    arch = with_changes(SMALL, array__rows=4, array__cols=3)
    shape = {"src": 0, "scale": 0, "bias": 0, "rows": 7, "cols": 2}
    found = of_pass(instruction(EPOCHCORE, "preload", None, mode="mac.os", **shape), 6, arch)
    assert found.tolist() == [[14, 14, 0], [14, 14, 0], [7, 7, 0], [7, 7, 0]]


def test_only_where_asked_for() -> None:
    program = BACKEND.lower(model(), SMALL, ideal=True)
    x = {port.name: np.zeros((2, 9, *port.shape)) for port in program.inputs}
    assert BACKEND.simulate(program, x, RunSettings()).occupancy is None
    one = occupancy(program, SMALL, 1, 9)
    assert one.shape == (16, 16) and one.any()
    assert (occupancy(program, SMALL, 3, 9) == 3 * one).all()


def test_a_picture_of_it() -> None:
    pytest.importorskip("matplotlib")
    from ssmc.heatmap import picture

    program = BACKEND.lower(model(), SMALL, ideal=True)
    x = {port.name: np.zeros((2, 9, *port.shape)) for port in program.inputs}
    drawn = picture(BACKEND.simulate(program, x, RunSettings(occupancy=True)))
    assert drawn.startswith(b"\x89PNG\r\n\x1a\n")
