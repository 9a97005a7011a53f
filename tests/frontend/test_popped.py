"""Scripted loops that pop a step off a list at every trip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from ssmc.frontend import load_model, reference
from ssmc.frontend.proofs.proof import run_graph
from tests.frontend.checks import LINEAR, kinds
from tests.frontend.disguise import SEQUENCE
from tests.frontend.net import Net, save

LENGTH, WIDTH = 7, 3
DECAY = np.array([0.5, 0.7, 0.9])


@pytest.mark.parametrize("end", [0, -1])
@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("length", [LENGTH, "t"])
def test_steps_that_are_popped(tmp_path: Path, end: int, counted: bool, length: int | str) -> None:
    """`u = steps.pop(end)` as often as there are steps, or while there are any; from the end it runs backwards."""
    net, body = Net(), Net()
    x = net.input(["b", length, WIDTH])
    split = net.op("SplitToSequence", x, net.const(np.int64(1)), axis=1, keepdims=0)
    zero = net.op("Mul", net.op("Gather", x, net.const(np.int64(0)), axis=1), net.const(0.0))
    body.input([], TensorProto.INT64)
    going, state, left, held = body.input([], TensorProto.BOOL), body.input(None), body.fresh(), body.fresh()
    body.inputs += [helper.make_value_info(name, SEQUENCE) for name in (left, held)]
    at = body.const(np.int64(end))
    u, rest = body.op("SequenceAt", left, at), body.op("SequenceErase", left, at)
    new = body.op("Add", body.op("Mul", body.const(DECAY), state), u)
    more = body.op("SequenceInsert", held, new)
    none = body.const(np.int64(0))
    on = body.op("Identity", going) if counted else body.op("Greater", body.op("SequenceLength", rest), none)
    graph = body.subgraph([(on, []), (new, None)], {on: TensorProto.BOOL})
    graph.output.extend(helper.make_value_info(name, SEQUENCE) for name in (rest, more))
    any_left = net.op("Greater", net.op("SequenceLength", split), net.const(np.int64(0)))
    trips = net.op("Squeeze", net.op("Shape", x, start=1, end=2)) if counted else net.const(np.int64(2**63 - 1))
    start = net.const(np.True_) if counted else any_left
    *_, found = net.op("Loop", trips, start, zero, split, net.op("SequenceEmpty"), outputs=3, body=graph)
    y = net.op("ConcatFromSequence", found, axis=1, new_axis=1)
    model = load_model(save(net.model([(y, ["b", length, WIDTH])]), tmp_path))
    assert kinds(model) == [LINEAR]
    steps = np.random.default_rng(1).standard_normal((2, LENGTH, WIDTH)).astype(np.float32)
    expected, state_now = [], np.zeros((2, WIDTH))
    for k in range(LENGTH)[:: -1 if end else 1]:
        state_now = DECAY * state_now + steps[:, k]
        expected.append(state_now)
    for outputs in (reference(model, {x: steps}), run_graph(model.graph, model.inputs, model.outputs, {x: steps})):
        np.testing.assert_allclose(outputs[y], np.stack(expected, axis=1), rtol=1e-4, atol=1e-5)


def test_a_loop_that_is_given_a_bound_keeps_its_list(tmp_path: Path) -> None:
    """While any is left, but at most three times: that is no step for each."""
    net, body = Net(), Net()
    x = net.input(["b", LENGTH, WIDTH])
    split = net.op("SplitToSequence", x, net.const(np.int64(1)), axis=1, keepdims=0)
    zero = net.op("Mul", net.op("Gather", x, net.const(np.int64(0)), axis=1), net.const(0.0))
    body.input([], TensorProto.INT64)
    body.input([], TensorProto.BOOL)
    state, left = body.input(None), body.fresh()
    body.inputs.append(helper.make_value_info(left, SEQUENCE))
    u, rest = body.op("SequenceAt", left, body.ints(0)), body.op("SequenceErase", left, body.ints(0))
    new = body.op("Add", body.op("Mul", body.const(DECAY), state), u)
    on = body.op("Greater", body.op("SequenceLength", rest), body.const(np.int64(0)))
    graph = body.subgraph([(on, []), (new, None)], {on: TensorProto.BOOL})
    graph.output.append(helper.make_value_info(rest, SEQUENCE))
    any_left = net.op("Greater", net.op("SequenceLength", split), net.const(np.int64(0)))
    y, _ = net.op("Loop", net.const(np.int64(3)), any_left, zero, split, outputs=2, body=graph)
    path = save(net.model([(y, ["b", WIDTH])]), tmp_path)
    assert load_model(path, strict=False).unsupported
