"""Models at the level of systems, through the target's own pipelines, against the interpreter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from backends.cim import BACKEND
from ssmc.ir import interpret
from ssmc.passes import Context, PassManager
from ssmc.passes.probe import probe
from ssmc.passes.validation import relative_error
from ssmc.target import RunSettings, backends
from tests.passes.graphs import LAYERS, Model, build, linear

from .chips import changed

SMALL = changed(crossbar={"rows": 12, "cols": 16, "per_core": 3}, volatile={"per_core": 6})


def test_the_target_is_installed() -> None:
    assert backends()["cim"] is BACKEND
    assert BACKEND.instruction_set.name == BACKEND.name == "cim"


@pytest.mark.parametrize("layer", LAYERS)
def test_each_kind_of_layer_is_exact(layer: Callable[[Model], None]) -> None:
    for seed in (1, 2):
        graph = build(seed, [linear, layer, linear])
        context = Context(BACKEND.machine(SMALL, ideal=True), seed=seed, ideal=True)
        tiled = PassManager(BACKEND.pipeline(SMALL, ideal=True)).run(graph, context)
        program = BACKEND.lower(tiled, SMALL, ideal=True)
        inputs = probe(graph, 77)
        assert inputs is not None
        want, exact = interpret(graph, inputs), interpret(tiled, inputs)
        got = BACKEND.simulate(program, inputs, RunSettings()).outputs
        assert set(got) == set(want)
        assert max(relative_error(exact[name], got[name]) for name in got) < 1e-11
        assert max(relative_error(want[name], got[name]) for name in got) < 1e-8


@pytest.mark.parametrize("layer", LAYERS)
def test_each_kind_of_layer_runs_on_real_devices(layer: Callable[[Model], None]) -> None:
    """Rounding and noise on: finite, repeatable, and nearer to the exact output than to nothing."""
    arch = changed(devices={"product_bits": 7.0, "decay_sigma": 0.01})
    graph = build(3, [linear, layer, linear])
    context = Context(BACKEND.machine(arch, ideal=False), seed=3)
    tiled = PassManager(BACKEND.pipeline(arch, ideal=False)).run(graph, context)
    program = BACKEND.lower(tiled, arch, ideal=False)
    inputs = probe(graph, 7)
    assert inputs is not None
    want = interpret(tiled, inputs)
    a, b = (BACKEND.simulate(program, inputs, RunSettings(seed=1, block=block)).outputs for block in (None, 3))
    for name, value in a.items():
        assert np.isfinite(value).all() and np.array_equal(value, b[name])
        assert np.linalg.norm(value - want[name]) < 0.9 * np.linalg.norm(want[name])


def test_weights_on_the_grid_meet_the_levels() -> None:
    """Quantised weights are programmed without a second rounding."""
    arch = changed(crossbar={"levels": 16}, devices={"product_bits": 0.0, "decay_sigma": 0.0, "converters": False})
    assert BACKEND.machine(arch, ideal=False).weight_bits == 5
    graph = build(5, [linear])
    tiled = PassManager("quantize{weights=5},tile,map-weights,schedule").run(
        graph, Context(BACKEND.machine(arch, ideal=False))
    )
    program = BACKEND.lower(tiled, arch, ideal=False)
    inputs = probe(graph, 7)
    assert inputs is not None
    want, got = interpret(tiled, inputs), BACKEND.simulate(program, inputs, RunSettings()).outputs
    assert max(relative_error(want[name], got[name]) for name in want) < 1e-12
