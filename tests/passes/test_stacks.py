"""Systems of many groups: their matrices hold nothing of the zeros between the blocks, and are what they were."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ssmc.ir import Graph, StreamType
from ssmc.ir.sparse import Sparse
from ssmc.passes import Context, PassManager, stacks
from tests.passes.graphs import MACHINES, Model, system

SHAPES = {"single": (5, 3, 1, 1), "wide": (3, 2, 2, 3), "square": (2, 3, 3, 3), "one": (1, 3, 2, 2)}


def tiled(shape: tuple[int, int, int, int], pipeline: str, **kinds: bool) -> Graph:
    m = Model(0)
    m.graph = Graph("tiles")
    m.h = shape[0] * shape[2]
    m.x = m.input("u", StreamType((m.h,)))
    m.x = m.ssm(system(m.rng, *shape, **kinds))
    m.output(m.x, "y")
    return PassManager(pipeline).run(m.graph, Context(MACHINES["crossbar"]))


def told(graph: Graph) -> list[tuple[str, str, dict[str, Any]]]:
    return [(node.name, node.op.name, dict(node.op.attrs)) for node in graph.nodes()]


@pytest.mark.parametrize("pipeline", ["tile", "tile,quantize{weights=6}", "quantize{weights=20},tile"])
@pytest.mark.parametrize("halved", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_tiles_are_the_same_with_and_without_the_zeros(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int, int], halved: bool, pipeline: str
) -> None:
    dense = tiled(shape, pipeline, halved=halved)
    monkeypatch.setattr(stacks, "LARGE", 1)
    sparse = tiled(shape, pipeline, halved=halved)
    held = [node.op["weight"]._held for node in sparse.nodes("tile.matmul")]
    assert any(isinstance(one, Sparse) for one in held) == (shape[0] > 1 and "tile,q" not in pipeline)
    assert told(dense) == told(sparse)


def test_memory_grows_with_the_blocks() -> None:
    """512 channels of 32 states: C has 16 384 weights, and 134 MB of zeros between them."""
    machine = replace(MACHINES["crossbar"], array_rows=64, array_cols=64)
    m = Model(0)
    m.graph = Graph("tiles")
    m.x = m.input("u", StreamType((512,)))
    m.x = m.ssm(system(np.random.default_rng(0), 512, 16, 1, 1))
    m.output(m.x, "y")
    tracemalloc.start()
    PassManager("tile", validate=False).run(m.graph, Context(machine))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
