"""Arrays around the same states share a core where that pays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ssmc.ir import Graph, Piece, StreamType, Tensor, Value
from ssmc.passes.machine import Coupling, Machine, StateBank
from ssmc.passes.neighbours import on_one_core

COUPLED = Coupling(True, True, 64, conversion=5.0, drive=1.0, hop=0.1)
MACHINE = Machine(
    "t", 4, 4, 40, 1, (StateBank("volatile", decay_only=True),), arrays_per_core=4, mesh_width=3, coupling=COUPLED
)


def chain(layers: int) -> tuple[Graph, dict[str, list[int]]]:
    """u -> (gate, drive, states, read) ... of 4 x 4 arrays, each its own; arrays are numbered as they come."""
    graph, units, count = Graph("chain", {}), {}, 0
    x = graph.add("input", [], {"name": "u", "type": StreamType((4,)), "role": "data"}, name="u")

    def product(x: Value, name: str) -> Value:
        nonlocal count
        units[name], count = [count], count + 1
        attrs = {"weight": Tensor(np.ones((4, 4))), "pieces": (Piece(0, 4, 0, 4),)}
        return graph.add("tile.matmul", [x], attrs, name=name)

    for k in range(layers):
        v = product(product(x, f"gate{k}"), f"drive{k}")
        states = {"decay": Tensor(np.full(4, 0.9)), "pieces": (Piece(0, 4, 0, 1),)}
        x = product(graph.add("tile.state", [v], states, name=f"x{k}"), f"read{k}")
    graph.add("output", [x], {"name": "y", "role": "data"}, name="y")
    return graph, units


def cores(units: dict[str, list[int]], at: dict[int, int]) -> dict[str, int]:
    return {name: at[found[0]] // 4 for name, found in units.items()}


def test_no_drive_and_read_out_are_parted() -> None:
    """Arrays 3 and 4 are the second layer's gate and drive, 4 and 5 its drive and read-out, and so on."""
    graph, units = chain(4)
    plain = cores(units, {unit: unit for unit in range(12)})
    assert any(plain[f"drive{k}"] != plain[f"read{k}"] for k in range(4))
    at = on_one_core(graph, MACHINE, units)
    found = cores(units, at)
    assert all(found[f"drive{k}"] == found[f"read{k}"] for k in range(4))
    assert len(set(at.values())) == 12 and max(at.values()) < 40


@pytest.mark.parametrize(
    "machine",
    [
        replace(MACHINE, coupling=None),
        replace(MACHINE, coupling=replace(COUPLED, conversion=0.0, drive=0.0)),
        replace(MACHINE, coupling=replace(COUPLED, hop=50.0)),  # words on their way cost more than conversions
        replace(MACHINE, arrays=12),
    ],
)
def test_arrays_stay_where_that_does_not_pay_or_fit(machine: Machine) -> None:
    graph, units = chain(4)
    at = on_one_core(graph, machine, units)
    if machine.coupling is not None and machine.arrays == 12:
        assert max(at.values()) < 12
    else:
        assert at == {unit: unit for unit in range(12)}


def test_a_layer_larger_than_a_core_keeps_its_drive_together() -> None:
    """Four arrays of the drive, two of the read-out: the drive's columns may still charge."""
    graph = Graph("wide", {})
    u = graph.add("input", [], {"name": "u", "type": StreamType((4,)), "role": "data"}, name="u")
    first = {"weight": Tensor(np.ones((4, 4))), "pieces": (Piece(0, 4, 0, 4),)}
    a = graph.add("tile.matmul", [u], first, name="a")
    wide = {"weight": Tensor(np.ones((4, 16))), "pieces": tuple(Piece(0, 4, n, n + 4) for n in range(0, 16, 4))}
    v = graph.add("tile.matmul", [a], wide, name="v")
    states = {"decay": Tensor(np.full(16, 0.9)), "pieces": (Piece(0, 16, 0, 1),)}
    x = graph.add("tile.state", [v], states, name="x")
    back = {"weight": Tensor(np.ones((16, 4))), "pieces": tuple(Piece(k, k + 4, 0, 4) for k in range(0, 16, 4))}
    graph.add("output", [graph.add("tile.matmul", [x], back, name="y")], {"name": "y", "role": "data"}, name="out")
    units = {"a": [0], "v": [1, 2, 3, 4], "y": [5, 6, 7, 8]}
    at = on_one_core(graph, MACHINE, units)
    assert len({at[unit] // 4 for unit in units["v"]}) == 1
