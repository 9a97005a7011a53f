"""Loops over chunks of steps: a product inside a chunk, a state handed on from chunk to chunk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from ssmc.frontend import load_model
from tests.frontend.blocks import RNG
from tests.frontend.checks import LINEAR, kinds, lift, on_targets, refused
from tests.frontend.net import Net, save

WIDTH, CHUNK, DECAY = 3, 4, 0.8
LAGS = np.arange(CHUNK)[:, None] - np.arange(CHUNK)


def streams(net: Net, dims: list[int | str], inputs: int = 4) -> list[str]:
    """Queries, keys and values of one input."""
    x = net.input(dims)
    return [net.op("MatMul", x, net.const(RNG.standard_normal((inputs, WIDTH)))) for _ in range(3)]


def chunk_of(net: Net, q: str, k: str, v: str, state: str) -> tuple[str, str]:
    """Retention inside a chunk: its results, and the state after it (RetNet, arXiv 2307.08621, equation 7)."""
    mask = net.const(np.where(LAGS >= 0, DECAY ** np.maximum(LAGS, 0), 0.0))
    up = net.const(DECAY ** (np.arange(CHUNK) + 1.0)[:, None])
    down = net.const(DECAY ** (CHUNK - 1.0 - np.arange(CHUNK))[:, None])
    scores = net.op("Mul", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), mask)
    inside = net.op("MatMul", scores, v)
    before = net.op("MatMul", net.op("Mul", q, up), state)
    written = net.op("MatMul", net.op("Transpose", net.op("Mul", k, down), perm=[0, 2, 1]), v)
    faded = net.op("Mul", state, net.const(np.asarray(DECAY**CHUNK)))
    return net.op("Add", inside, before), net.op("Add", faded, written)


@pytest.mark.parametrize("buffered", [False, True])
def test_retention_in_unrolled_chunks(tmp_path: Path, buffered: bool) -> None:
    length, net = 24, Net()
    windows = net.ints(2, length // CHUNK, CHUNK, WIDTH)
    parts = [net.op("Reshape", x, windows) for x in streams(net, [2, length, 4])]
    state, outs = net.const(np.zeros((2, WIDTH, WIDTH))), []
    for c in range(length // CHUNK):
        y, state = chunk_of(net, *(net.op("Gather", x, net.const(np.int64(c)), axis=1) for x in parts), state)
        outs.append(net.op("Unsqueeze", y, net.ints(1)) if buffered else y)
    joined = net.op("Concat", *outs, axis=1)
    y = net.op("Reshape", joined, net.ints(2, length, WIDTH)) if buffered else joined
    model = lift(net, y, [2, length, WIDTH], tmp_path)
    assert kinds(model) == [LINEAR]
    assert model.systems[0].time_constants.max() == pytest.approx(-1 / np.log(DECAY), rel=1e-5)
    on_targets(model, 2, length)


def scan_body(net: Net) -> onnx.GraphProto:
    body = Net()
    s, q, k, v = (body.input(None) for _ in range(4))
    y, state = chunk_of(body, q, k, v, s)
    return body.subgraph([(state, None), (y, None)])


@pytest.mark.parametrize("batch", [2, "n"])
def test_a_scan_over_chunks(tmp_path: Path, batch: int | str) -> None:
    """Of any length: what is studied must be a whole number of chunks."""
    net = Net()
    parts = [
        net.op("Transpose", net.op("Reshape", x, net.ints(0, -1, CHUNK, WIDTH)), perm=[1, 0, 2, 3])
        for x in streams(net, [batch, "l", 4])
    ]
    rows = net.op("Gather", net.op("Shape", parts[0]), net.ints(1))
    shape = net.op("Concat", rows, net.ints(WIDTH, WIDTH), axis=0)
    _, y = net.op("Scan", net.op("ConstantOfShape", shape), *parts, body=scan_body(net), num_scan_inputs=3, outputs=2)
    y = net.op("Reshape", net.op("Transpose", y, perm=[1, 0, 2, 3]), net.ints(0, -1, WIDTH))
    model = lift(net, y, [batch, "l", WIDTH], tmp_path, (2, 24), (2, 64))
    assert kinds(model) == [LINEAR] and model.systems[0].disguise == "loop over chunks"
    on_targets(model, 2, 32)


def test_a_loop_that_slices_its_chunks(tmp_path: Path) -> None:
    """As scripted loops come: L // C trips, slices by the number of the trip, a sequence of results."""
    net = Net()
    q, k, v = streams(net, ["n", "l", 4])
    sizes = net.op("Shape", q)
    trips = net.op("Div", net.op("Gather", sizes, net.const(np.int64(1))), net.const(np.int64(CHUNK)))
    shape = net.op("Concat", net.op("Gather", sizes, net.ints(0)), net.ints(WIDTH, WIDTH), axis=0)
    body = Net()
    trip, going = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL)
    state, pieces = body.input(None), body.fresh()
    start = body.op("Mul", body.op("Unsqueeze", trip, body.ints(0)), body.ints(CHUNK))
    stop = body.op("Add", start, body.ints(CHUNK))
    y, after = chunk_of(body, *(body.op("Slice", x, start, stop, body.ints(1)) for x in (q, k, v)), state)
    grown, on = body.op("SequenceInsert", pieces, y), body.op("Identity", going)
    graph = body.subgraph([(on, []), (after, None)], {on: TensorProto.BOOL})
    tensors = onnx.helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    kind = onnx.helper.make_sequence_type_proto(tensors)
    graph.input.append(onnx.helper.make_value_info(pieces, kind))
    graph.output.append(onnx.helper.make_value_info(grown, kind))
    start_state = net.op("ConstantOfShape", shape)
    _, y = net.op(
        "Loop", trips, net.const(np.asarray(True)), start_state, net.op("SequenceEmpty"), body=graph, outputs=2
    )
    y = net.op("ConcatFromSequence", y, axis=1)
    model = lift(net, y, ["n", "l", WIDTH], tmp_path, (2, 24), (3, 64))
    assert kinds(model) == [LINEAR]
    on_targets(model, 2, 32)


