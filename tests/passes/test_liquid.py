"""Liquid systems: one op on epochcore, in elements or in the vector unit; a recurrence where no bank has the mode."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from backends import cim, epochcore
from ssmc.ir import Graph, StreamType, interpret
from ssmc.passes import Context, PassManager
from ssmc.statespace import StateSpace
from ssmc.target import RunSettings

CHANNELS, STATES = 5, 3


def liquid(reverse: bool, is_complex: bool) -> Graph:
    rng = np.random.default_rng(0)
    angle = 1j * rng.uniform(0, 2, (CHANNELS, STATES)) if is_complex else 0.0
    b = 0.1 * (rng.standard_normal((CHANNELS, STATES, 1)) + (1j if is_complex else 0))
    c = rng.standard_normal((CHANNELS, 1, STATES)) + (0.5j if is_complex else 0)
    system = StateSpace(
        A=np.exp(-rng.uniform(0.1, 0.5, (CHANNELS, STATES)) + angle),
        B=b,
        C=c,
        D=rng.standard_normal((CHANNELS, 1, 1)),
        halved=is_complex,
    )
    graph = Graph()
    u = graph.add("input", attrs={"name": "u", "type": StreamType((CHANNELS,))})
    y = graph.add("liquid_ssm", [u], {"system": system, "reverse": reverse})
    graph.add("output", [y], {"name": "y"})
    return graph


@pytest.mark.parametrize(
    ("target", "arch", "ideal"),
    [
        (epochcore, "epochcore-small", True),
        (epochcore, "epochcore-small", False),
        (epochcore, "tpu-like-128", True),
        (epochcore, "tpu-like-128", False),
        (cim, "cim-large", True),
    ],
)
@pytest.mark.parametrize(("reverse", "is_complex"), [(False, True), (True, True), (False, False)])
def test_it_runs_as_it_is_meant(target: ModuleType, arch: str, reverse: bool, is_complex: bool, ideal: bool) -> None:
    backend = target.BACKEND
    graph, described = liquid(reverse, is_complex), backend.load_arch(arch)
    machine = backend.machine(described, ideal=ideal)
    manager = PassManager(backend.pipeline(described, ideal=ideal))
    tiled = manager.run(graph, Context(machine=machine, ideal=ideal))
    fused = any(node.op.name == "tile.ssm" and node.op["liquid"] for node in tiled.nodes())
    assert fused == any(bank.fused and bank.liquid for bank in machine.banks) == (target is epochcore)
    u = np.random.default_rng(1).standard_normal((2, 40, CHANNELS))
    (want,) = interpret(graph, {"u": u}).values()
    got = backend.simulate(backend.lower(tiled, described, ideal=ideal), {"u": u}, RunSettings()).outputs["y"]
    np.testing.assert_allclose(got, want, atol=1e-9 if ideal else 2e-3 * np.abs(want).max())
