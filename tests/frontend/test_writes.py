"""Writes into a tensor at constant places: caches that are rolled and written, parts that are put together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.frontend import load_model, reference
from ssmc.frontend.proofs.proof import run_graph
from tests.frontend.net import Net, save

WIDTH, TAPS = 3, 4


@pytest.mark.parametrize("op", ["ScatterElements", "ScatterND"])
def test_a_cache_that_is_rolled_and_written(tmp_path: Path, op: str) -> None:
    """The step of Mamba's own code: the oldest number goes to the end and is overwritten there."""
    net, rng = Net(), np.random.default_rng(3)
    u, state, cache = net.input(["b", WIDTH]), net.input(["b", WIDTH]), net.input(["b", WIDTH, TAPS])
    parts = [net.op("Slice", cache, net.ints(a), net.ints(b), net.ints(2)) for a, b in ((1, TAPS), (0, 1))]
    rolled = net.op("Concat", *parts, axis=2)
    if op == "ScatterElements":
        new = net.op("Unsqueeze", u, net.ints(2))
        place = net.op("Expand", net.const(np.full((1, 1, 1), TAPS - 1)), net.op("Shape", new))
        written = net.op(op, rolled, place, new, axis=2)
    else:
        first = net.op("Transpose", rolled, perm=[2, 0, 1])
        first = net.op(op, first, net.const(np.array([[-1]])), net.op("Unsqueeze", u, net.ints(0)))
        written = net.op("Transpose", first, perm=[1, 2, 0])
    taps = net.const(rng.standard_normal((WIDTH, TAPS)))
    v = net.op("ReduceSum", net.op("Mul", written, taps), net.ints(2), keepdims=0)
    following = net.op("Add", net.op("Mul", state, net.const(rng.uniform(0.4, 0.9, WIDTH))), v)
    y = net.op("Tanh", following)
    shapes = (["b", WIDTH], ["b", WIDTH], ["b", WIDTH, TAPS])
    model = load_model(save(net.model(list(zip((y, following, written), shapes, strict=True))), tmp_path))
    assert model.states == {state: following, cache: written}
    assert sorted(system.kind for system in model.systems) == ["fir", "linear time-invariant"]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1 << 16), st.booleans(), st.booleans())
def test_features_written_into_others(
    tmp_path_factory: pytest.TempPathFactory, seed: int, zeros: bool, nd: bool
) -> None:
    """Into zeros, or into what was there; all samples and steps alike."""
    net, rng = Net(), np.random.default_rng(seed)
    steps, wide, count = 7, int(rng.integers(2, 7)), int(rng.integers(1, 4))
    x = net.input([2, steps, wide])
    start = net.const(np.zeros((2, steps, wide))) if zeros else x
    new = net.op("MatMul", x, net.const(rng.standard_normal((wide, count))))
    chosen = rng.permutation(wide)[:count] if count <= wide else np.arange(wide)
    new = net.op("Slice", new, net.ints(0), net.ints(len(chosen)), net.ints(2))
    if nd:
        start, new = (net.op("Transpose", part, perm=[2, 0, 1]) for part in (start, new))
        y = net.op("ScatterND", start, net.const((chosen - wide)[:, None]), new)
        y = net.op("Transpose", y, perm=[1, 2, 0])
    else:
        y = net.op("ScatterElements", start, net.const(np.tile(chosen, (2, steps, 1))), new, axis=2)
    y = net.op("CumSum", y, net.const(np.int64(1)))
    model = load_model(save(net.model([(y, [2, steps, wide])]), tmp_path_factory.mktemp("writes")))
    arrays = {x: rng.standard_normal((2, steps, wide)).astype(np.float32)}
    found = run_graph(model.graph, model.inputs, model.outputs, arrays)[y]
    assert np.abs(found - reference(model, arrays)[y]).max() < 1e-5
