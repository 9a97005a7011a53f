"""Loops within the steps of a loop over time: layers, substeps, steps of a chunk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.frontend import load_model
from tests.frontend.blocks import RNG
from tests.frontend.checks import on_targets, refused
from tests.frontend.net import Net, save

WIDTH, LAYERS, CHUNK = 3, 2, 4
DECAYS = np.array([[0.5, 0.7, 0.9], [0.95, 0.8, 0.6]])
MATRICES = RNG.standard_normal((LAYERS, WIDTH, WIDTH)) / 2


def layered_scan(net: Net, states: str, u: str) -> tuple[str, str]:
    """h_l <- a_l h_l + tanh(W_l y_{l-1}), a Scan over the layers of states (layers, b, f): states and the last y."""
    body = Net()
    y, h, a, w = (body.input(d) for d in (["b", WIDTH], ["b", WIDTH], [WIDTH], [WIDTH, WIDTH]))
    new = body.op("Add", body.op("Mul", a, h), body.op("Tanh", body.op("MatMul", y, w)))
    graph = body.subgraph([(body.op("Identity", new), ["b", WIDTH]), (new, ["b", WIDTH])])
    y, following = net.op(
        "Scan", u, states, net.const(DECAYS), net.const(MATRICES), outputs=2, body=graph, num_scan_inputs=3
    )
    return following, y


def layered_loop(net: Net, states: str, u: str) -> tuple[str, str]:
    """The same as a Loop that picks layers by their number."""
    body = Net()
    layer, going, y = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL), body.input(["b", WIDTH])
    h, a, w = (body.op("Gather", v, layer, axis=0) for v in (states, body.const(DECAYS), body.const(MATRICES)))
    new = body.op("Add", body.op("Mul", a, h), body.op("Tanh", body.op("MatMul", y, w)))
    on = body.op("Identity", going)
    outputs = [(on, []), (body.op("Identity", new), ["b", WIDTH]), (new, ["b", WIDTH])]
    graph = body.subgraph(outputs, {on: TensorProto.BOOL})
    y, following = net.op("Loop", net.const(np.int64(LAYERS)), "", u, outputs=2, body=graph)
    return following, y


def zeros(net: Net, x: str) -> str:
    """(layers, b, f)"""
    sizes = net.op("Concat", net.ints(LAYERS), net.op("Shape", x, end=1), net.ints(WIDTH), axis=0)
    return str(net.op("ConstantOfShape", sizes))


def over_time_scan(net: Net, x: str, step: Callable[[Net, str, str], tuple[str, str]]) -> tuple[str, str]:
    body = Net()
    dims = [LAYERS, "b", WIDTH]
    states, u = body.input(dims), body.input(["b", WIDTH])
    following, y = step(body, states, u)
    graph = body.subgraph([(following, dims), (y, ["b", WIDTH])])
    axes = {"num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [1]}
    last, ys = net.op("Scan", zeros(net, x), x, outputs=2, body=graph, **axes)
    return last, ys


def over_time_loop(net: Net, x: str, step: Callable[[Net, str, str], tuple[str, str]]) -> tuple[str, str]:
    body = Net()
    dims = [LAYERS, "b", WIDTH]
    k, going, states = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL), body.input(dims)
    following, y = step(body, states, body.op("Gather", x, k, axis=1))
    on = body.op("Identity", going)
    graph = body.subgraph([(on, []), (following, dims), (y, ["b", WIDTH])], {on: TensorProto.BOOL})
    count = net.op("Squeeze", net.op("Shape", x, start=1, end=2), net.ints(0))
    last, stacked = net.op("Loop", count, "", zeros(net, x), outputs=2, body=graph)
    return last, net.op("Transpose", stacked, perm=[1, 0, 2])


@pytest.mark.parametrize("outer", [over_time_scan, over_time_loop])
@pytest.mark.parametrize("inner", [layered_scan, layered_loop])
def test_layers_inside_of_time(
    tmp_path: Path, outer: Callable[..., tuple[str, str]], inner: Callable[..., tuple[str, str]]
) -> None:
    net = Net()
    last, y = outer(net, net.input(["b", "t", WIDTH]), inner)
    z = net.op("Transpose", last, perm=[1, 0, 2])
    model = load_model(save(net.model([(y, ["b", "t", WIDTH]), (z, ["b", LAYERS, WIDTH])]), tmp_path))
    assert len(model.systems) == LAYERS
    for batch, length in ((2, 9), (1, 17)):
        on_targets(model, batch, length)


def test_a_loop_over_all_steps_in_each(tmp_path: Path) -> None:
    """A sum of the whole sequence, added up anew in every step."""
    net, body, every = Net(), Net(), Net()
    x = net.input(["b", "t", WIDTH])
    total, v = every.input(["b", WIDTH]), every.input(["b", WIDTH])
    more = every.op("Add", every.op("Mul", total, every.const(DECAYS[0])), v)
    graph = every.subgraph([(more, ["b", WIDTH])])
    h, u = body.input(["b", WIDTH]), body.input(["b", WIDTH])
    summed = body.op("Scan", u, x, body=graph, num_scan_inputs=1, scan_input_axes=[1])
    new = body.op("Add", body.op("Mul", h, body.const(DECAYS[1])), body.op("Mul", summed, u))
    graph = body.subgraph([(new, ["b", WIDTH]), (body.op("Identity", new), ["b", WIDTH])])
    zero = net.op("ConstantOfShape", net.op("Concat", net.op("Shape", x, end=1), net.ints(WIDTH), axis=0))
    axes = {"num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [1]}
    y = net.op("Scan", zero, x, outputs=2, body=graph, **axes)[1]
    refused(save(net.model([(y, ["b", "t", WIDTH])]), tmp_path), "the whole sequence within each step")


def test_substeps(tmp_path: Path) -> None:
    """Three small steps of a rotation for each one: one dense matrix."""
    net, body, small = Net(), Net(), Net()
    x = net.input(["b", "t", WIDTH])
    h, u = body.input(["b", WIDTH]), body.input(["b", WIDTH])
    small.input([], TensorProto.INT64)
    going, now = small.input([], TensorProto.BOOL), small.input(["b", WIDTH])
    turned = small.op("MatMul", now, small.const(0.98 * np.linalg.qr(MATRICES[0])[0]))
    more, on = small.op("Add", turned, small.op("Mul", u, small.const(np.float32(0.1)))), small.op("Identity", going)
    graph = small.subgraph([(on, []), (more, ["b", WIDTH])], {on: TensorProto.BOOL})
    new = body.op("Loop", body.const(np.int64(3)), "", h, body=graph)
    graph = body.subgraph([(new, ["b", WIDTH]), (body.op("Identity", new), ["b", WIDTH])])
    zero = net.op("ConstantOfShape", net.op("Concat", net.op("Shape", x, end=1), net.ints(WIDTH), axis=0))
    axes = {"num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [1]}
    y = net.op("Scan", zero, x, outputs=2, body=graph, **axes)[1]
    model = load_model(save(net.model([(net.op("Tanh", y), ["b", "t", WIDTH])]), tmp_path))
    assert [s.kind for s in model.systems] == ["linear time-invariant"]
    for batch, length in ((2, 9), (1, 17)):
        on_targets(model, batch, length)


@pytest.mark.parametrize("chunks", [6, "c"])
def test_steps_inside_of_chunks(tmp_path: Path, chunks: int | str) -> None:
    """A Scan over chunks (c, b, l, f), each a Scan over its steps."""
    net, body, step = Net(), Net(), Net()
    x = net.input(["b", 24 if isinstance(chunks, int) else "t", WIDTH])
    h, u = step.input(["b", WIDTH]), step.input(["b", WIDTH])
    new = step.op("Add", step.op("Mul", h, step.const(DECAYS[0])), u)
    graph = step.subgraph([(step.op("Identity", new), ["b", WIDTH]), (new, ["b", WIDTH])])
    state, part = body.input(["b", WIDTH]), body.input(["b", CHUNK, WIDTH])
    axes = {"num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [1]}
    following, ys = body.op("Scan", state, part, outputs=2, body=graph, **axes)
    graph = body.subgraph([(following, ["b", WIDTH]), (ys, ["b", CHUNK, WIDTH])])
    cut = net.op("Reshape", x, net.ints(0, -1, CHUNK, WIDTH))
    zero = net.op("ConstantOfShape", net.op("Concat", net.op("Shape", x, end=1), net.ints(WIDTH), axis=0))
    y = net.op("Reshape", net.op("Scan", zero, cut, outputs=2, body=graph, **axes)[1], net.ints(0, -1, WIDTH))
    y = net.op("Tanh", net.op("MatMul", y, net.const(MATRICES[0])))
    model = load_model(save(net.model([(y, ["b", 24 if isinstance(chunks, int) else "t", WIDTH])]), tmp_path))
    on_targets(model, 2, 24)