def test_a_decay_that_depends_on_the_data(tmp_path: Path) -> None:
    """Mamba-2's states of chunks, handed on by a loop, the decay negated after it was laid out in chunks."""
    length, net = 24, Net()
    count = length // CHUNK
    x = net.input([2, length, 4])
    windows = net.ints(2, count, CHUNK, WIDTH)
    q, k, v = (
        net.op("Reshape", net.op("MatMul", x, net.const(RNG.standard_normal((4, WIDTH)))), windows) for _ in range(3)
    )
    step = net.op("Softplus", net.op("MatMul", x, net.const(RNG.standard_normal((4, 1)) * 0.3)))
    logs = net.op("CumSum", net.op("Neg", net.op("Reshape", step, net.ints(2, count, CHUNK))), net.const(np.int64(2)))
    column, row = net.op("Unsqueeze", logs, net.ints(3)), net.op("Unsqueeze", logs, net.ints(2))
    apart = net.op("Where", net.const(LAGS >= 0), net.op("Sub", column, row), net.const(np.float32(-1e9)))
    scores = net.op("Mul", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2])), net.op("Exp", apart))
    inside = net.op("MatMul", scores, v)
    last = net.op("Slice", column, net.ints(-1), net.ints(CHUNK), net.ints(2))
    left = net.op("Mul", k, net.op("Exp", net.op("Sub", last, column)))
    written = net.op("MatMul", net.op("Transpose", left, perm=[0, 1, 3, 2]), v)
    decays = net.op("Exp", last)
    state, states = net.const(np.zeros((2, WIDTH, WIDTH))), []
    for c in range(count):
        states.append(net.op("Unsqueeze", state, net.ints(1)))
        decay, new = (net.op("Gather", a, net.const(np.int64(c)), axis=1) for a in (decays, written))
        state = net.op("Add", net.op("Mul", state, decay), new)
    before = net.op("MatMul", net.op("Mul", q, net.op("Exp", column)), net.op("Concat", *states, axis=1))
    y = net.op("Reshape", net.op("Add", inside, before), net.ints(2, length, WIDTH))
    model = lift(net, y, [2, length, WIDTH], tmp_path)
    assert kinds(model) == ["selective"]
    on_targets(model, 2, length)


