"""Loops as torch.jit.script leaves them: the first step apart, steps put in front; unrolled ones with memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from tests.frontend.blocks import RNG
from tests.frontend.checks import LINEAR, kinds, lift, on_targets, refused
from tests.frontend.disguise import SEQUENCE
from tests.frontend.net import Net, save

INPUTS, STATES = 3, 4


def decay() -> np.ndarray:
    return np.linspace(0.4, 0.9, STATES)


def drive_of(net: Net, x: str) -> str:
    return str(net.op("MatMul", x, net.const(RNG.standard_normal((INPUTS, STATES)))))


def length_of(net: Net, x: str) -> str:
    return str(net.op("Squeeze", net.op("Shape", x, start=1, end=2)))


def stepped(body: Net, z: str, place: str, state: str) -> str:
    return str(body.op("Add", body.op("Mul", body.const(decay()), state), body.op("Gather", z, place, axis=1)))


@pytest.mark.parametrize("collect", ["concat", "sequence", "scatter"])
@pytest.mark.parametrize("length", ["t", 12])
def test_first_step_stands_before_the_loop(tmp_path: Path, collect: str, length: int | str) -> None:
    """h = z[:, 0], then `for t in range(1, T)`: the loop makes one trip less than there are steps."""
    net, body = Net(), Net()
    z = drive_of(net, net.input(["b", length, INPUTS]))
    first = net.op("Gather", z, net.const(np.int64(0)), axis=1)
    step, going = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL)
    state, held = body.input(None), body.fresh()
    place = body.op("Add", step, body.const(np.int64(1)))
    following = stepped(body, z, place, state)
    kind = SEQUENCE if collect == "sequence" else helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    body.inputs.append(helper.make_value_info(held, kind))
    if collect == "sequence":
        start, more = net.op("SequenceConstruct", first), body.op("SequenceInsert", held, following)
    elif collect == "concat":
        start = net.op("Unsqueeze", first, net.ints(1))
        more = body.op("Concat", held, body.op("Unsqueeze", following, body.ints(1)), axis=1)
    else:
        nothing = net.op("Mul", net.op("Transpose", z, perm=[1, 0, 2]), net.const(np.zeros(())))
        at = net.const(np.zeros((1, 1), np.int64))
        start = net.op("ScatterND", nothing, at, net.op("Unsqueeze", first, net.ints(0)))
        at = body.op("Reshape", place, body.ints(1, 1))
        more = body.op("ScatterND", held, at, body.op("Unsqueeze", following, body.ints(0)))
    end = body.op("Identity", going)
    graph = body.subgraph([(end, None), (following, None), (more, None)], {end: TensorProto.BOOL})
    if collect == "sequence":
        graph.output[-1].CopyFrom(helper.make_value_info(more, SEQUENCE))
    trips = net.op("Sub", length_of(net, z), net.const(np.int64(1)))
    _, y = net.op("Loop", trips, net.const(np.asarray(True)), first, start, outputs=2, body=graph)
    if collect == "sequence":
        y = net.op("ConcatFromSequence", y, axis=1, new_axis=1)
    if collect == "scatter":
        y = net.op("Transpose", y, perm=[1, 0, 2])
    sizes = [(2, 12)] if length == 12 else [(2, 12), (3, 21)]
    model = lift(net, net.op("Relu", y), ["b", length, STATES], tmp_path, *sizes)
    assert set(kinds(model)) == {LINEAR}
    expected = -1 / np.log(decay())
    found = np.concatenate([np.ravel(system.time_constants) for system in model.systems])
    assert np.allclose(np.unique(found.round(6)), np.sort(expected), rtol=1e-5)
    on_targets(model, *sizes[0])


def growing(net: Net, start: str, length: int | str) -> str:
    """y = z[:, :0], h = z[:, 0] * 0, then y = cat([y, h]) at every step; nothing of the sequence is in either."""
    body = Net()
    z = drive_of(net, net.input(["b", length, INPUTS]))
    first = net.op("Gather", z, net.const(np.int64(0)), axis=1)
    zero = net.op("Sub", first, first) if start == "minus itself" else net.op("Mul", first, net.const(np.zeros(())))
    step, going = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL)
    state, held = body.input(None), body.input(None)
    following = stepped(body, z, step, state)
    more = body.op("Concat", held, body.op("Unsqueeze", following, body.ints(1)), axis=1)
    end = body.op("Identity", going)
    graph = body.subgraph([(end, None), (following, None), (more, None)], {end: TensorProto.BOOL})
    nothing = net.op("Slice", z, net.ints(0), net.ints(0), net.ints(1))
    nothing = net.op("Unsqueeze", zero, net.ints(1)) if start == "in front" else nothing
    _, y = net.op("Loop", length_of(net, z), net.const(np.asarray(True)), zero, nothing, outputs=2, body=graph)
    return str(net.op("Relu", y))


@pytest.mark.parametrize("start", ["times zero", "minus itself"])
@pytest.mark.parametrize("length", ["t", 12])
def test_steps_grow_from_an_empty_slice(tmp_path: Path, start: str, length: int | str) -> None:
    net = Net()
    sizes = [(2, 12)] if length == 12 else [(2, 12), (3, 21)]
    model = lift(net, growing(net, start, length), ["b", length, STATES], tmp_path, *sizes)
    assert kinds(model) == [LINEAR]
    assert not any("run through" in note for note in model.notes)
    on_targets(model, *sizes[0])


def test_steps_grow_from_the_first_state(tmp_path: Path) -> None:
    net = Net()
    y = net.op("Slice", growing(net, "in front", 12), net.ints(1), net.ints(13), net.ints(1))
    refused(save(net.model([(y, ["b", 12, STATES])]), tmp_path), "Loop", "let it start empty")


@pytest.mark.parametrize("length", ["t", 12])
def test_steps_inserted_in_front(tmp_path: Path, length: int | str) -> None:
    """b.insert(0, h): the other direction of a bidirectional layer, in the same loop."""
    net, body = Net(), Net()
    z = drive_of(net, net.input(["b", length, INPUTS]))
    step, going = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL)
    states, held = [body.input(None) for _ in range(2)], [body.fresh() for _ in range(2)]
    body.inputs += [helper.make_value_info(name, SEQUENCE) for name in held]
    last = body.op("Sub", length_of(body, z), body.const(np.int64(1)))
    ahead, behind = (
        stepped(body, z, place, state) for place, state in zip((step, body.op("Sub", last, step)), states, strict=True)
    )
    outside = net.const(np.int64(0))  # a constant of the graph around the body, as TorchScript leaves it
    more = [
        body.op("SequenceInsert", held[0], ahead),
        body.op("SequenceInsert", held[1], behind, outside),
    ]
    end = body.op("Identity", going)
    graph = body.subgraph([(end, None), *((v, None) for v in (ahead, behind, *more))], {end: TensorProto.BOOL})
    for info, name in zip(list(graph.output)[-2:], more, strict=True):
        info.CopyFrom(helper.make_value_info(name, SEQUENCE))
    zero = net.op("Mul", net.op("Gather", z, net.const(np.int64(0)), axis=1), net.const(np.zeros(())))
    starts = [zero, zero, net.op("SequenceEmpty"), net.op("SequenceEmpty")]
    found = net.op("Loop", length_of(net, z), net.const(np.asarray(True)), *starts, outputs=4, body=graph)
    both = [net.op("ConcatFromSequence", y, axis=1, new_axis=1) for y in found[2:]]
    y = net.op("Tanh", net.op("Concat", *both, axis=2))
    sizes = [(2, 12)] if length == 12 else [(2, 12), (3, 21)]
    model = lift(net, y, ["b", length, 2 * STATES], tmp_path, *sizes)
    assert sorted(system.reverse for system in model.systems) == [False, True]
    on_targets(model, *sizes[0])


def test_difference_equation_without_zeros_before_it(tmp_path: Path) -> None:
    """y_t = b u_t + c u_{t-1} - a_1 y_{t-1} - a_2 y_{t-2}, written out; none for steps before the first."""
    net, steps = Net(), 14
    x = net.input([2, steps, INPUTS])
    gains = [net.const(RNG.standard_normal(INPUTS)) for _ in range(2)]
    past = [net.const(np.full(INPUTS, -1.2)), net.const(np.full(INPUTS, 0.5))]
    u = [net.op("Gather", x, net.const(np.int64(t)), axis=1) for t in range(steps)]
    y: list[str] = []
    for t in range(steps):
        here = net.op("Mul", gains[0], u[t])
        if t:
            here = net.op("Add", here, net.op("Mul", gains[1], u[t - 1]))
        for k in range(min(t, 2)):
            here = net.op("Sub", here, net.op("Mul", past[k], y[t - k - 1]))
        y.append(here)
    joined = net.op("Concat", *(net.op("Unsqueeze", v, net.ints(1)) for v in y), axis=1)
    model = lift(net, net.op("Tanh", joined), [2, steps, INPUTS], tmp_path, (2, steps))
    assert kinds(model) == [LINEAR]
    found = model.systems[0]
    assert found.time_constants is not None and found.frequencies is not None
    pole = np.roots([1, -1.2, 0.5])[0]
    assert np.allclose(found.time_constants, -1 / np.log(np.abs(pole)), rtol=1e-4)
    assert np.allclose(np.abs(found.frequencies), np.abs(np.angle(pole)) / (2 * np.pi), rtol=1e-4)
    on_targets(model, 2, steps)


def test_step_with_as_many_samples_as_layers(tmp_path: Path) -> None:
    """States (2 layers, 2 samples, states), and a step for each sample, (2,): the batch is the second axis of one, the
    first of the other."""
    net, samples = Net(), 2
    u, dt = net.input([samples, INPUTS]), net.input([samples])
    state, total = net.input([2, samples, STATES]), net.input([samples, 1])
    held, signal = [], u
    for layer in range(2):
        a = net.op("Exp", net.op("Mul", net.op("Unsqueeze", dt, net.ints(1)), net.const(np.log(decay()))))
        before = net.op("Gather", state, net.const(np.int64(layer)), axis=0)
        width = INPUTS if layer == 0 else STATES
        driven = net.op("MatMul", signal, net.const(RNG.standard_normal((width, STATES))))
        after = net.op("Add", net.op("Mul", a, before), driven)
        held.append(net.op("Unsqueeze", after, net.ints(0)))
        signal = net.op("Tanh", after)
    count = net.op("Add", total, net.const(np.ones(())))
    y = net.op("Div", signal, count)
    following = net.op("Concat", *held, axis=0)
    outputs = [(y, [samples, STATES]), (following, [2, samples, STATES]), (count, [samples, 1])]
    model = load_model(save(net.model(outputs), tmp_path))
    assert model.states == {state: following, total: count}
    assert kinds(model).count("asynchronous") == 2
    arrays = {
        u: RNG.standard_normal((samples, 9, INPUTS)).astype(np.float32),
        dt: RNG.uniform(0.1, 1.0, (samples, 9)).astype(np.float32),
    }
    expected = reference(model, arrays)[y]
    for target in ("cim", "epochcore"):
        found = compile_model(model, target, ideal=True).run(arrays).outputs[y]
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
