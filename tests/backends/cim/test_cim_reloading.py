"""Arrays and state nodes written again between sweeps: exact on perfect devices, and costed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import samples
from backends.cim.backend import BACKEND
from ssmc.diagnostics import UserError
from ssmc.driver import compile_model, load_model
from ssmc.ir import interpret
from ssmc.passes import Context, PassManager
from ssmc.passes.loads import sweeps_forward
from ssmc.target import RunSettings
from tests.passes.graphs import asynchronous, bidirectional, build, downsample, glu, layer_norm, linear, s4d, s5

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


LAYERS = [linear, s5, layer_norm, s4d, downsample, glu, asynchronous, linear]
FORWARD = [seed for seed in range(12) if sweeps_forward(build(seed, LAYERS))]


@pytest.mark.parametrize("seed", FORWARD[:5])
def test_sweep_after_sweep_gives_what_one_gives(seed: int) -> None:
    """Against the interpreter of the model itself; states, splits of matrices and layers of other rates included."""
    arch = tiny()
    graph = build(seed, LAYERS)
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
    for block in (None, 1, 5):
        result = BACKEND.simulate(program, inputs, RunSettings(block=block))
        for name, array in want.items():
            np.testing.assert_allclose(result.outputs[name], array, rtol=1e-9, atol=1e-9)
    notes = result.stats.notes
    assert 2 <= notes["sweeps_per_sequence"] <= max(loads.values()) + 1
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


def test_a_model_read_backwards_is_not_swept_load_by_load() -> None:
    arch = tiny()
    graph = build(2, [bidirectional, linear, glu, glu, glu])
    with pytest.raises(UserError, match="does not fit"):
        PassManager(BACKEND.pipeline(arch, ideal=True)).run(
            graph, Context(BACKEND.machine(arch, ideal=True), ideal=True)
        )


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