def test_chunks_that_were_fixed_when_traced(tmp_path: Path) -> None:
    net = Net()
    parts = streams(net, [2, "l", 4])
    state, outs = net.const(np.zeros((2, WIDTH, WIDTH))), []
    for c in range(4):
        bounds = net.ints(c * CHUNK), net.ints((c + 1) * CHUNK), net.ints(1)
        y, state = chunk_of(net, *(net.op("Slice", x, *bounds) for x in parts), state)
        outs.append(y)
    path = save(net.model([(net.op("Concat", *outs, axis=1), [2, "l", WIDTH])]), tmp_path)
    refused(path, "it holds the length 16, which the file declares dynamic")


def test_chunks_that_leave_out_what_comes_after_them(tmp_path: Path) -> None:
    net = Net()
    x = net.op("MatMul", net.input([2, "l", 4]), net.const(RNG.standard_normal((4, WIDTH))))
    state, outs = net.const(np.zeros((2, 1, WIDTH))), []
    for c in range(4):
        part = net.op("Slice", x, net.ints(c * CHUNK), net.ints((c + 1) * CHUNK), net.ints(1))
        outs.append(net.op("Add", part, state))
        state = net.op("Add", state, net.op("ReduceSum", part, net.ints(1), keepdims=1))
    path = save(net.model([(net.op("Concat", *outs, axis=1), [2, "l", WIDTH])]), tmp_path)
    refused(path, "the first of 4 chunks of 4 steps that the file takes one by one")


def test_a_loop_over_chunks_that_is_not_linear(tmp_path: Path) -> None:
    """Its own reason is told."""
    length, net = 24, Net()
    x = net.op("MatMul", net.input([2, length, 4]), net.const(RNG.standard_normal((4, WIDTH))))
    windows = net.op("Transpose", net.op("Reshape", x, net.ints(2, -1, CHUNK, WIDTH)), perm=[1, 0, 2, 3])
    body = Net()
    state, chunk = body.input(None), body.input(None)
    new = body.op("Tanh", body.op("Add", state, chunk))
    graph = body.subgraph([(new, None), (body.op("Identity", new), None)])
    start = net.const(np.zeros((2, CHUNK, WIDTH)))
    _, y = net.op("Scan", start, windows, body=graph, num_scan_inputs=1, outputs=2)
    y = net.op("Reshape", net.op("Transpose", y, perm=[1, 0, 2, 3]), net.ints(2, length, WIDTH))
    path = save(net.model([(y, [2, length, WIDTH])]), tmp_path)
    refused(path, "the next state is not a linear function of the state", "Tanh")
    assert load_model(path, strict=False).unsupported


@pytest.mark.parametrize("inside", [False, True])
def test_chunks_divided_by_their_normaliser(tmp_path: Path, inside: bool) -> None:
    """RetNet's max(|sum|, 1) in every trip of an unrolled loop; feature maps before it, or in every trip too."""
    length, width, net = 24, WIDTH, Net()
    q, k, v = streams(net, [2, length, 4])
    if not inside:
        q, k = (net.op("Softplus", x) for x in (q, k))
    state, sums, outs = net.const(np.zeros((2, width, width))), net.const(np.zeros((2, width, 1))), []
    for c in range(length // CHUNK):
        bounds = net.ints(c * CHUNK), net.ints((c + 1) * CHUNK), net.ints(1)
        parts = [net.op("Slice", x, *bounds) for x in (q, k, v)]
        if inside:
            parts[:2] = [net.op("Softplus", x) for x in parts[:2]]
        y, state = chunk_of(net, *parts, state)
        total, sums = chunk_of(net, *parts[:2], net.const(np.ones((2, CHUNK, 1))), sums)
        divisor = net.op("Max", net.op("Abs", total), net.const(np.float32(1.0)))
        outs.append(net.op("Div", y, divisor))
    model = lift(net, net.op("Concat", *outs, axis=1), [2, length, width], tmp_path)
    assert len(model.systems) == 2
    on_targets(model, 2, length)
