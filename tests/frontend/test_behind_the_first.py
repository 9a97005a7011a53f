"""Loops behind their first step, `h = v_0`, then `for t in range(1, T)`: what they read of all states, or the last."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.frontend.blocks import RNG
from tests.frontend.checks import LINEAR, lift, on_targets
from tests.frontend.disguise import SEQUENCE
from tests.frontend.net import Net

INPUTS, STATES, OUTPUTS = 3, 4, 2


def looped(net: Net, x: str, gates: str | None, last: bool) -> str:
    """h = a h + B x at every step, decays `a` fixed or streamed; C h of every step, (b, t, outputs), or of the last."""
    body, rng = Net(), np.random.default_rng(5)
    b, c = rng.standard_normal((INPUTS, STATES)), rng.standard_normal((STATES, OUTPUTS))
    v = net.op("MatMul", x, net.const(b))
    first = net.op("Gather", v, net.const(np.int64(0)), axis=1)
    step, going = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL)
    state, held = body.input(None), body.fresh()
    place = body.op("Add", step, body.const(np.int64(1)))
    drive = body.op("Gather", v, place, axis=1)
    fixed = body.const(np.linspace(0.4, 0.9, STATES))
    decay = fixed if gates is None else body.op("Gather", gates, place, axis=1)
    following = body.op("Add", body.op("Mul", decay, state), drive)
    end = body.op("Identity", going)
    graph = body.subgraph([(end, None), (following, None)], {end: TensorProto.BOOL})
    trips = net.op("Sub", net.op("Squeeze", net.op("Shape", x, start=1, end=2)), net.const(np.int64(1)))
    going = net.const(np.asarray(True))
    if last:
        return str(net.op("MatMul", net.op("Loop", trips, going, first, body=graph), net.const(c)))
    more = body.op("SequenceInsert", held, body.op("MatMul", following, body.const(c)))
    graph = body.subgraph([(end, None), (following, None), (more, None)], {end: TensorProto.BOOL})
    graph.input.append(helper.make_value_info(held, SEQUENCE))
    graph.output[-1].CopyFrom(helper.make_value_info(more, SEQUENCE))
    start = net.op("SequenceConstruct", net.op("MatMul", first, net.const(c)))
    _, steps = net.op("Loop", trips, going, first, start, outputs=2, body=graph)
    return str(net.op("ConcatFromSequence", steps, axis=1, new_axis=1))


@pytest.mark.parametrize("last", [False, True])
def test_fixed_decays(tmp_path: Path, last: bool) -> None:
    net = Net()
    y = looped(net, net.input(["b", "t", INPUTS]), None, last)
    model = lift(net, y, ["b", OUTPUTS] if last else ["b", "t", OUTPUTS], tmp_path, (2, 12), (3, 19))
    (system,) = model.systems
    assert (system.kind, system.groups, system.states) == (LINEAR, 1, STATES)
    on_targets(model, 2, 14)


def test_decays_of_the_data(tmp_path: Path) -> None:
    net = Net()
    x = net.input(["b", "t", INPUTS])
    gates = net.op("Sigmoid", net.op("MatMul", x, net.const(RNG.standard_normal((INPUTS, STATES)))))
    model = lift(net, looped(net, x, gates, last=True), ["b", OUTPUTS], tmp_path, (2, 12), (3, 19))
    (system,) = model.systems
    assert (system.kind, system.groups * system.states) == ("selective", STATES)
    on_targets(model, 2, 14)
