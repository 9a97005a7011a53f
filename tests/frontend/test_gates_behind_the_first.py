"""Loops behind their first step whose gates are computed from the data, every step of which is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.frontend.checks import kinds, lift, on_targets
from tests.frontend.disguise import SEQUENCE
from tests.frontend.net import Net

INPUTS, STATES = 3, 4
LAST = 1 << 40


def gated(net: Net, x: str) -> tuple[str, str]:
    """Gates and drives of all steps, (b, t, states) each."""
    rng = np.random.default_rng(7)
    gates = net.op("Sigmoid", net.op("MatMul", x, net.const(rng.standard_normal((INPUTS, STATES)))))
    return gates, net.op("MatMul", x, net.const(rng.standard_normal((INPUTS, STATES))))


def body_of(gates: str, drives: str, later: int) -> tuple[Net, str, str, str, str]:
    """h = a h + (1 - a) v at the step that the trip tells, and its going on, its state and its next state."""
    body = Net()
    step, going, state = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL), body.input(None)
    place = body.op("Add", step, body.const(np.int64(later)))
    gate, drive = (body.op("Gather", v, place, axis=1) for v in (gates, drives))
    kept = body.op("Mul", gate, state)
    new = body.op("Add", kept, body.op("Mul", body.op("Sub", body.const(np.float32(1.0)), gate), drive))
    return body, body.op("Identity", going), state, new, place


def all_but_one(net: Net, x: str) -> tuple[str, str]:
    """The trips of the loop, and that it goes on."""
    steps = net.op("Squeeze", net.op("Shape", x, start=1, end=2))
    return net.op("Sub", steps, net.const(np.int64(1))), net.const(np.asarray(True))


def as_list(net: Net, x: str, start: str, gates: str, drives: str, empty: bool = False) -> str:
    """`outs = [h]`, or none, and one more at every trip."""
    body, end, _, new, _ = body_of(gates, drives, 1)
    held = body.fresh()
    more = body.op("SequenceInsert", held, new)
    graph = body.subgraph([(end, None), (new, None), (more, None)], {end: TensorProto.BOOL})
    graph.input.append(helper.make_value_info(held, SEQUENCE))
    graph.output[-1].CopyFrom(helper.make_value_info(more, SEQUENCE))
    begun = net.op("SequenceEmpty") if empty else net.op("SequenceConstruct", start)
    _, steps = net.op("Loop", *all_but_one(net, x), start, begun, outputs=2, body=graph)
    return str(net.op("ConcatFromSequence", steps, axis=1, new_axis=1))


def as_tensor(net: Net, x: str, start: str, gates: str, drives: str) -> str:
    """`ys = cat([ys, h])` from the first step on."""
    body, end, _, new, _ = body_of(gates, drives, 1)
    held = body.input(None)
    more = body.op("Concat", held, body.op("Unsqueeze", new, body.ints(1)), axis=1)
    graph = body.subgraph([(end, None), (new, None), (more, None)], {end: TensorProto.BOOL})
    first = net.op("Unsqueeze", start, net.ints(1))
    return str(net.op("Loop", *all_but_one(net, x), start, first, outputs=2, body=graph)[1])


def as_outputs(net: Net, x: str, start: str, gates: str, drives: str, later: int = 1) -> str:
    """What every trip gives, and the first step in front of that."""
    body, end, _, new, _ = body_of(gates, drives, later)
    graph = body.subgraph([(end, None), (new, None), (body.op("Identity", new), None)], {end: TensorProto.BOOL})
    _, steps = net.op("Loop", *all_but_one(net, x), start, outputs=2, body=graph)
    whole = net.op("Concat", net.op("Unsqueeze", start, net.ints(0)), steps, axis=0)
    return str(net.op("Transpose", whole, perm=[1, 0, 2]))


def as_cut(net: Net, x: str, start: str, gates: str, drives: str) -> str:
    """The same over gates and drives that lack the first step."""
    parts = (net.op("Slice", v, net.ints(1), net.ints(LAST), net.ints(1)) for v in (gates, drives))
    return as_outputs(net, x, start, *parts, later=0)


def as_scan(net: Net, x: str, start: str, gates: str, drives: str) -> str:
    """`jax.lax.scan` over `xs[1:]` from `xs[0]`."""
    parts = [net.op("Slice", v, net.ints(1), net.ints(LAST), net.ints(1)) for v in (gates, drives)]
    body = Net()
    state, gate, drive = (body.input(None) for _ in range(3))
    rest = body.op("Sub", body.const(np.float32(1.0)), gate)
    new = body.op("Add", body.op("Mul", gate, state), body.op("Mul", rest, drive))
    graph = body.subgraph([(new, None), (body.op("Identity", new), None)])
    axes = {"scan_input_axes": [1, 1], "scan_output_axes": [1]}
    _, steps = net.op("Scan", start, *parts, outputs=2, body=graph, num_scan_inputs=2, **axes)
    return str(net.op("Concat", net.op("Unsqueeze", start, net.ints(1)), steps, axis=1))


@pytest.mark.parametrize("bent", [False, True])
@pytest.mark.parametrize("write", [as_list, as_tensor, as_outputs, as_cut, as_scan])
def test_every_step(tmp_path: Path, write, bent: bool) -> None:  # type: ignore[no-untyped-def]
    net = Net()
    x = net.input(["b", "t", INPUTS])
    gates, drives = gated(net, x)
    start = net.op("Gather", drives, net.const(np.int64(0)), axis=1)
    start = net.op("Tanh", start) if bent else start
    model = lift(net, write(net, x, start, gates, drives), ["b", "t", STATES], tmp_path, (1, 7), (3, 19))
    (system,) = model.systems
    assert (system.kind, system.groups * system.states) == ("selective", STATES)
    if bent:
        on_targets(model, 2, 14)


def test_all_but_the_first_step(tmp_path: Path) -> None:
    """A list that begins empty has a step less."""
    net = Net()
    x = net.input([2, 12, INPUTS])
    gates, drives = gated(net, x)
    start = net.op("Gather", drives, net.const(np.int64(0)), axis=1)
    y = as_list(net, x, start, gates, drives, empty=True)
    model = lift(net, y, [2, 11, STATES], tmp_path, (2, 12))
    assert kinds(model) == ["selective"]


def test_the_input_of_the_step_before(tmp_path: Path) -> None:
    """A trapezoid takes the mean of two inputs, and a decay by the gap to the step before."""
    net = Net()
    x = net.input(["b", "t", INPUTS])
    _, drives = gated(net, x)
    times = net.op("CumSum", net.op("Softplus", net.op("Slice", x, net.ints(0), net.ints(1), net.ints(2))), net.ints(1))
    ends = [net.op("Slice", times, net.ints(a), net.ints(b), net.ints(1)) for a, b in ((1, LAST), (0, -1))]
    gaps = net.op("Sub", *ends)
    body = Net()
    step, going, state = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL), body.input(None)
    later = body.op("Add", step, body.const(np.int64(1)))
    decay = body.op("Exp", body.op("Neg", body.op("Gather", gaps, step, axis=1)))
    both = body.op("Add", *(body.op("Gather", drives, k, axis=1) for k in (step, later)))
    new = body.op("Add", body.op("Mul", decay, state), body.op("Mul", both, body.const(np.float32(0.5))))
    end = body.op("Identity", going)
    graph = body.subgraph([(end, None), (new, None), (body.op("Identity", new), None)], {end: TensorProto.BOOL})
    start = net.op("Gather", drives, net.const(np.int64(0)), axis=1)
    _, steps = net.op("Loop", *all_but_one(net, x), start, outputs=2, body=graph)
    whole = net.op("Concat", net.op("Unsqueeze", start, net.ints(0)), steps, axis=0)
    y = net.op("Transpose", whole, perm=[1, 0, 2])
    model = lift(net, y, ["b", "t", STATES], tmp_path, (1, 7), (3, 19))
    on_targets(model, 2, 14)


def test_what_is_read_back_is_no_state_yet(tmp_path: Path) -> None:
    """`h[:, t] = a[:, t] * h[:, t - 1] + v[:, t]`: the tensor itself is what is carried."""
    net = Net()
    x = net.input([2, 12, INPUTS])
    gates, drives = gated(net, x)
    body = Net()
    step, going, held = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL), body.input(None)
    place = body.op("Add", step, body.const(np.int64(1)))
    before, gate, drive = (body.op("Gather", v, k, axis=1) for v, k in ((held, step), (gates, place), (drives, place)))
    new = body.op("Unsqueeze", body.op("Add", body.op("Mul", gate, before), drive), body.ints(1))
    where = body.op("Expand", body.op("Reshape", place, body.ints(1, 1, 1)), body.ints(2, 1, STATES))
    written = body.op("ScatterElements", held, where, new, axis=1)
    end = body.op("Identity", going)
    graph = body.subgraph([(end, None), (written, None)], {end: TensorProto.BOOL})
    first = net.op("Slice", drives, net.ints(0), net.ints(1), net.ints(1))
    blank = net.op("Mul", net.op("Slice", drives, net.ints(1), net.ints(LAST), net.ints(1)), net.const(np.float32(0.0)))
    y = net.op("Loop", *all_but_one(net, x), net.op("Concat", first, blank, axis=1), body=graph)
    assert kinds(lift(net, y, [2, 12, STATES], tmp_path, (2, 12))) == ["selective"]
