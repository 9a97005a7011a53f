"""States that are reset where a segment begins: where the segment's number is not that of the step before."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.driver import compile_model
from ssmc.frontend import Model, load_model, reference
from tests.frontend.blocks import RNG
from tests.frontend.checks import kinds
from tests.frontend.net import Net, save

WIDTH, LENGTH = 3, 16


def _begins(net: Net, seg: str, how: str) -> str:
    """Whether a segment begins at each step (batch, time): `seg[1:] != seg[:-1]`, and what stands before it."""
    later = net.op("Slice", seg, net.ints(1), net.ints(1 << 62), net.ints(1))
    before = net.op("Slice", seg, net.ints(0), net.ints(-1), net.ints(1))
    same = net.op("Equal", later, before)
    if how == "kept":  # 1 where nothing is reset
        first = net.const(np.zeros((2, 1), bool))
        return net.op("Not", net.op("Concat", first, same, axis=1))
    if how == "pad":
        padded = net.op("Pad", net.op("Cast", net.op("Not", same), to=TensorProto.FLOAT), net.ints(0, 1, 0, 0))
        return net.op("Greater", padded, net.const(0.5))
    if how == "difference":
        moved = net.op("Abs", net.op("Sub", later, before))
        first = net.op("Slice", seg, net.ints(0), net.ints(1), net.ints(1))
        return net.op("Greater", net.op("Concat", first, moved, axis=1), net.const(np.int64(0)))
    shape = net.op("Shape", net.op("Slice", seg, net.ints(0), net.ints(1), net.ints(1)))
    first = net.op("Expand", net.const(np.ones((1, 1), bool)), shape)  # any batch
    return net.op("Concat", first, net.op("Not", same), axis=1)


def _model(how: str, batch: int | str, length: int | str, folder: Path) -> Model:
    net, body = Net(), Net()
    x, seg = net.input([batch, length, WIDTH]), net.input([batch, length], TensorProto.INT64)
    reset = net.op("Unsqueeze", _begins(net, seg, how), net.ints(2))
    h, u, r = body.input([batch, WIDTH]), body.input([batch, WIDTH]), body.input([batch, 1], TensorProto.BOOL)
    kept = body.op("Where", r, body.const(np.zeros(WIDTH)), h)
    new = body.op("Add", body.op("Mul", kept, body.const(np.array([0.5, 0.8, 0.9]))), u)
    graph = body.subgraph([(v, [batch, WIDTH]) for v in (new, body.op("Identity", new))])
    zero = net.op("ReduceSum", net.op("Mul", x, net.const(0.0)), net.ints(1), keepdims=0)
    _, y = net.op(
        "Scan", zero, x, reset, outputs=2, body=graph, num_scan_inputs=2, scan_input_axes=[1, 1], scan_output_axes=[1]
    )
    return load_model(save(net.model([(y, [batch, length, WIDTH])]), folder))


@pytest.mark.parametrize("how", ["kept", "pad", "difference", "any batch"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_segments_reset_the_states(tmp_path: Path, how: str, dynamic: bool) -> None:
    sizes: tuple[int | str, int | str] = ("b", "t") if dynamic and how != "kept" else (2, "t" if dynamic else LENGTH)
    model = _model(how, *sizes, tmp_path)
    assert kinds(model) == ["selective"]
    _on_targets(model)


def test_neighbours_are_compared_in_every_step(tmp_path: Path) -> None:
    """An unrolled loop that reads the segment's number of the step before."""
    net, length = Net(), 12
    x, seg = net.input([2, length, WIDTH]), net.input([2, length], TensorProto.INT64)
    steps = [
        (net.op("Gather", x, net.const(np.int64(t)), axis=1), net.op("Gather", seg, net.const(np.int64(t)), axis=1))
        for t in range(length)
    ]
    a, states = net.const(np.array([0.5, 0.8, 0.9])), [steps[0][0]]
    for (_, before), (u, number) in pairwise(steps):
        same = net.op("Unsqueeze", net.op("Cast", net.op("Equal", number, before), to=TensorProto.FLOAT), net.ints(1))
        states.append(net.op("Add", net.op("Mul", net.op("Mul", states[-1], same), a), u))
    y = net.op("Concat", *(net.op("Unsqueeze", h, net.ints(1)) for h in states), axis=1)
    model = load_model(save(net.model([(y, [2, length, WIDTH])]), tmp_path))
    assert kinds(model) == ["selective"]
    _on_targets(model, length)


def _on_targets(model: Model, length: int = LENGTH) -> None:
    x, seg = model.inputs
    arrays = {
        x.name: RNG.standard_normal((2, length, WIDTH)).astype(np.float32),
        seg.name: np.sort(RNG.integers(0, 4, (2, length)), axis=1),
    }
    (expected,) = reference(model, arrays).values()
    for target in ("cim", "epochcore"):
        (found,) = compile_model(model, target, ideal=True).run(arrays).outputs.values()
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
