"""Whole layers inside a loop over chunks: projections, norms, gates, residuals; chunks joined in many ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmc.frontend.loops.moves import layout_of
from tests.frontend.blocks import RNG
from tests.frontend.checks import LINEAR, kinds, lift, on_targets
from tests.frontend.net import Net

INPUTS, WIDTH, CHUNK, LENGTH, BATCH = 5, 4, 4, 24, 2
COUNT = LENGTH // CHUNK
LAGS = np.arange(CHUNK)[:, None] - np.arange(CHUNK)
KEPT = np.where(LAGS >= 0, 1.0, 0.0)


def matrix(net: Net, inputs: int, outputs: int) -> str:
    return net.const(RNG.standard_normal((inputs, outputs)) / np.sqrt(inputs))


class Layer:
    """Weights, and what a trip of the loop does to a chunk."""

    def __init__(self, net: Net, inputs: int = INPUTS) -> None:
        self.weights = {name: matrix(net, inputs, WIDTH) for name in ("q", "k", "v", "gate")}
        self.out, self.scale = matrix(net, WIDTH, inputs), net.const(RNG.uniform(0.5, 1.5, WIDTH))

    def normed(self, net: Net, y: str) -> str:
        """A root-mean-square norm, as exporters take it apart."""
        mean = net.op("ReduceMean", net.op("Pow", y, net.const(np.float32(2.0))), axes=[-1], keepdims=1)
        root = net.op("Sqrt", net.op("Add", mean, net.const(np.float32(1e-5))))
        return str(net.op("Mul", net.op("Mul", y, net.op("Reciprocal", root)), self.scale))

    def finish(self, net: Net, chunk: str, y: str) -> str:
        """Norm, gate, projection, residual."""
        gate = net.op("MatMul", chunk, self.weights["gate"])
        gated = net.op("Mul", self.normed(net, y), net.op("Mul", gate, net.op("Sigmoid", gate)))
        return str(net.op("Add", net.op("MatMul", gated, self.out), chunk))

    def retention(self, net: Net, chunk: str, states: Sequence[str]) -> tuple[str, tuple[str, ...]]:
        decay = 0.8
        q, k, v = (net.op("MatMul", chunk, self.weights[name]) for name in "qkv")
        mask = net.const(np.where(LAGS >= 0, decay ** np.maximum(LAGS, 0), 0.0))
        up = net.const(decay ** (np.arange(CHUNK) + 1.0)[:, None])
        down = net.const(decay ** (CHUNK - 1.0 - np.arange(CHUNK))[:, None])
        scores = net.op("Mul", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), mask)
        y = net.op("Add", net.op("MatMul", scores, v), net.op("MatMul", net.op("Mul", q, up), states[0]))
        new = net.op("MatMul", net.op("Transpose", net.op("Mul", k, down), perm=[0, 2, 1]), v)
        state = net.op("Add", net.op("Mul", states[0], net.const(np.asarray(decay**CHUNK))), new)
        return self.finish(net, chunk, str(y)), (str(state),)

    def normalised(self, net: Net, chunk: str, states: Sequence[str]) -> tuple[str, tuple[str, ...]]:
        """Linear attention, divided by the sum of its weights."""
        q, k = (net.op("Softplus", net.op("MatMul", chunk, self.weights[name])) for name in "qk")
        v, turned = net.op("MatMul", chunk, self.weights["v"]), net.op("Transpose", k, perm=[0, 2, 1])
        scores = net.op("Mul", net.op("MatMul", q, turned), net.const(KEPT))
        top = net.op("Add", net.op("MatMul", scores, v), net.op("MatMul", q, states[0]))
        own = net.op("ReduceSum", scores, net.ints(2), keepdims=1)
        below = net.op("Add", own, net.op("ReduceSum", net.op("Mul", q, states[1]), net.ints(2), keepdims=1))
        y = net.op("Div", top, net.op("Add", below, net.const(np.float32(1e-6))))
        state = net.op("Add", states[0], net.op("MatMul", turned, v))
        sums = net.op("Add", states[1], net.op("ReduceSum", k, net.ints(1), keepdims=1))
        return self.finish(net, chunk, str(y)), (str(state), str(sums))

    def selective(self, net: Net, chunk: str, states: Sequence[str]) -> tuple[str, tuple[str, ...]]:
        """Gated linear attention, its decays summed in the chunk (arXiv 2312.06635, section 4)."""
        q, k, v = (net.op("MatMul", chunk, self.weights[name]) for name in "qkv")
        logs = net.op("Neg", net.op("Softplus", net.op("MatMul", chunk, self.weights["gate"])))
        sums = net.op("CumSum", logs, net.const(np.int64(1)))
        last = net.op("Slice", sums, net.ints(-1), net.ints(CHUNK), net.ints(1))
        left = net.op("Mul", q, net.op("Exp", sums))
        right = net.op("Mul", k, net.op("Exp", net.op("Neg", sums)))
        scores = net.op("Mul", net.op("MatMul", left, net.op("Transpose", right, perm=[0, 2, 1])), net.const(KEPT))
        y = net.op("Add", net.op("MatMul", scores, v), net.op("MatMul", left, states[0]))
        kept = net.op("Mul", k, net.op("Exp", net.op("Sub", last, sums)))
        new = net.op("MatMul", net.op("Transpose", kept, perm=[0, 2, 1]), v)
        faded = net.op("Mul", states[0], net.op("Transpose", net.op("Exp", last), perm=[0, 2, 1]))
        return self.finish(net, chunk, str(y)), (str(net.op("Add", faded, new)),)


def sliced(net: Net, x: str) -> list[str]:
    bounds = pairwise(range(0, LENGTH + 1, CHUNK))
    return [str(net.op("Slice", x, net.ints(a), net.ints(b), net.ints(1))) for a, b in bounds]


def picked(net: Net, x: str) -> list[str]:
    windows = net.op("Reshape", x, net.ints(BATCH, COUNT, CHUNK, INPUTS))
    return [str(net.op("Gather", windows, net.const(np.int64(c)), axis=1)) for c in range(COUNT)]


def stacked(net: Net, parts: Sequence[str]) -> str:
    rows = net.op("Concat", *(net.op("Unsqueeze", y, net.ints(1)) for y in parts), axis=1)
    return str(net.op("Reshape", rows, net.ints(BATCH, LENGTH, INPUTS)))


def turned(net: Net, parts: Sequence[str]) -> str:
    """Stacked in front, and brought back."""
    rows = net.op("Concat", *(net.op("Unsqueeze", y, net.ints(0)) for y in parts), axis=0)
    return str(net.op("Reshape", net.op("Transpose", rows, perm=[1, 0, 2, 3]), net.ints(BATCH, LENGTH, INPUTS)))


def written(net: Net, parts: Sequence[str]) -> str:
    """Into a tensor of zeros, chunk by chunk."""
    y = net.const(np.zeros((LENGTH, BATCH, INPUTS)))
    for c, part in enumerate(parts):
        places = net.const(np.arange(c * CHUNK, (c + 1) * CHUNK, dtype=np.int64)[:, None])
        y = net.op("ScatterND", y, places, net.op("Transpose", part, perm=[1, 0, 2]))
    return str(net.op("Transpose", y, perm=[1, 0, 2]))


@pytest.mark.parametrize(
    ("taken", "put"), [(sliced, turned), (picked, written)], ids=["sliced and turned", "picked and written"]
)
def test_a_layer_in_every_trip(
    tmp_path: Path, taken: Callable[[Net, str], list[str]], put: Callable[[Net, Sequence[str]], str]
) -> None:
    net = Net()
    layer, x = Layer(net), net.input([BATCH, LENGTH, INPUTS])
    states, outs = (net.const(np.zeros((BATCH, WIDTH, WIDTH))),), []
    for chunk in taken(net, x):
        y, states = layer.retention(net, chunk, states)
        outs.append(y)
    model = lift(net, put(net, outs), [BATCH, LENGTH, INPUTS], tmp_path)
    assert kinds(model) == [LINEAR] and model.systems[0].disguise == "loop over chunks"
    on_targets(model, BATCH, LENGTH)


def test_decays_of_the_data_in_every_trip(tmp_path: Path) -> None:
    net = Net()
    layer, x = Layer(net), net.input([BATCH, LENGTH, INPUTS])
    states, outs = (net.const(np.zeros((BATCH, WIDTH, WIDTH))),), []
    for chunk in picked(net, x):
        y, states = layer.selective(net, chunk, states)
        outs.append(y)
    model = lift(net, stacked(net, outs), [BATCH, LENGTH, INPUTS], tmp_path)
    assert kinds(model) == ["selective"]
    on_targets(model, BATCH, LENGTH)


def test_a_scan_whose_body_is_a_layer(tmp_path: Path) -> None:
    """Of any length, divided by its normaliser inside."""
    net = Net()
    x = net.input(["n", "l", INPUTS])
    windows = net.op("Transpose", net.op("Reshape", x, net.ints(0, -1, CHUNK, INPUTS)), perm=[1, 0, 2, 3])
    body = Net()
    layer, inner = Layer(body), [body.input(None) for _ in range(3)]
    y, after = layer.normalised(body, inner[2], inner[:2])
    rows = net.op("Gather", net.op("Shape", windows), net.ints(1))
    starts = [net.op("ConstantOfShape", net.op("Concat", rows, net.ints(size, WIDTH), axis=0)) for size in (WIDTH, 1)]
    graph = body.subgraph([(name, None) for name in (*after, y)])
    *_, y = net.op("Scan", *starts, windows, body=graph, num_scan_inputs=1, outputs=3)
    y = net.op("Reshape", net.op("Transpose", y, perm=[1, 0, 2, 3]), net.ints(0, -1, INPUTS))
    model = lift(net, y, ["n", "l", INPUTS], tmp_path, (2, 24), (3, 64))
    assert kinds(model) == [LINEAR, LINEAR]
    on_targets(model, 2, 32)


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=5).flatmap(
        lambda d: st.tuples(st.just(d), st.permutations(range(len(d))))
    )
)
def test_a_layout_is_told_by_its_places(case: tuple[list[int], list[int]]) -> None:
    sizes, order = case
    places = np.arange(np.prod(sizes)).reshape(sizes).transpose(order)
    for shape in (places.shape, (-1,), (places.shape[0], -1)):
        wanted = places.reshape(shape)
        found = layout_of(wanted)
        assert found is not None
        fine, turned_order = found
        again = np.arange(wanted.size).reshape(fine).transpose(turned_order).reshape(wanted.shape)
        assert np.array_equal(again, wanted)


def test_places_that_are_no_layout() -> None:
    assert layout_of(np.asarray([0, 1, 3, 2])) is None
