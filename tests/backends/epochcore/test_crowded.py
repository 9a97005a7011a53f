"""Models whose states take more than the scratchpad has: their layers are in several loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.epochcore import BACKEND
from backends.epochcore.arch import load_arch
from ssmc.diagnostics import Misfit
from ssmc.ir import Graph, Piece, StreamType, Tensor, Value, interpret
from ssmc.target import RunSettings
from tests.backends.epochcore.test_costs import with_changes

LARGE = load_arch("epochcore-128")
WIDTH, STATES = 4, 96


def heads(layers: int, *, backward: bool = False) -> Graph:
    """Residual layers, each with many more states than words that go on; every other one backward, if asked."""
    rng, graph = np.random.default_rng(0), Graph()
    x = graph.add("input", [], {"name": "x", "type": StreamType((WIDTH,))}, name="x")

    def dense(u: Value, inputs: int, outputs: int) -> Value:
        weight = Tensor(rng.standard_normal((inputs, outputs)) / inputs)
        return graph.add("tile.matmul", [u], {"weight": weight, "pieces": (Piece(0, inputs, 0, outputs),)})

    for layer in range(layers):
        decay = graph.add("unary", [dense(x, WIDTH, STATES)], {"fn": "sigmoid"})
        way = {"reverse": backward and layer % 2 == 1}
        states = graph.add("tile.recurrence", [decay, dense(x, WIDTH, STATES)], way)
        x = graph.add("binary", [x, dense(states, STATES, WIDTH)], {"fn": "add"})
        if layer == 2:
            graph.add("output", [Value(states.node, 1)], {"name": "last"})
    graph.add("output", [x], {"name": "y"})
    return graph


@pytest.mark.parametrize("backward", [False, True])
def test_states_share_the_scratchpad(backward: bool) -> None:
    graph = heads(12, backward=backward)
    few = with_changes(LARGE, memory__scratchpad_words=8 * STATES)
    program = BACKEND.lower(graph, few, ideal=True)
    loops = [ins for ins in program.sections[0].code if ins.mnemonic == "chunks"]
    assert len(loops) == 12
    x = {"x": np.random.default_rng(1).standard_normal((2, 7, WIDTH))}
    found, expected = BACKEND.simulate(program, x, RunSettings()).outputs, interpret(graph, x)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-9 * np.abs(array).max())


def test_states_that_fit_stay_in_one_loop() -> None:
    program = BACKEND.lower(heads(12), LARGE, ideal=True)
    assert [ins.mnemonic for ins in program.sections[0].code].count("chunks") == 1


def test_states_of_one_layer_that_do_not_fit_are_a_misfit() -> None:
    with pytest.raises(Misfit, match="scratchpad"):
        BACKEND.lower(heads(3), with_changes(LARGE, memory__scratchpad_words=STATES), ideal=True)


@pytest.mark.parametrize("layers", [4, 12])
def test_what_crowds_and_fits_is_where_it_is_fastest(layers: int) -> None:
    crowded = with_changes(LARGE, memory__scratchpad_words=2 * layers * STATES - 1)
    meta: Any = BACKEND.lower(heads(layers), crowded, ideal=True).meta
    states = [one for one in meta["schedules"] if one["schedule"].startswith("states")]
    assert len(states) == 2
    chosen = [one["cycles"] for one in states if one["chosen"]]
    assert chosen[0] <= 1.01 * min(one["cycles"] for one in states)
