"""map-weights and schedule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.diagnostics import Misfit, UserError
from ssmc.ir import Graph, Piece, SequenceType, StreamType, Value
from ssmc.passes import Context, Machine, PassManager, StateBank
from ssmc.statespace import StateSpace
from tests.examples import examples

from .graphs import DIGITAL, VOLATILE, Model, asynchronous, build, glu, linear, s4d, s5, stateful, system


def pieces(graph: Graph) -> list[Piece]:
    return [piece for node in graph.nodes("tile.matmul") for piece in node.op["pieces"]]


def compile_(graph: Graph, machine: Machine, context: Context | None = None) -> Graph:
    context = context or Context(machine)
    return PassManager("tile,map-weights,schedule", validate=False).run(graph, context)


@given(st.integers(0, 2**16), st.integers(2, 12), st.integers(2, 12), st.integers(1, 2))
@settings(max_examples=examples(60), deadline=None)
def test_pieces_share_arrays_without_sharing_cells(seed: int, rows: int, cols: int, cells: int) -> None:
    machine = Machine("crossbar", rows, cols, 10_000, cells, (VOLATILE, DIGITAL))
    placed = pieces(compile_(build(seed, [linear, s4d, glu, s5, linear]), machine))
    taken: dict[int, set[tuple[int, int]]] = {}
    for p in placed:
        assert p.unit >= 0
        high, wide = p.k1 - p.k0, (p.n1 - p.n0) * cells
        assert p.row + high <= rows and p.col + wide <= cols
        span = {(r, c) for r in range(p.row, p.row + high) for c in range(p.col, p.col + wide)}
        held = taken.setdefault(p.unit, set())
        assert not held & span, "two pieces share a cell"
        held |= span
    units = {p.unit for p in placed}
    assert units == set(range(len(units)))


def test_reloaded_arrays_number_the_pieces_in_order() -> None:
    machine = Machine("systolic", 4, 4, None, 1, (DIGITAL,))
    placed = pieces(compile_(build(1, [linear, glu, linear]), machine))
    assert [p.unit for p in placed] == list(range(len(placed)))
    assert all((p.row, p.col) == (0, 0) for p in placed)


def test_too_few_arrays_is_a_misfit_with_numbers_and_levers() -> None:
    machine = Machine("crossbar", 4, 4, 1, 1, (DIGITAL,))
    with pytest.raises(Misfit) as caught:
        compile_(build(1, [glu, glu, glu]), machine)
    assert caught.value.demand > caught.value.bound == 1
    assert "more arrays" in caught.value.hint and "linear" in caught.value.hint
    enough = replace(machine, arrays=int(caught.value.demand))
    assert pieces(compile_(build(1, [glu, glu, glu]), enough))


def one(a: list[complex], **kinds: object) -> tuple[Graph, StateSpace]:
    m = Model(0)
    states = np.array([a])
    value = StateSpace(
        states,
        np.ones((1, len(a), m.h)),
        np.ones((1, 1, len(a))),
        np.zeros((1, 1, m.h)),
        **kinds,  # type: ignore[arg-type]
    )
    m.x = m.ssm(value, m.dt() if value.asynchronous else None)
    m.output(m.x, "y")
    return m.graph, value


def bank_of(graph: Graph) -> str:
    (node,) = graph.nodes("tile.state", "tile.recurrence")
    bank: str = node.op["bank"]
    return bank


BOTH = Machine("crossbar", 16, 16, None, 1, (VOLATILE, DIGITAL))


@pytest.mark.parametrize(
    ("a", "bank"),
    [
        ([0.5, 0.9], "volatile"),
        ([0.5, -0.9], "volatile"),  # turns by half a circle every step
        ([0.5 + 0.2j], "volatile"),
        ([0.5, 0.0], "digital"),
        ([0.5, 1.0], "digital"),
        ([0.8 + 0.7j], "digital"),
    ],
)
def test_states_go_to_the_first_bank_that_can_hold_them(a: list[complex], bank: str) -> None:
    context = Context(BOTH)
    assert bank_of(compile_(one(a)[0], BOTH, context)) == bank
    assert bool(context.notes) == (bank == "digital")


def test_an_unstable_system_on_volatile_banks_names_layer_origin_and_poles() -> None:
    with pytest.raises(UserError) as caught:
        compile_(one([0.5, 1.25, -1.5])[0], replace(BOTH, banks=(VOLATILE,)))
    text = str(caught.value)
    assert "layer 'ssm.x'" in text and "ssm_1" in text
    assert "1.25" in text and "-1.5" in text and "2 of 3 states" in text
    assert "|Abar| < 1" in caught.value.hint


def test_a_small_library_of_decays_is_respected() -> None:
    few = replace(BOTH, decay_levels=2, banks=(VOLATILE,))
    graph, _ = one([0.5, 0.6, 0.7, -0.7])
    with pytest.raises(UserError, match="it has 2 decays, and the layer 3"):
        compile_(graph, few)
    shared = PassManager("share-decays,tile,map-weights").run(graph, Context(few))
    assert bank_of(shared) == "volatile"


def test_elapsed_time_needs_a_bank_that_decays() -> None:
    graph, _ = one([-0.5, -0.25], delta=1.0, asynchronous=True)
    assert bank_of(compile_(graph, BOTH)) == "volatile"
    graph, _ = one([-0.5, 0.25], delta=1.0, asynchronous=True)
    assert bank_of(compile_(graph, BOTH)) == "digital"


def test_state_nodes_are_counted_over_the_layers() -> None:
    graph = build(4, [s4d, s4d, s4d])
    need = sum(2 * node.op["system"].groups * node.op["system"].states for node in graph.nodes("ssm"))
    exact = replace(BOTH, banks=(replace(VOLATILE, count=need),))
    rows = [(p.unit, p.row) for node in compile_(graph, exact).nodes("tile.state") for p in node.op["pieces"]]
    assert rows[0] == (0, 0) and len(set(rows)) == 3
    with pytest.raises(Misfit, match="state nodes of bank 'volatile'") as caught:
        compile_(graph, replace(BOTH, banks=(replace(VOLATILE, count=need - 1),)))
    assert caught.value.demand == need and caught.value.bound == need - 1
    native = StateBank("native", count=need // 2, native_complex=True)
    assert compile_(graph, replace(BOTH, banks=(native,))) is not None


def test_a_full_bank_hands_over_to_the_next() -> None:
    graph = build(4, [s4d, s4d, s4d])
    first = next(graph.nodes("ssm")).op["system"]
    machine = replace(BOTH, banks=(replace(VOLATILE, count=2 * first.groups * first.states), DIGITAL))
    banks = [node.op["bank"] for node in compile_(graph, machine).nodes("tile.state")]
    assert banks == ["volatile", "digital", "digital"]


def test_phases_follow_the_data() -> None:
    graph = compile_(build(3, [stateful, asynchronous, linear]), BOTH)
    for node in graph.nodes():
        assert node.place is not None and node.place.unit == 0
        streams = any(isinstance(kind, StreamType) for kind in node.types)
        assert (node.place.phase == "steps") == streams
    order = [node.place.order for node in graph.nodes() if node.place is not None]
    assert sorted(order) == list(range(len(graph)))
    places = {node.name: node.place for node in graph.nodes()}
    starts = [name for name, place in places.items() if place and place.phase == "before"]
    assert any(graph.op(name).name == "input" for name in starts)
    assert places["out_logits"] is not None and places["out_logits"].phase == "after"


def test_a_second_pass_over_time_is_refused() -> None:
    for last in (False, True):
        m = Model(0)
        m.x = m.ssm(system(m.rng, m.h, 2, 1, 1, complex_=False))
        whole = Value(m.x.node, 1) if last else m.add("pool", m.x, kind="mean")
        width = m.graph.type(whole).shape[0]  # type: ignore[union-attr,index]
        assert isinstance(m.graph.type(whole), SequenceType)
        m.x = m.add("linear", m.x, weight=m.weight(m.h, width))
        m.output(m.add("binary", m.x, whole, fn="mul"), "y")
        with pytest.raises(UserError, match="known only after the last step"):
            compile_(m.graph, BOTH)
        twice = compile_(m.graph, replace(BOTH, sweeps=True))
        places = [place for node in twice.nodes() if (place := node.place) is not None]
        assert [place.phase for place in sorted(places, key=lambda place: place.order)][-1] == "steps"


@pytest.mark.parametrize(("calibrated", "by_file"), [(0, True), (64, False), (32, False)])
def test_a_usual_length_is_the_calibration_data_s(calibrated: int, by_file: bool) -> None:
    """Also where it is the one that the model's file has."""
    graph = Graph()
    x = graph.add("input", attrs={"name": "x", "type": StreamType((3,))})
    graph.add("output", [x], {"name": "y"})
    data = {"x": np.zeros((2, calibrated, 3))} if calibrated else None
    context = Context(calibration=data, steps=64)
    asked = PassManager("schedule", validate=False).run(graph, context).attributes["schedule"]
    assert asked == {"steps": calibrated or 64, "objective": "cycles"} | ({"by_file": True} if by_file else {})
