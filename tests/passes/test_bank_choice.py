"""Banks by cost and error: what `--explain` tells, and what `choose-banks` does with it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ssmc.diagnostics import UserError
from ssmc.ir import Graph
from ssmc.passes import Alternative, Context, PassManager, StateBank, StateCost
from ssmc.passes.bank_choice import Rule, choose, feedback_error, spread_error
from ssmc.passes.banks import Demand
from ssmc.statespace import StateSpace, kernel

from .graphs import MACHINES, Model, build, s4d_real, s5, system

EXACT, PLACED = "discretize,diagonalize", "tile,map-weights"


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


def test_errors_of_states_that_do_not_feed_each_other_are_those_of_their_poles() -> None:
    """A matrix that happens to be diagonal errs as its largest pole does, by closed form: q / (1 - q), q = a^2."""
    poles = np.array([0.9, 0.5])
    bank = StateBank("feedback", dense=True, product_error=0.01)
    alone = feedback_error(bank, wanted(poles))
    assert alone == pytest.approx(1.5 * 0.01 * np.sqrt(0.81 / 0.19))
    assert feedback_error(bank, replace(wanted(poles), matrix=np.diag(poles))) == pytest.approx(alone)


DEAR_TURNS = replace(
    MACHINES["crossbar"],
    decay_levels=None,
    banks=(
        StateBank("volatile", decay_only=True, spread=0.02, cost=StateCost(1.0, turn=9.0)),
        StateBank("digital", computed_decay=True, cost=StateCost(4.0, timed=4.0)),
    ),
)


def chosen(pipeline: str, graph: Graph, context: Context) -> list[str]:
    """The banks of the states, placed."""
    return [node.op["bank"] for node in PassManager(pipeline).run(graph, context).nodes("tile.state")]


def test_rotations_are_paid_for() -> None:
    for layer, text in ((s4d_real, "real"), (s5, "complex")):
        graph, context = build(3, [layer]), Context(DEAR_TURNS)
        (state,) = PassManager(f"{EXACT},choose-banks,{PLACED}").run(graph, context).nodes("tile.state")
        volatile, digital = context.alternatives
        words = state.op["decay"].array.size * (2 if state.op["decay"].is_complex else 1)
        turning = state.op["decay"].is_complex or bool((state.op["decay"].array < 0).any())
        if text == "complex":
            assert (volatile.joules, digital.joules) == (10.0 * words, 8.0 * words)
        assert state.op["bank"] == ("digital" if turning else "volatile")
        assert [one.bank for one in context.alternatives if one.chosen] == [state.op["bank"]]
        assert [one.bank for one in context.banks if one.chosen] == [state.op["bank"]]
        assert volatile.error > 0 == digital.error
        assert all(one.why for one in context.alternatives)


@pytest.mark.parametrize("name", ["volatile", "digital", "order"])
def test_a_bank_that_is_named_is_taken(name: str) -> None:
    want = "volatile" if name == "order" else name
    for layer in (s4d_real, s5):
        for pipeline in (
            f"{EXACT},choose-banks{{banks={name}}},{PLACED}",
            f"choose-banks{{banks={name}}},{EXACT},choose-banks,{PLACED}",
        ):
            assert chosen(pipeline, build(3, [layer]), Context(DEAR_TURNS)) == [want]
    with pytest.raises(UserError, match="has no bank 'other'"):
        chosen(f"choose-banks{{banks=other}},{EXACT},{PLACED}", build(3, [s5]), Context(DEAR_TURNS))


def test_without_a_choice_the_first_bank_is_taken() -> None:
    assert chosen(f"{EXACT},{PLACED}", build(3, [s5]), Context(DEAR_TURNS)) == ["volatile"]


def test_room_goes_to_those_that_can_go_nowhere_else() -> None:
    """Of two layers that would rather be digital the second gets the room that a third, which must be, leaves."""
    m = Model(1)
    m.x = m.ssm(system(m.rng, 1, 3, m.h, m.h))
    m.x = m.ssm(system(m.rng, 1, 2, m.h, m.h))
    lasting = replace(system(m.rng, 1, 2, m.h, m.h), A=np.exp(1j * np.array([[0.3, 0.5]])))
    m.x = m.ssm(lasting)
    m.output(m.x, "y")
    volatile, digital = DEAR_TURNS.banks
    for room, want in (
        (None, ["digital"] * 3),
        (9, ["volatile", "digital", "digital"]),
        (4, ["volatile", "volatile", "digital"]),
    ):
        machine = replace(DEAR_TURNS, banks=(volatile, replace(digital, count=room)))
        context = Context(machine)
        assert chosen(f"{EXACT},choose-banks,{PLACED}", m.graph, context) == want
        told = [one.why for one in context.alternatives if one.bank == "digital"]
        assert told.count("it is full") == want.count("volatile")


def shared(levels: int, data: np.ndarray) -> tuple[Graph, Context]:
    """A real layer of 16 time constants on a machine of few, where the volatile bank is the cheap one."""
    m = Model(0)
    poles = np.exp(-1 / np.geomspace(1.5, 300, 16))[None]
    wide = replace(system(m.rng, 1, 16, m.h, m.h, complex_=False), A=poles)
    m.x = m.ssm(wide)
    m.output(m.x, "y")
    volatile, digital = DEAR_TURNS.banks
    machine = replace(DEAR_TURNS, decay_levels=levels, banks=(volatile, digital))
    return m.graph, Context(machine, calibration={"u": data[..., : m.h]})


def test_what_sharing_decays_costs_counts() -> None:
    """One decay for two decades is too few: the layer goes where it keeps its own. With eight it stays."""
    data = np.random.default_rng(0).standard_normal((4, 200, 5))
    rest = "share-decays,tile,map-weights"
    graph, few = shared(1, data)
    (before,) = (node.op["system"] for node in graph.nodes("ssm"))
    made = PassManager("choose-banks,share-decays").run(graph, few)
    (node,) = made.nodes("ssm")
    assert node.op["bank"] == "digital" and node.op["system"] is before
    assert not few.decays
    volatile, digital = few.alternatives
    assert volatile.shared_error is not None and volatile.shared_error > 0.1 and "errs by more" in volatile.why
    assert volatile.joules is not None and digital.joules is not None and volatile.joules < digital.joules
    graph, enough = shared(8, data)
    assert chosen(f"choose-banks,{rest}", graph, enough) == ["volatile"]
    (loss,) = enough.decays
    volatile, _ = enough.alternatives
    assert volatile.shared_error == loss.measured and loss.after == 8
    graph, forced = shared(1, data)
    assert chosen(f"choose-banks{{banks=volatile}},{rest}", graph, forced) == ["volatile"]
    assert forced.decays[0].after == 1


def test_decays_that_nothing_will_share_rule_a_bank_out() -> None:
    graph, context = shared(1, np.random.default_rng(0).standard_normal((2, 50, 5)))
    assert chosen("choose-banks,tile,map-weights", graph, context) == ["digital"]
    assert "it has 1 decays, and the layer 16" in context.alternatives[0].why


def test_keeping_states_counts_where_it_costs() -> None:
    cheap = replace(DEAR_TURNS.banks[1], cost=StateCost(0.5, timed=0.5))
    for keep, want in ((0.0, "digital"), (4.0, "volatile")):
        leaking = replace(cheap, cost=replace(cheap.cost, keep=keep))
        machine = replace(DEAR_TURNS, banks=(DEAR_TURNS.banks[0], leaking))
        graph = shared(16, np.zeros((1, 2, 5)))[0]
        context = Context(machine)
        assert chosen("choose-banks,tile,map-weights", graph, context) == [want]
        assert context.alternatives[1].kept_joules == keep * 16


FOUND = Alternative("x", "a", 1.0, 0.1), Alternative("x", "b", 2.0, 0.1), Alternative("x", "c", 3.0, 0.1)


@pytest.mark.parametrize(
    ("changes", "full", "want"),
    [
        (({}, {}, {}), "", "a"),
        (({"error": 0.16}, {}, {}), "", "b"),  # more than 1.5 times the least
        (({"error": 0.149}, {}, {}), "", "a"),
        (({"error": 0.02}, {"error": 0.0}, {"error": 0.0}), "", "a"),  # little enough by itself
        (({"error": 0.021}, {"error": 0.0}, {"error": 0.0}), "", "b"),
        (({"joules": 1.95}, {"error": 0.09}, {}), "", "b"),  # as little, and errs less
        (({"joules": 1.95}, {}, {}), "", "a"),  # the machine's order
        (({"objection": "no"}, {}, {}), "", "b"),
        (({}, {}, {}), "a", "b"),
        (({"joules": None}, {"error": 0.09}, {}), "", "b"),  # not told: the error decides
        (({"error": math.inf}, {"error": math.inf}, {"error": math.inf}), "", "a"),
        (({"objection": "no"}, {"objection": "no"}, {}), "c", None),
    ],
)
def test_the_rule(changes: tuple[dict[str, object], ...], full: str, want: str | None) -> None:
    found = choose([replace(one, **change) for one, change in zip(FOUND, changes, strict=True)], {full}, Rule())
    assert [one.bank for one in found if one.chosen] == ([] if want is None else [want])
    assert all(one.why for one in found)


def test_negative_poles_take_two_nodes_where_they_turn() -> None:
    volatile, digital = StateBank("volatile", decay_only=True), StateBank("digital")
    poles = np.array([0.5, -0.5, 0.9])
    assert wanted(poles).size(volatile) == 6 and wanted(poles).size(digital) == 3
    assert wanted(np.abs(poles)).size(volatile) == 3
    assert wanted(poles + 0j).size(volatile) == wanted(poles + 0j).size(digital) == 6
