"""Banks by cost and error: what `--explain` tells, and what `map-weights{banks=cheapest}` does with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ssmc.passes import Context, PassManager, StateBank, StateCost
from ssmc.passes.bank_choice import spread_error
from ssmc.passes.banks import Demand
from ssmc.statespace import StateSpace, kernel

from .graphs import MACHINES, build, s4d_real, s5

PLACED = "discretize,diagonalize,tile,map-weights"


def wanted(poles: np.ndarray) -> Demand:
    return Demand(poles.size, bool(np.iscomplexobj(poles)), poles, False, False)


@pytest.mark.parametrize("size", [0.3, 0.9, 0.999])
def test_the_error_of_a_spread_is_what_the_response_does(size: float) -> None:
    """Against kernels whose time constant is drawn, to first order."""
    one = np.ones((1, 1, 1))
    length, spread = 20000, 1e-3
    rng = np.random.default_rng(0)
    straight = kernel(StateSpace(np.array([[size]]), one, one, 0 * one), length)
    errors = []
    for drawn in rng.standard_normal(200):
        moved = size ** (1 / (1 + spread * drawn))
        gap = kernel(StateSpace(np.array([[moved]]), one, one, 0 * one), length) - straight
        errors.append(np.square(gap).sum() / np.square(straight).sum())
    bank = StateBank("volatile", decay_only=True, spread=spread)
    assert spread_error(bank, wanted(np.array([size]))) == pytest.approx(np.sqrt(np.mean(errors)), rel=0.15)


def test_rotations_are_paid_for_and_the_cheapest_bank_is_taken() -> None:
    machine = replace(
        MACHINES["crossbar"],
        decay_levels=None,
        banks=(
            StateBank("volatile", decay_only=True, spread=0.02, cost=StateCost(1.0, turn=9.0)),
            StateBank("digital", computed_decay=True, cost=StateCost(4.0, timed=4.0)),
        ),
    )
    chosen = {}
    for layer, text in ((s4d_real, "real"), (s5, "complex")):
        for option in ("preferred", "cheapest"):
            context = Context(machine)
            graph = build(3, [layer])
            placed = PassManager(f"{PLACED}{{banks={option}}}").run(graph, context)
            (state,) = placed.nodes("tile.state")
            chosen[text, option] = state.op["bank"]
            assert [choice.bank for choice in context.banks if choice.chosen] == [state.op["bank"]]
            volatile, digital = context.banks
            words = state.op["decay"].array.size * (2 if state.op["decay"].is_complex else 1)
            assert volatile.joules is not None and digital.joules is not None
            if text == "complex":
                assert (volatile.joules, digital.joules) == (10.0 * words, 8.0 * words)
            assert volatile.error > 0 == digital.error
    assert chosen["complex", "preferred"] == "volatile" and chosen["complex", "cheapest"] == "digital"
    exact = Context(machine)
    placed = PassManager(f"{PLACED}{{bank_error=1e-6}}").run(build(3, [s5]), exact)
    assert next(placed.nodes("tile.state")).op["bank"] == "digital"


def test_negative_poles_take_two_nodes_where_they_turn() -> None:
    volatile, digital = StateBank("volatile", decay_only=True), StateBank("digital")
    poles = np.array([0.5, -0.5, 0.9])
    assert wanted(poles).size(volatile) == 6 and wanted(poles).size(digital) == 3
    assert wanted(np.abs(poles)).size(volatile) == 3
    assert wanted(poles + 0j).size(volatile) == wanted(poles + 0j).size(digital) == 6
