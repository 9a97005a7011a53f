"""Arrays and state nodes written again between sweeps: exact on perfect devices, and costed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import samples
from backends.cim.backend import BACKEND
from backends.cim.lower.contexts import place_in_time, work_context
from ssmc.diagnostics import UserError
from ssmc.driver import compile_model, load_model
from ssmc.ir import interpret
from ssmc.passes import Context, PassManager
from ssmc.target import RunSettings
from tests.passes.graphs import (
    Model,
    asynchronous,
    bidirectional,
    build,
    downsample,
    glu,
    layer_norm,
    linear,
    s4d,
    s4d_real,
    s5,
)

TINY: dict[str, Any] = {
    "crossbar": {"per_core": 2, "rows": 8, "cols": 8, "devices_per_weight": 2, "reloads": True},
    "volatile": {"per_core": 6},
    "digital": {"per_core": 6},
    "mesh": {"cores": 1},
}


def tiny() -> Any:
    arch = BACKEND.load_arch("cim-published")
    parts = {name: getattr(arch, name).model_copy(update=changes) for name, changes in TINY.items()}
    return arch.model_copy(update=parts)


def turned(m: Model) -> None:
    m.x = m.add("reverse", m.x)


def squeezed(m: Model) -> None:
    """Every step is gated by what the whole sequence tells."""
    pooled = m.add("pool", m.x, kind="mean")
    gate = m.add("unary", m.add("linear", pooled, weight=m.weight(m.h, m.h), bias=m.vector(m.h)), fn="sigmoid")
    m.x = m.add("binary", m.x, m.add("spread", gate, m.x), fn="mul")


def wide(m: Model) -> None:
    m.x, m.h = m.add("linear", m.x, weight=m.weight(m.h, 96)), 96


def affine(m: Model) -> None:
    m.x = m.add("linear", m.x, weight=m.weight(m.h, m.h), bias=m.vector(m.h))


def tanh(m: Model) -> None:
    m.x = m.add("unary", m.x, fn="tanh")


FORWARD = [linear, s5, layer_norm, s4d, downsample, glu, asynchronous, linear]
LAYERS = [*FORWARD, bidirectional, s4d_real, turned, squeezed]


@pytest.mark.parametrize(("seed", "layers"), [*((seed, FORWARD) for seed in (0, 1)), *((s, LAYERS) for s in range(8))])
def test_sweep_after_sweep_gives_what_one_gives(seed: int, layers: list[Any]) -> None:
    """Against the interpreter of the model itself; states, splits of matrices, layers of other rates, streams read
    backwards and gates that follow a pooling included."""
    arch = tiny()
    graph = build(seed, layers)
    pipeline = BACKEND.pipeline(arch, ideal=True)
    machine = BACKEND.machine(arch, ideal=True)
    placed = PassManager(pipeline).run(graph, Context(machine, ideal=True))
    loads = placed.attributes["loads"]
    assert max(loads.values()) > 0
    program = BACKEND.lower(placed, arch, ideal=True)
    rng = np.random.default_rng(seed)
    inputs: dict[str, Any] = {}
    for node in graph.inputs():
        kind: Any = node.types[0]
        drawn = rng.exponential(0.5, (3, 24)) if node.op["role"] == "dt" else rng.standard_normal((3, 24, *kind.shape))
        inputs[node.op["name"]] = drawn
    want = interpret(graph, inputs)
    for noise in ("ideal", "pcm"):
        results = [BACKEND.simulate(program, inputs, RunSettings(block=block, noise=noise)) for block in (None, 1, 5)]
        for name, array in want.items():
            for result in results[1:]:
                np.testing.assert_array_equal(result.outputs[name], results[0].outputs[name])
            if noise == "ideal":
                np.testing.assert_allclose(results[0].outputs[name], array, rtol=1e-9, atol=1e-9)
    notes = results[0].stats.notes
    assert notes["sweeps_per_sequence"] >= 2
    if layers is FORWARD:
        assert notes["sweeps_per_sequence"] <= max(loads.values()) + 1
    devices = 2 * sum((p.k1 - p.k0) * (p.n1 - p.n0) for n in placed.nodes("tile.matmul") for p in n.op["pieces"])
    assert notes["reprogramming_joules_per_sequence"] >= devices * arch.energy.program_device * 1e-12
    assert notes["reprogramming_seconds_per_sequence"] > 0
    assert result.stats.energy_joules > 3 * notes["reprogramming_joules_per_sequence"]


def test_no_load_takes_more_than_there_is() -> None:
    arch = tiny()
    graph = build(1, [linear, s5, glu, s4d, linear, glu])
    machine = BACKEND.machine(arch, ideal=True)
    placed = PassManager(BACKEND.pipeline(arch, ideal=True)).run(graph, Context(machine, ideal=True))
    loads, cells = placed.attributes["loads"], set()
    for node in placed.nodes("tile.matmul"):
        for p in node.op["pieces"]:
            assert p.unit < 2
            for row in range(p.row, p.row + p.k1 - p.k0):
                for col in range(p.col // 2, p.col // 2 + p.n1 - p.n0):
                    assert (loads[node.name], p.unit, row, col) not in cells
                    cells.add((loads[node.name], p.unit, row, col))
    states: dict[tuple[int, str], int] = {}
    for node in placed.nodes("tile.state"):
        key = loads[node.name], node.op["bank"]
        states[key] = states.get(key, 0) + node.op["decay"].array.size * (2 if node.op["decay"].is_complex else 1)
    assert max(states.values()) <= 6


def test_a_load_stays_until_its_last_sweep_is_done() -> None:
    """Arrays are written in a stage behind all those in which the load before works, whichever way streams run."""
    arch = tiny()
    for seed in range(4):
        machine = BACKEND.machine(arch, ideal=True)
        placed = PassManager(BACKEND.pipeline(arch, ideal=True)).run(build(seed, LAYERS), Context(machine, ideal=True))
        timing, loads = place_in_time(placed), placed.attributes["loads"]
        stages: dict[int, list[int]] = {load: [] for load in range(max(loads.values()) + 1)}
        for node in placed.nodes():
            if node.name in loads:
                begin = timing.begins[loads[node.name]]
                operands = [value and timing.contexts[value] for value in placed.operands(node.name)]
                stages[loads[node.name]].append(work_context(node, operands, begin).stage)
                assert begin % 2 == 0 and begin <= stages[loads[node.name]][-1]
        for load in range(1, len(stages)):
            assert max(stages[load - 1]) < timing.begins[load]


def test_constants_take_registers_in_their_own_sweep_only() -> None:
    """Twelve layers as wide as the published chip's registers allow one of: all biases at once would not fit."""
    arch = BACKEND.load_arch("cim-published")
    arch = arch.model_copy(update={"vector": arch.vector.model_copy(update={"words": 600})})
    machine, layers = BACKEND.machine(arch, ideal=True), [wide] + [affine, tanh] * 12
    placed = PassManager(BACKEND.pipeline(arch, ideal=True)).run(build(0, layers), Context(machine, ideal=True))
    program = BACKEND.lower(placed, arch, ideal=True)
    biases = sum(node.op["bias"].array.size for node in placed.nodes("tile.matmul") if node.op["bias"] is not None)
    assert biases > arch.vector.words
    u = np.random.default_rng(0).standard_normal((2, 5, *program.inputs[0].shape))
    want = interpret(placed, {"u": u})
    got = BACKEND.simulate(program, {"u": u}, RunSettings()).outputs
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "least", "shown"),
    [("realdecay-vowels", 0.96, 200), ("events-watch", 0.93, 298), ("s4d-digits", 0.95, 200)],
)
def test_every_sample_runs_on_the_published_chip(name: str, least: float, shown: int) -> None:
    sample = samples.load(name)
    model = load_model(sample.model_path)
    program = compile_model(model, "cim", arch="cim-published", calibration=sample.calibration, validate=False)
    for seed in range(3):
        result = program.run({key: array[:shown] for key, array in sample.test.items()}, seed=seed)
        assert sample.accuracy(result.outputs) >= least
    assert ("sweeps_per_sequence" in result.stats.notes) == (name == "s4d-digits")


def test_a_machine_that_does_not_reload_refuses() -> None:
    machine = replace(BACKEND.machine(tiny(), ideal=True), reloads=False)
    graph = build(1, [linear, s5, glu, s4d, linear, glu])
    with pytest.raises(UserError, match="does not fit"):
        PassManager(BACKEND.pipeline(tiny(), ideal=True)).run(graph, Context(machine, ideal=True))
