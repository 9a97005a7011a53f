"""Models whose states take more than the scratchpad has: their layers are in several loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, load_arch
from backends.epochcore.lower import crowding
from backends.epochcore.lower.crowding import APART, FEW
from backends.epochcore.lower.request import Request
from isa import Program
from ssmc.diagnostics import Misfit
from ssmc.ir import Graph, Piece, SequenceType, StreamType, Tensor, Value, interpret
from ssmc.target import RunSettings
from tests.backends.epochcore.test_costs import with_changes

LARGE = load_arch("epochcore-128")
WIDTH, STATES, LAYERS = 4, 96, 6
CROWDED = with_changes(LARGE, memory__scratchpad_words=7 * STATES)


def heads(layers: int, *, backward: bool = False, given: bool = False) -> Graph:
    """Residual layers, each with many more states than words that go on; every other one backward, if asked. Where
    states are `given` they are inputs, in another shape, and what they become are outputs, as in a one-step model."""
    rng, graph = np.random.default_rng(0), Graph()
    x = graph.add("input", [], {"name": "x", "type": StreamType((WIDTH,))}, name="x")

    def dense(u: Value, inputs: int, outputs: int) -> Value:
        weight = Tensor(rng.standard_normal((inputs, outputs)) / inputs)
        return graph.add("tile.matmul", [u], {"weight": weight, "pieces": (Piece(0, inputs, 0, outputs),)})

    for layer in range(layers):
        decay = graph.add("unary", [dense(x, WIDTH, STATES)], {"fn": "sigmoid"})
        way = {"reverse": backward and layer % 2 == 1}
        drive, name = dense(x, WIDTH, STATES), f"h{layer}"
        first = []
        if given:
            kind = {"name": name, "type": SequenceType((2, STATES // 2)), "role": "state"}
            first = [graph.add("reshape", [graph.add("input", [], kind, name=name)], {"shape": (STATES,)})]
        states = graph.add("tile.recurrence", [decay, drive, *first], way)
        if given:
            graph.add("output", [Value(states.node, 1)], {"name": f"{name}_out"})
        x = graph.add("binary", [x, dense(states, STATES, WIDTH)], {"fn": "add"})
        if layer == 2 and not given:
            graph.add("output", [Value(states.node, 1)], {"name": "last"})
    graph.add("output", [x], {"name": "y"})
    return graph


@pytest.mark.parametrize("backward", [False, True])
def test_states_share_the_scratchpad(backward: bool) -> None:
    graph = heads(LAYERS, backward=backward)
    program = BACKEND.lower(graph, CROWDED, ideal=True)
    loops = [ins for ins in program.sections[0].code if ins.mnemonic == "chunks"]
    assert len(loops) == LAYERS
    x = {"x": np.random.default_rng(1).standard_normal((2, 7, WIDTH))}
    found, expected = BACKEND.simulate(program, x, RunSettings()).outputs, interpret(graph, x)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-9 * np.abs(array).max())


def started(graph: Graph) -> dict[str, Any]:
    """A stream and the states that every sequence begins with."""
    rng = np.random.default_rng(1)
    shapes = {node.op["name"]: node.types[0] for node in graph.inputs()}
    return {n: rng.standard_normal((2, *(7,) * isinstance(t, StreamType), *t.shape)) for n, t in shapes.items()}


def agrees(graph: Graph, arch: Arch) -> Program:
    """The program of a graph, which computes what the graph means."""
    program, x = BACKEND.lower(graph, arch, ideal=True), started(graph)
    found, expected = BACKEND.simulate(program, x, RunSettings()).outputs, interpret(graph, x)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-9 * np.abs(array).max())
    return program


@pytest.mark.parametrize("backward", [False, True])
def test_given_states_are_there_for_their_loop_alone(backward: bool) -> None:
    program = agrees(heads(LAYERS, backward=backward, given=True), CROWDED)
    code = program.sections[0].code
    begins = [i for i, ins in enumerate(code) if ins.mnemonic == "chunks"]
    loads = [i for i, ins in enumerate(code) if ins.mnemonic == "load" and ins["steps"] == "one"]
    assert len(begins) == len(loads) == LAYERS
    assert all(load < begin for load, begin in zip(loads, begins, strict=True))
    assert all(begin < load for load, begin in zip(loads[1:], begins, strict=False))


def test_given_states_are_stepped_where_they_were_loaded_if_they_crowd_the_scratchpad() -> None:
    code = agrees(heads(LAYERS, given=True), CROWDED).sections[0].code
    loaded = {ins["dst"] for ins in code if ins.mnemonic == "load" and ins["steps"] == "one"}
    in_array = {ins["src"] for ins in code if ins.mnemonic == "state.load"}
    assert in_array | {ins["state"] for ins in code if ins.mnemonic == "scan"} == loaded
    assert "copy" not in {ins.mnemonic for ins in code}


def test_given_states_that_fit_are_loaded_beside_those_that_are_stepped() -> None:
    """So that they come from DRAM while the sequence before them still runs."""
    code = agrees(heads(3, given=True), LARGE).sections[0].code
    loaded = {ins["dst"] for ins in code if ins.mnemonic == "load" and ins["steps"] == "one"}
    assert not loaded & {ins["src"] for ins in code if ins.mnemonic == "state.load"}


@pytest.mark.parametrize("later", [False, True])
def test_given_states_that_others_read_stay_as_they_were(later: bool) -> None:
    graph = heads(LAYERS, given=True)
    (shaped,) = graph.users(Value("h1"))
    seen = graph.add("unary", [Value(shaped[0] if later else "h1")], {"fn": "tanh"})
    graph.add("output", [seen], {"name": "seen"})
    assert "copy" in {ins.mnemonic for ins in agrees(graph, CROWDED).sections[0].code}


def test_states_that_fit_stay_in_one_loop() -> None:
    program = BACKEND.lower(heads(LAYERS), LARGE, ideal=True)
    assert [ins.mnemonic for ins in program.sections[0].code].count("chunks") == 1


def test_states_of_one_layer_that_do_not_fit_are_a_misfit() -> None:
    with pytest.raises(Misfit, match="scratchpad"):
        BACKEND.lower(heads(3), with_changes(LARGE, memory__scratchpad_words=STATES), ideal=True)


@pytest.mark.parametrize("layers", [4, 8])
def test_what_crowds_and_fits_is_where_it_is_fastest(layers: int) -> None:
    crowded = with_changes(LARGE, memory__scratchpad_words=2 * layers * STATES - 1)
    meta: Any = BACKEND.lower(heads(layers), crowded, ideal=True).meta
    states = [one for one in meta["schedules"] if one["schedule"].startswith("states")]
    assert len(states) == 2
    chosen = [one["cycles"] for one in states if one["chosen"]]
    assert chosen[0] <= 1.01 * min(one["cycles"] for one in states)


@pytest.mark.parametrize(("room", "faster"), [(3, 1.2), (4, 1.1), (8, 1.0)])
def test_states_that_leave_room_for_short_chunks_are_apart_where_that_is_faster(room: int, faster: float) -> None:
    """Beside states that take a third of the scratchpad, or less; where they take an eighth nothing is tried."""
    arch = with_changes(LARGE, memory__scratchpad_words=room * LAYERS * STATES)
    meta: Any = BACKEND.lower(heads(LAYERS), arch, ideal=True).meta
    cycles = {one["schedule"]: one["cycles"] for one in meta.get("schedules", ()) if one["choice"] == "states"}
    assert bool(cycles) == (faster > 1)
    if cycles:
        assert cycles[FEW] > faster * cycles[APART]


@pytest.mark.parametrize("states", [6, 7])
def test_what_did_not_fit_is_not_lowered_again(states: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused cut is no candidate beside the one that fits: it would take as long, and as much memory, once more."""
    asked: list[Request] = []
    within = crowding._within

    def counted(make: Any, request: Request) -> Any:
        asked.append(request)
        return within(make, request)

    monkeypatch.setattr(crowding, "_within", counted)
    BACKEND.lower(heads(LAYERS), with_changes(LARGE, memory__scratchpad_words=states * STATES), ideal=True)
    assert len(asked) > 1
    assert len(asked) == len(set(asked))
