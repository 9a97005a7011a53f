"""Layers with more states than a bank holds at once: in parts that fit, which give what the whole gave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ssmc.ir import Graph, interpret
from ssmc.passes import Context, Machine, PassManager
from ssmc.passes.banks import demand
from ssmc.passes.probe import probe
from ssmc.passes.split_states import split_states
from ssmc.passes.validation import relative_error

from .graphs import DIGITAL, VOLATILE, Model, asynchronous, build, s4d, s4d_real, s5


def tiled(layer: Callable[[Model], None]) -> Graph:
    machine = Machine("crossbar", 8, 8, None, 1, (VOLATILE, DIGITAL))
    return PassManager("tile", validate=False).run(build(3, [layer], head="none"), Context(machine))


@pytest.mark.parametrize(
    ("layer", "room"), [(s4d, 4), (s4d, 7), (s4d_real, 4), (s4d_real, 5), (s5, 2), (s5, 5), (asynchronous, 2)]
)
def test_parts_fit_and_give_what_the_whole_gave(layer: Callable[[Model], None], room: int) -> None:
    graph = tiled(layer)
    (whole,) = graph.nodes("tile.state")
    bank = replace(VOLATILE if whole.op["asynchronous"] else DIGITAL, count=room)
    cut = graph.copy()
    split_states(cut, Machine("crossbar", 8, 8, None, 1, (bank,)))
    parts = list(cut.nodes("tile.state"))
    sizes = [demand(part).size(bank) for part in parts]
    assert len(parts) > 1 and max(sizes) <= room and sum(sizes) == demand(whole).size(bank)
    assert all(part.op["pieces"][0].k1 == len(part.op["decay"].array) for part in parts)
    inputs = probe(graph, 0)
    got, want = interpret(cut, inputs), interpret(graph, inputs)
    assert got.keys() == want.keys() and all(relative_error(got[name], want[name]) < 1e-12 for name in want)


def test_what_fits_is_left_whole() -> None:
    graph = tiled(s4d_real)
    (whole,) = graph.nodes("tile.state")
    held = demand(whole).states
    for count in (held, None):
        split_states(graph, Machine("crossbar", 8, 8, None, 1, (replace(DIGITAL, count=count),)))
        assert [node.name for node in graph.nodes("tile.state")] == [whole.name]
    split_states(graph, Machine("crossbar", 8, 8, None, 1, (replace(DIGITAL, count=held - 1),)))
    assert len(list(graph.nodes("tile.state"))) == 2
