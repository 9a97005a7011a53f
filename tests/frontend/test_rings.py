"""One-step models that keep the last inputs of a causal convolution in a ring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.frontend import load_model
from tests.frontend.blocks import RNG
from tests.frontend.checks import refused
from tests.frontend.net import Net, save

WIDTH, TAPS = 3, 4


def ring(how: str) -> tuple[Net, list[tuple[str, list[int]]]]:
    """cache[:, :, pos % 4] = x, the taps taken from pos + 1 on; a moving average behind it."""
    net = Net()
    x, cache = net.input([1, WIDTH]), net.input([1, WIDTH, TAPS], name="cache")
    pos, state = net.input([1], TensorProto.INT64), net.input([1, WIDTH])
    size, new = net.const(np.int64(TAPS)), net.op("Unsqueeze", x, net.ints(2))
    place = net.op("Mod", pos, size)
    if how == "where":
        kept = net.op("Where", net.op("Equal", net.const(np.arange(TAPS)), place), new, cache)
    else:
        index = net.op("Expand", net.op("Reshape", place, net.ints(1, 1, 1)), net.ints(1, WIDTH, 1))
        kept = net.op("ScatterElements", cache, index, new, axis=2)
    next_pos = net.op("Add", pos, net.const(np.int64(1)))
    order = net.op("Mod", net.op("Add", next_pos, net.const(np.arange(TAPS))), size)
    taps = net.op("Mul", net.op("Gather", kept, order, axis=2), net.const(RNG.standard_normal((WIDTH, TAPS))))
    u = net.op("ReduceSum", taps, net.ints(2), keepdims=0)
    following = net.op("Add", net.op("Mul", state, net.const(np.array([0.5, 0.7, 0.9]))), u)
    y = net.op("Relu", following)
    return net, [(y, [1, WIDTH]), (kept, [1, WIDTH, TAPS]), (following, [1, WIDTH])]


@pytest.mark.parametrize("how", ["where", "scatter"])
def test_a_ring_is_told_as_one(tmp_path: Path, how: str) -> None:
    net, outputs = ring(how)
    message = refused(save(net.model(outputs), tmp_path), "the place in a ring of 4 steps", "the cache 'cache'")
    assert "1 node cannot" in message and "numbers the samples" not in message


def test_what_the_hint_says_is_lifted(tmp_path: Path) -> None:
    """The last steps in their order; that what comes out is as wide as what goes in makes no state of that."""
    net = Net()
    x, cache = net.input([1, WIDTH]), net.input([1, WIDTH, TAPS])
    before = net.op("Slice", cache, net.ints(1), net.ints(TAPS), net.ints(2))
    kept = net.op("Concat", before, net.op("Unsqueeze", x, net.ints(2)), axis=2)
    y = net.op("ReduceSum", net.op("Mul", kept, net.const(RNG.standard_normal((WIDTH, TAPS)))), net.ints(2), keepdims=0)
    model = load_model(save(net.model([(y, [1, WIDTH]), (kept, [1, WIDTH, TAPS])]), tmp_path))
    assert model.form == "step" and list(model.states) == [cache]
