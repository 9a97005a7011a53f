"""Layers in a loop: `jax.lax.scan` over stacked weights, around the scan over time of each layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.frontend import load_model
from tests.frontend.blocks import RNG
from tests.frontend.checks import LINEAR, kinds, lift, on_targets
from tests.frontend.net import Net, save

WIDTH, LAYERS = 3, 3


def _layer(body: Net, x: str, decay: str, weight: str) -> str:
    """gelu(scan(x) W) + x, of (batch, time, WIDTH)."""
    step = Net()
    h, u = step.input(["b", WIDTH]), step.input(["b", WIDTH])
    new = step.op("Add", step.op("Mul", h, decay), u)
    inner = step.subgraph([(new, ["b", WIDTH]), (step.op("Identity", new), ["b", WIDTH])])
    first = body.op("Mul", body.op("ReduceSum", x, body.ints(1), keepdims=0), body.const(np.float32(0.0)))
    _, states = body.op("Scan", first, x, outputs=2, body=inner, num_scan_inputs=1, scan_input_axes=[1])
    mixed = body.op("MatMul", body.op("Transpose", states, perm=[1, 0, 2]), weight)
    return str(body.op("Add", body.op("Gelu", mixed), x))


@pytest.mark.parametrize("outer", ["Loop", "Scan"])
@pytest.mark.parametrize("length", ["t", 8])
def test_stacked_layers_are_lifted_one_by_one(tmp_path: Path, outer: str, length: str | int) -> None:
    net, body, dims = Net(), Net(), ["b", length, WIDTH]
    decays = net.const(RNG.uniform(0.3, 0.9, (LAYERS, WIDTH)))
    weights = net.const(RNG.standard_normal((LAYERS, WIDTH, WIDTH)) / WIDTH)
    x = net.input(dims)
    if outer == "Loop":
        trip, going = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL)
        carried = body.input(dims)
        picked = [body.op("Gather", table, trip, axis=0) for table in (decays, weights)]
        y = _layer(body, carried, picked[0], picked[1])
        still = body.op("Identity", going)
        graph = body.subgraph([(still, []), (y, dims)], {still: TensorProto.BOOL})
        last = net.op("Loop", net.const(np.int64(LAYERS)), net.const(np.asarray(True)), x, body=graph)
    else:
        carried = body.input(dims)
        own = [body.input([WIDTH]), body.input([WIDTH, WIDTH])]
        graph = body.subgraph([(_layer(body, carried, *own), dims)])
        last = net.op("Scan", x, decays, weights, body=graph, num_scan_inputs=2)
    sizes = [(2, 8), (3, 8)] if length == 8 else [(2, 24), (1, 7)]
    model = lift(net, last, dims, tmp_path, *sizes)
    assert kinds(model) == [LINEAR] * LAYERS
    on_targets(model, 2, 8)


@pytest.mark.parametrize("inner", ["Loop", "Scan"])
def test_a_loop_within_a_step_is_its_trips(tmp_path: Path, inner: str) -> None:
    """The input of a one-step model goes through stacked matrices: what feeds the state has no loop any more."""
    net, body, dims = Net(), Net(), ["b", WIDTH]
    weights = net.const(RNG.standard_normal((LAYERS, WIDTH, WIDTH)) / WIDTH)
    x, state = net.input(dims), net.input(dims)
    if inner == "Loop":
        trip, going = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL)
        y = body.op("Tanh", body.op("MatMul", body.input(dims), body.op("Gather", weights, trip, axis=0)))
        still = body.op("Identity", going)
        graph = body.subgraph([(still, []), (y, dims)], {still: TensorProto.BOOL})
        u = net.op("Loop", net.const(np.int64(LAYERS)), net.const(np.asarray(True)), x, body=graph)
    else:
        h, weight = body.input(dims), body.input([WIDTH, WIDTH])
        graph = body.subgraph([(body.op("Tanh", body.op("MatMul", h, weight)), dims)])
        u = net.op("Scan", x, weights, body=graph, num_scan_inputs=1)
    new = net.op("Add", net.op("Mul", state, net.const(np.linspace(0.5, 0.9, WIDTH))), u)
    model = load_model(save(net.model([(net.op("Tanh", new), dims), (new, dims)]), tmp_path))
    assert model.form == "step" and len(model.states) == len(model.systems) == 1
