"""Memory that a run takes, by weight: what arrays hold is kept once."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from backends.cim import BACKEND
from ssmc.ir import Graph, StreamType, Tensor
from ssmc.passes import Context, PassManager
from ssmc.target import RunSettings

WIDTH, OUT = 320, 640


@pytest.mark.parametrize(
    "ideal,noise,bound",
    [
        (True, None, 14),  # float64 for the products
        (False, "quantized", 30),  # a pair of conductances, and float32 for the products
        (False, "pcm", 46),  # a pair before drift, float64 for the products, and the variance of a read
    ],
)
def test_bytes_a_weight(ideal: bool, noise: str | None, bound: float) -> None:
    rng, graph, arch = np.random.default_rng(0), Graph(), BACKEND.load_arch("cim-large")
    u = graph.add("input", [], {"name": "u", "type": StreamType((WIDTH,))}, name="u")
    y = graph.add("linear", [u], {"weight": Tensor(rng.normal(size=(WIDTH, OUT)))}, name="wide")
    graph.add("output", [y], {"name": "y"}, name="out")
    context = Context(BACKEND.machine(arch, ideal=ideal), ideal=ideal)
    tiled = PassManager(BACKEND.pipeline(arch, ideal=ideal), validate=False).run(graph, context)
    program, inputs = BACKEND.lower(tiled, arch, ideal=ideal), {"u": rng.normal(size=(1, 2, WIDTH))}
    first = BACKEND.simulate(program, inputs, RunSettings(noise=noise))  # compiles what it needs
    tracemalloc.start()
    again = BACKEND.simulate(program, inputs, RunSettings(noise=noise))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= bound * WIDTH * OUT
    np.testing.assert_array_equal(again.outputs["y"], first.outputs["y"])
