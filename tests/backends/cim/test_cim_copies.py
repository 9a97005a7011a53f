"""Copies of a layer's arrays that take turns: the same numbers, more events in the same time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.cim import BACKEND
from isa import Program
from ssmc.ir import Graph, StreamType, Tensor, interpret
from ssmc.passes import Context, PassManager
from ssmc.target import RunSettings

from .chips import changed
from .programs import program, run


def heavy(stride: int = 1, first: bool = False) -> Graph:
    """A wide product and a small one; the wide one is most of the work. With `first` another stands before them."""
    rng = np.random.default_rng(0)
    g = Graph()
    u = g.add("input", [], {"name": "u", "type": StreamType((40,))}, name="u")
    if stride > 1:
        u = g.add("downsample", [u], {"stride": stride, "kind": "take", "offset": 1}, name="down")
    if first:
        u = g.add("unary", [g.add("linear", [u], {"weight": Tensor(rng.normal(size=(40, 40)))})], {"fn": "tanh"})
    wide = g.add("linear", [u], {"weight": Tensor(rng.normal(size=(40, 120)))}, name="wide")
    bent = g.add("unary", [wide], {"fn": "tanh"}, name="bent")
    y = g.add("linear", [bent], {"weight": Tensor(rng.normal(size=(120, 3)))}, name="narrow")
    g.add("output", [y], {"name": "y"}, name="out")
    return g


def compiled(
    copies: int, stride: int = 1, first: bool = False, per_core: int | None = None, **mesh: Any
) -> tuple[Program, Any]:
    box = {"rows": 16, "cols": 16, "per_core": per_core or (44 if first else 64)}
    arch = changed(mesh={"copies": copies, "cores": 9, **mesh}, crossbar=box)
    context = Context(BACKEND.machine(arch, ideal=True), ideal=True)
    graph = PassManager(BACKEND.pipeline(arch, ideal=True)).run(heavy(stride, first), context)
    return BACKEND.lower(graph, arch, ideal=True), graph


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("block", [None, 1, 5])
def test_copies_change_no_number(stride: int, block: int | None) -> None:
    once, graph = compiled(1, stride)
    often, _ = compiled(3, stride)
    u = {"u": np.random.default_rng(1).normal(size=(3, 23, 40))}
    a, b = (BACKEND.simulate(code, u, RunSettings(block=block)) for code in (once, often))
    assert np.array_equal(a.outputs["y"], b.outputs["y"])
    assert np.allclose(a.outputs["y"], interpret(graph, u)["y"], rtol=1e-12, atol=1e-12)
    assert "collect" in {code.mnemonic for section in often.sections for code in section.code}
    assert b.stats.notes["event_interval_seconds"] < 0.7 * a.stats.notes["event_interval_seconds"]
    assert b.stats.notes["programming_joules"] > 2 * a.stats.notes["programming_joules"]
    assert b.stats.energy_joules > a.stats.energy_joules


def test_what_is_told_of_copies() -> None:
    code, _ = compiled(3)
    told: Any = code.meta["copies"]
    layers = {layer["layer"]: layer for layer in told["layers"]}
    assert 2 <= layers["wide"]["copies"] <= 3
    assert len(set(layers["wide"]["cores"])) == layers["wide"]["copies"]
    assert told["interval_seconds"] < told["once_seconds"]
    home = next(
        n for n in range(9) if f"core{n}" in {s.name for s in code.sections} and n not in layers["wide"]["cores"]
    )
    arch = BACKEND.load_arch(code.arch)
    assert all(arch.hops(home, core) <= 2 for core in layers["wide"]["cores"])  # the nearest that are free
    assert "copies" not in compiled(1)[0].meta
    assert "copies" not in compiled(3, cores=2)[0].meta  # two copies find no two free cores


@pytest.mark.parametrize("block", [None, 1, 5])
def test_a_layer_that_is_spread_over_cores_is_copied_whole(block: int | None) -> None:
    once, graph = compiled(1, first=True)
    often, _ = compiled(3, first=True)
    wide = {piece.unit // 44 for piece in graph.op("wide")["pieces"]}
    assert len(wide) == 2
    told: Any = often.meta["copies"]
    assert told["layers"][0]["layer"] == "wide" and told["layers"][0]["copies"] >= 2
    assert not wide & set(told["layers"][0]["cores"])
    u = {"u": np.random.default_rng(1).normal(size=(3, 23, 40))}
    a, b = (BACKEND.simulate(code, u, RunSettings(block=block)) for code in (once, often))
    np.testing.assert_allclose(a.outputs["y"], b.outputs["y"], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(b.outputs["y"], interpret(graph, u)["y"], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(b.outputs["y"], BACKEND.simulate(often, u, RunSettings(block=7)).outputs["y"])
    assert b.stats.notes["event_interval_seconds"] < 0.98 * a.stats.notes["event_interval_seconds"]


@pytest.mark.parametrize("per_core", [10, 17, 23])
@pytest.mark.parametrize("block", [None, 1, 5])
def test_a_layer_larger_than_a_core_is_copied_to_several(per_core: int, block: int | None) -> None:
    mesh = {"cores": 49, "per_core": per_core}
    once, graph = compiled(1, **mesh)
    often, _ = compiled(3, **mesh)
    arrays = {piece.unit for piece in graph.op("wide")["pieces"]}
    assert len(arrays) > per_core
    told: Any = often.meta["copies"]
    layers = {layer["layer"]: layer for layer in told["layers"]}
    assert layers["wide"]["copies"] >= 2 and layers["wide"]["arrays"] == layers["wide"]["copies"] * len(arrays)
    assert len(set(layers["wide"]["cores"])) == layers["wide"]["copies"] * -(-len(arrays) // per_core)
    u = {"u": np.random.default_rng(1).normal(size=(3, 23, 40))}
    a, b = (BACKEND.simulate(code, u, RunSettings(block=block)) for code in (once, often))
    np.testing.assert_allclose(b.outputs["y"], interpret(graph, u)["y"], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(b.outputs["y"], BACKEND.simulate(often, u, RunSettings(block=7)).outputs["y"])
    assert b.stats.notes["event_interval_seconds"] < 0.9 * a.stats.notes["event_interval_seconds"]
    assert b.stats.notes["programming_joules"] > 1.5 * a.stats.notes["programming_joules"]


def test_real_devices_of_copies_differ() -> None:
    """Each copy has devices of its own: steps differ by which copy they met, in turn."""
    code, _ = compiled(2)
    u = {"u": np.ones((1, 8, 40))}
    y = BACKEND.simulate(code, u, RunSettings(noise="pcm{read_scale=0}", seed=2)).outputs["y"][0]
    assert np.array_equal(y[0::2], np.broadcast_to(y[0], (4, 3))) and np.array_equal(y[1::2], y[[1, 1, 1, 1]])
    assert not np.array_equal(y[0], y[1])


TURNS = """
.section core0
    loop rT, done
    collect v[0], words=1, channel=5, copies=2
    emit v[0], words=1, channel=1
done:
    halt
.section core1
    loop rT, stride=2, done
    fill v[0], words=1, value=1.0
    send v[0], words=1, channel=5, core=0
done:
    halt
.section core2
    loop rT, stride=2, offset=1, done
    fill v[0], words=1, value=2.0
    send v[0], words=1, channel=6, core=0
done:
    halt
"""


@pytest.mark.parametrize("block", [None, 1, 3])
def test_messages_are_collected_in_turn(block: int | None) -> None:
    code = program(TURNS, inputs="u:stream:1:0", outputs="y:stream:1:1")
    got = run(code, u=np.zeros((2, 7, 1)), block=block).outputs["y"]
    assert np.array_equal(got[:, :, 0], [[1, 2, 1, 2, 1, 2, 1]] * 2)


def test_a_copy_that_sends_nothing_is_named() -> None:
    from ssmc.diagnostics import UserError

    silent = program(TURNS.replace("channel=6", "channel=7"), inputs="u:stream:1:0", outputs="y:stream:1:1")
    with pytest.raises(UserError, match="deadlock") as caught:
        run(silent, u=np.zeros((2, 7, 1)))
    assert "core 0 for channel 6" in str(caught.value)
