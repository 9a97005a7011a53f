"""Loops and reversals as the exporter of TensorFlow writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from tests.frontend.blocks import RNG
from tests.frontend.checks import LINEAR, kinds, lift, on_targets, refused
from tests.frontend.net import Net, save

FAR = 1_000_000_000
INPUTS, STATES = 3, 4


def loop(net: Net, z: str, taken: str) -> str:
    """`while t < n: h = a * h + z[:, t]` over z (batch, time, features): the states (time, batch, features).

    A step is a slice whose masked end lies past that of the sequence: one by its stride, or by a stop at t + 1.
    """
    count = net.op("Squeeze", net.op("Shape", z, start=1, end=2))
    first = net.op("Squeeze", net.op("Slice", z, net.ints(0), net.ints(1), net.ints(1)), net.ints(1))
    body = Net()
    body.input([], TensorProto.INT64)
    body.input([], TensorProto.BOOL)
    t, state, limit = body.input([], TensorProto.INT64), body.input(None), body.input([], TensorProto.INT64)
    after = body.op("Add", t, body.const(np.int64(1)))
    start = body.op("Concat", body.ints(0), body.op("Unsqueeze", t, body.ints(0)), axis=0)
    if taken == "by stride":
        end, steps = body.ints(FAR, FAR), body.ints(1, FAR)
    else:
        far = body.op("Unsqueeze", after, body.ints(0))
        end, steps = body.op("Concat", body.ints(FAR), far, axis=0), body.ints(1, 1)
    start = body.op("Where", body.const(np.array([True, False])), body.ints(0), start)
    step = body.op("Squeeze", body.op("Slice", z, start, end, body.ints(0, 1), steps), body.ints(1))
    decayed = body.op("Mul", state, body.const(np.linspace(0.4, 0.9, STATES)))
    following = body.op("Add", decayed, step)
    going, stop = body.op("Less", after, limit), body.op("Identity", limit)
    told = {going: TensorProto.BOOL, after: TensorProto.INT64, stop: TensorProto.INT64}
    names = (going, after, following, stop, body.op("Identity", following))
    graph = body.subgraph([(name, None) for name in names], told)
    zeros = net.op("Mul", first, net.const(np.float32(0)))
    start_now = net.op("Less", net.const(np.int64(0)), count)
    *_, stacked = net.op("Loop", "", start_now, net.const(np.int64(0)), zeros, count, outputs=4, body=graph)
    return str(stacked)


@pytest.mark.parametrize("taken", ["by stride", "by stop"])
def test_a_step_is_a_slice_past_the_end(tmp_path: Path, taken: str) -> None:
    net = Net()
    z = net.op("MatMul", net.input(["b", "t", INPUTS]), net.const(RNG.standard_normal((INPUTS, STATES))))
    y = net.op("Transpose", loop(net, z, taken), perm=[1, 0, 2])
    model = lift(net, y, ["b", "t", STATES], tmp_path, (2, 12), (3, 7))
    assert kinds(model) == [LINEAR]
    on_targets(model, 2, 9)


def backwards(net: Net, x: str, time_axis: int) -> str:
    """All of the sequence, by lengths that are computed from its shape."""
    sizes = net.op("Shape", x)
    steps, batch = (net.op("Gather", sizes, net.ints(k)) for k in (time_axis, 1 - time_axis))
    ends = net.op("Expand", steps, batch)
    return str(net.op("ReverseSequence", x, ends, batch_axis=1 - time_axis, time_axis=time_axis))


def test_both_directions_by_reversed_sequences(tmp_path: Path) -> None:
    net = Net()
    z = net.op("MatMul", net.input(["b", "t", INPUTS]), net.const(RNG.standard_normal((INPUTS, STATES))))
    forward = net.op("Transpose", loop(net, z, "by stride"), perm=[1, 0, 2])
    turned = backwards(net, loop(net, backwards(net, z, 1), "by stride"), 0)
    y = net.op("Concat", forward, net.op("Transpose", turned, perm=[1, 0, 2]), axis=2)
    model = lift(net, y, ["b", "t", 2 * STATES], tmp_path, (2, 12), (3, 7))
    assert [system.reverse for system in model.systems] == [False, True]
    on_targets(model, 2, 9)


def test_features_backwards(tmp_path: Path) -> None:
    net = Net()
    z = net.op("MatMul", net.input([2, 12, INPUTS]), net.const(RNG.standard_normal((INPUTS, STATES))))
    h = net.op("CumSum", z, net.const(np.int64(1)))
    y = net.op("ReverseSequence", h, net.ints(STATES, STATES), batch_axis=0, time_axis=2)
    on_targets(lift(net, y, [2, 12, STATES], tmp_path, (2, 12)), 2, 12)


def test_sequences_that_end_early_are_refused(tmp_path: Path) -> None:
    net = Net()
    h = net.op("CumSum", net.input([2, 12, INPUTS]), net.const(np.int64(1)))
    y = net.op("ReverseSequence", h, net.ints(12, 5), batch_axis=0, time_axis=1)
    path = save(net.model([(y, [2, 12, INPUTS])]), tmp_path)
    refused(path, "ReverseSequence", "the first 5 of 12 steps")


def test_a_table_that_ends_with_the_steps(tmp_path: Path) -> None:
    """Places looked up trip by trip, where a longer run would find none (vectorised maps)."""
    net, body = Net(), Net()
    x = net.input([2, 12, INPUTS])
    turned = net.op("Transpose", x, perm=[1, 0, 2])
    places = net.const(np.arange(12, dtype=np.int64)[:, None])
    step, _ = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL)
    at = body.op(
        "Slice", places, body.op("Unsqueeze", step, body.ints(0)), body.ints(FAR), body.ints(0), body.ints(FAR)
    )
    taken = body.op("Gather", turned, body.op("Squeeze", at, body.ints(0, 1)), axis=0)
    going = body.op("Less", step, body.const(np.int64(FAR)))
    graph = body.subgraph([(going, None), (taken, None)], {going: TensorProto.BOOL})
    picked = net.op("Loop", net.const(np.int64(12)), "", body=graph)
    y = net.op("CumSum", net.op("Transpose", picked, perm=[1, 0, 2]), net.const(np.int64(1)))
    on_targets(lift(net, y, [2, 12, INPUTS], tmp_path, (2, 12)), 2, 12)
