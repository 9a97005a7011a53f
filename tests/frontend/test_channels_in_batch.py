"""Channels or heads that stand beside the samples in the batch: one temporal layer for all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.frontend.blocks import RNG, decaying, dense
from tests.frontend.checks import lift, on_targets
from tests.frontend.net import Net

BATCH, LENGTH, CHANNELS = 3, 24, 4
Layer = Callable[[Net, str], str]  # (batch * channels, time, 1) -> the same


def _numbers(net: Net, x: str, *parts: int | str) -> str:
    """Sizes, some of them products of sizes of x: '0*2' is that of the first axis times that of the third."""
    shape, found = net.op("Shape", x), []
    for part in parts:
        if isinstance(part, int):
            found.append(net.ints(part))
            continue
        factors = [net.op("Gather", shape, net.ints(int(axis)), axis=0) for axis in part.split("*")]
        found.append(factors[0] if len(factors) == 1 else net.op("Mul", *factors))
    return str(net.op("Concat", *found, axis=0))


def mean_of_the_past(net: Net, x: str) -> str:
    """A dense layer, a recurrence, a nonlinearity after it, and back."""
    y = decaying(net, net.op("Tanh", dense(net, x, 1, 3)), 3)
    return dense(net, net.op("Sigmoid", y), 3, 1)


def causal_convolution(net: Net, x: str) -> str:
    """Channels first: a causal filter, a norm over its outputs, a filter of one tap."""
    wide = net.op(
        "Conv", net.op("Transpose", x, perm=[0, 2, 1]), net.const(RNG.standard_normal((3, 1, 4))), pads=[3, 0]
    )
    tall = net.op("Transpose", net.op("Relu", wide), perm=[0, 2, 1])
    normed = net.op("LayerNormalization", tall, net.const(np.ones(3)), net.const(RNG.standard_normal(3)), axis=-1)
    return decaying(net, net.op("MatMul", normed, net.const(RNG.standard_normal((3, 1)))), 1)


def gated_scan(net: Net, x: str) -> str:
    """h = a h + (1 - a) v, the gate computed inside, its states from zeros for every channel."""
    body, count = Net(), _numbers(net, x, "0", 2)
    state, v = body.input(None), body.input(None)
    gate = body.op("Sigmoid", dense(body, v, 2, 2))
    kept, new = body.op("Mul", gate, state), body.op("Mul", body.op("Sub", body.const(np.ones(1)), gate), v)
    following = body.op("Add", kept, new)
    graph = body.subgraph([(following, None), (body.op("Identity", following), None)])
    start = net.op("ConstantOfShape", count)
    attrs = {"num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [1]}
    _, y = net.op("Scan", start, dense(net, x, 1, 2), outputs=2, body=graph, **attrs)
    return dense(net, y, 2, 1)


def firing(net: Net, x: str) -> str:
    """Integrate and fire, reset by subtraction."""
    body, count = Net(), _numbers(net, x, "0", 2)
    state, v = body.input(None), body.input(None)
    fired = body.op("Cast", body.op("Greater", state, body.const(np.ones(1))), to=1)
    following = body.op("Sub", body.op("Add", body.op("Mul", state, body.const(np.full(2, 0.75))), v), fired)
    out = body.op("Cast", body.op("Greater", following, body.const(np.ones(1))), to=1)
    graph = body.subgraph([(following, None), (out, None)])
    attrs = {"num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [1]}
    _, y = net.op("Scan", net.op("ConstantOfShape", count), dense(net, x, 1, 2), outputs=2, body=graph, **attrs)
    return dense(net, y, 2, 1)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("layer", [mean_of_the_past, causal_convolution, gated_scan, firing])
def test_each_channel_by_itself(tmp_path: Path, layer: Layer, dynamic: bool) -> None:
    net = Net()
    dims: list[int | str] = ["n", "t", CHANNELS] if dynamic else [BATCH, LENGTH, CHANNELS]
    x = net.input(dims)
    first = net.op("Transpose", x, perm=[0, 2, 1])
    y = layer(net, net.op("Reshape", first, _numbers(net, x, "0*2", "1", 1)))
    split = net.op("Reshape", y, _numbers(net, x, "0", CHANNELS, "1"))
    back = dense(net, net.op("Transpose", split, perm=[0, 2, 1]), CHANNELS, 2)
    sizes = ((2, 24), (5, 31)) if dynamic else ((BATCH, LENGTH),)
    model = lift(net, back, [*dims[:2], 2], tmp_path, *sizes)
    assert model.systems
    on_targets(model, BATCH, LENGTH)


@pytest.mark.parametrize("outside", ["batch", "heads"])
def test_heads_beside_the_samples(tmp_path: Path, outside: str) -> None:
    """Linear attention as batched products of (batch * heads, time, width), masked."""
    net, heads, width = Net(), 2, 3
    x = net.input([BATCH, LENGTH, CHANNELS])

    def head(order: list[int]) -> str:
        whole = net.op("Reshape", dense(net, x, CHANNELS, heads * width), net.ints(BATCH, LENGTH, heads, width))
        return str(net.op("Reshape", net.op("Transpose", whole, perm=order), net.ints(BATCH * heads, LENGTH, width)))

    order = [0, 2, 1, 3] if outside == "batch" else [2, 0, 1, 3]
    q, k, v = (head(order) for _ in range(3))
    scores = net.op("MatMul", net.op("Sigmoid", q), net.op("Transpose", net.op("Sigmoid", k), perm=[0, 2, 1]))
    masked = net.op("Where", net.const(np.tri(LENGTH) > 0), scores, net.const(np.zeros(())))
    y = net.op("Tanh", net.op("MatMul", masked, v))
    split = net.op("Reshape", y, net.ints(*((BATCH, heads) if outside == "batch" else (heads, BATCH)), LENGTH, width))
    back = net.op("Reshape", net.op("Transpose", split, perm=np.argsort(order).tolist()), net.ints(BATCH, LENGTH, -1))
    model = lift(net, back, [BATCH, LENGTH, heads * width], tmp_path, (BATCH, LENGTH))
    assert [s.groups * s.states for s in model.systems] == [heads * width * width]
    on_targets(model, BATCH, LENGTH)


@pytest.mark.parametrize("form", ["heads", "groups", "one op", "steps too"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_norm_in_groups_of_each_head(tmp_path: Path, form: str, dynamic: bool) -> None:
    """GroupNorm on (batch * time * heads, width), as in retention; or on (batch * heads, channels, time)."""
    net, width = Net(), 4
    dims: list[int | str] = ["n", "t", 2 * width] if dynamic else [BATCH, LENGTH, 2 * width]
    x = net.input(dims)
    y = decaying(net, x, 2 * width)
    groups = 2 if form == "groups" else 1
    if form == "steps too":
        y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1]), _numbers(net, x, "0", 2, width, "1"))
        tall = net.op("Reshape", y, net.op("Concat", net.ints(-1, width), _numbers(net, x, "1"), axis=0))
        scales = [net.const(RNG.uniform(0.5, 1.5, width)) for _ in range(2)]
        normed = net.op("InstanceNormalization", tall, *scales)
        back = net.op("Transpose", net.op("Reshape", normed, _numbers(net, x, "0", 2 * width, "1")), perm=[0, 2, 1])
    else:
        heads = net.op("Reshape", y, net.ints(0, 0, 2, width))
        rows = net.op("Reshape", heads, net.ints(-1, width))
        scales = [net.const(RNG.uniform(0.5, 1.5, groups)) for _ in range(2)]
        if form == "one op":
            normed = net.op("GroupNormalization", rows, *scales, num_groups=groups)
        else:
            apart = net.op("Reshape", rows, net.ints(0, groups, -1))
            normed = net.op("InstanceNormalization", apart, *scales)
        back = net.op("Reshape", normed, net.op("Shape", x))
    sizes = ((2, 24), (5, 31)) if dynamic else ((BATCH, LENGTH),)
    model = lift(net, dense(net, back, 2 * width, 2), [*dims[:2], 2], tmp_path, *sizes)
    assert model.systems
    on_targets(model, BATCH, LENGTH)
