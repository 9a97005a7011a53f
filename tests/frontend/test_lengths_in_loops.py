"""Scripted loops over padded sequences: `h = torch.where(lengths > t, new, h)`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from tests.frontend.blocks import RNG
from tests.frontend.net import Net, save

WIDTH = 3


@pytest.mark.parametrize(("compared", "swapped"), [("Greater", False), ("Less", True), ("LessOrEqual", True)])
def test_a_state_stays_behind_the_end_of_its_sequence(tmp_path: Path, compared: str, swapped: bool) -> None:
    net, body = Net(), Net()
    x, lengths = net.input(["b", "t", WIDTH]), net.input(["b"], TensorProto.INT64)
    count = net.op("Gather", net.op("Shape", x), net.const(np.int64(1)), axis=0)
    rows = net.op("Concat", net.op("Unsqueeze", net.op("Gather", net.op("Shape", x), net.const(np.int64(0)), axis=0),
                                   net.ints(0)), net.ints(WIDTH), axis=0)  # fmt: skip
    zeros = net.op("ConstantOfShape", rows)
    trip, _, state = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL), body.input(["b", WIDTH])
    drive = body.op("Gather", x, trip, axis=1)
    new = body.op("Add", body.op("Mul", state, body.const(np.array([0.5, 0.7, 0.9]))), drive)
    going = body.op(compared, *((trip, lengths) if swapped else (lengths, trip)))
    kept = body.op("Where", body.op("Unsqueeze", going, body.ints(1)), new, state)
    still = body.op("Identity", body.const(np.asarray(True)))
    inner = body.subgraph([(still, []), (kept, ["b", WIDTH])], {still: TensorProto.BOOL})
    last = net.op("Loop", count, net.const(np.asarray(True)), zeros, body=inner)
    y = net.op("MatMul", last, net.const(RNG.standard_normal((WIDTH, 2))))
    model = load_model(save(net.model([(y, ["b", 2])]), tmp_path))
    for batch, length in ((3, 11), (1, 4)):
        arrays = {
            x: RNG.standard_normal((batch, length, WIDTH)).astype(np.float32),
            lengths: RNG.integers(1, length + 1, batch),
        }
        (expected,) = reference(model, arrays).values()
        for target in ("cim", "epochcore"):
            (found,) = compile_model(model, target, ideal=True).run(arrays).outputs.values()
            assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("build", ["where", "products"])
def test_the_same_in_a_traced_loop(tmp_path: Path, build: str) -> None:
    """The number of the step is a constant of its own in each of them."""
    net, steps = Net(), 9
    x, lengths = net.input(["b", steps, WIDTH]), net.input(["b"], TensorProto.INT64)
    decay, one = net.const(np.array([0.5, 0.7, 0.9])), net.const(np.float32(1.0))
    first = net.op("Gather", x, net.const(np.int64(0)), axis=1)
    state = net.op("ConstantOfShape", net.op("Shape", first))
    for k in range(steps):
        drive = net.op("Gather", x, net.const(np.int64(k)), axis=1) if k else first
        going = net.op("Unsqueeze", net.op("Greater", lengths, net.const(np.int64(k))), net.ints(1))
        new = net.op("Add", net.op("Mul", decay, state), drive)
        if build == "where":
            state = net.op("Where", going, new, state)
        else:
            mask = net.op("Cast", going, to=TensorProto.FLOAT)
            held = net.op("Mul", net.op("Sub", one, mask), state)
            state = net.op("Add", net.op("Mul", mask, new), held)
    y = net.op("MatMul", state, net.const(RNG.standard_normal((WIDTH, 2))))
    model = load_model(save(net.model([(y, ["b", 2])]), tmp_path))
    assert len(model.systems) == 1
    arrays = {x: RNG.standard_normal((steps, steps, WIDTH)).astype(np.float32), lengths: np.arange(1, steps + 1)}
    (expected,) = reference(model, arrays).values()
    for target in ("cim", "epochcore"):
        (found,) = compile_model(model, target, ideal=True).run(arrays).outputs.values()
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
