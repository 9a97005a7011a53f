"""A small model by hand, through lowering and simulator, against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from backends.epochcore import BACKEND
from ssmc.ir import Graph, Piece, StreamType, Tensor, interpret
from ssmc.target import RunSettings


def model(seed: int = 0) -> Graph:
    """Encoder, a bidirectional complex SSM, GELU, mean over time, decoder."""
    rng = np.random.default_rng(seed)
    graph = Graph()
    x = graph.add("input", attrs={"name": "x", "type": StreamType((5,)), "axes": "btf"})
    weight = {"weight": Tensor(rng.standard_normal((5, 8))), "bias": Tensor(rng.standard_normal(8))}
    h = graph.add("tile.matmul", [x], {**weight, "pieces": (Piece(0, 5, 0, 8),)}, name="encoder")
    decay = np.exp(-rng.uniform(0.01, 0.5, (8, 3)) + 1j * rng.uniform(0, 2, (8, 3)))
    c = rng.standard_normal((8, 3)) + 1j * rng.standard_normal((8, 3))
    system = {"decay": Tensor(decay), "b": Tensor(np.ones((8, 3), complex)), "c": Tensor(c)}
    system |= {"d": Tensor(rng.standard_normal(8)), "pieces": (Piece(0, 8, 0, 3),)}
    forward = graph.add("tile.ssm", [h], system, name="forward", provenance=["/scan"])
    other = {**system, "c": Tensor(c[::-1] / 2), "reverse": True, "read_before": True}
    backward = graph.add("tile.ssm", [h], other, name="backward")
    both = graph.add("binary", [forward, backward], {"fn": "add"})
    active = graph.add("unary", [both], {"fn": "gelu"})
    mean = graph.add("pool", [active], {"kind": "mean"})
    out = {"weight": Tensor(rng.standard_normal((8, 3))), "pieces": (Piece(0, 8, 0, 3),)}
    graph.add("output", [graph.add("tile.matmul", [mean], out, name="decoder")], {"name": "y"})
    graph.add("output", [active], {"name": "z"})
    return graph


@pytest.mark.parametrize("name", BACKEND.architectures())
@pytest.mark.parametrize("ideal", [True, False])
def test_outputs_and_blocks(name: str, ideal: bool) -> None:
    graph = model()
    x = np.random.default_rng(1).standard_normal((4, 21, 5))
    expected = interpret(graph, {"x": x})
    program = BACKEND.lower(graph, BACKEND.load_arch(name), ideal=ideal)
    whole = BACKEND.simulate(program, {"x": x}, RunSettings())
    for output, reference in expected.items():
        error = np.abs(whole.outputs[output] - reference).max() / np.abs(reference).max()
        assert error < (1e-12 if ideal else 0.02)
    for block in (1, 4):
        other = BACKEND.simulate(program, {"x": x}, RunSettings(block=block))
        for output in expected:
            np.testing.assert_array_equal(other.outputs[output], whole.outputs[output])
