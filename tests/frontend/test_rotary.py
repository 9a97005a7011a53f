"""Rotary embeddings in front of linear attention: as their own op, and spelled out by tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.driver import compile_model
from ssmc.frontend import Model, load_model, reference
from tests.frontend.blocks import RNG, dense, first_layer
from tests.frontend.checks import on_targets
from tests.frontend.net import Net, save

HEADS, SIZE, LENGTH = 2, 4, 24


def angles(length: int, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    turn = np.arange(length)[:, None] * 0.7 ** np.arange(pairs)
    return np.cos(turn), np.sin(turn)


def attended(net: Net, query: str, key: str, value: str) -> str:
    """Causal linear attention over a fixed length: (Q K^T, decayed below the diagonal) V."""
    lags = np.arange(LENGTH)[:, None] - np.arange(LENGTH)
    decay = np.where(lags >= 0, np.array([0.8, 0.9])[:, None, None] ** np.maximum(lags, 0), 0.0)
    scores = net.op("MatMul", query, net.op("Transpose", key, perm=[0, 1, 3, 2]))
    return str(net.op("MatMul", net.op("Mul", scores, net.const(decay)), value))


def per_head(net: Net, x: str) -> str:
    """(batch, time, heads * size) -> (batch, heads, time, size)."""
    y = net.op("Reshape", dense(net, x, 4, HEADS * SIZE), net.ints(0, LENGTH, HEADS, SIZE))
    return str(net.op("Transpose", y, perm=[0, 2, 1, 3]))


def halves(net: Net, x: str, turned: int) -> str:
    """x cos + rotate_half(x) sin, as in Llama."""
    cos, sin = (net.const(np.concatenate([t, t], axis=1)) for t in angles(LENGTH, SIZE // 2))
    a, b = net.op("Split", x, axis=3, outputs=2, num_outputs=2)
    swapped = net.op("Concat", net.op("Neg", b), a, axis=3)
    return str(net.op("Add", net.op("Mul", x, cos), net.op("Mul", swapped, sin)))


def every_two(net: Net, x: str, turned: int) -> str:
    """As in RetNet: pairs next to each other."""
    cos, sin = (net.const(np.repeat(t, 2, axis=1)) for t in angles(LENGTH, SIZE // 2))
    even = net.op("Slice", x, net.ints(0), net.ints(1 << 40), net.ints(3), net.ints(2))
    odd = net.op("Slice", x, net.ints(1), net.ints(1 << 40), net.ints(3), net.ints(2))
    pairs = net.op("Concat", *(net.op("Unsqueeze", p, net.ints(4)) for p in (net.op("Neg", odd), even)), axis=4)
    swapped = net.op("Reshape", pairs, net.ints(0, HEADS, LENGTH, SIZE))
    return str(net.op("Add", net.op("Mul", x, cos), net.op("Mul", swapped, sin)))


def cached(net: Net, x: str, turned: int) -> str:
    tables = (net.const(np.stack([t, t])) for t in angles(LENGTH, turned // 2))
    return str(net.op("RotaryEmbedding", x, *tables, rotary_embedding_dim=turned % SIZE))


def looked_up(net: Net, x: str, turned: int) -> str:
    tables = (net.const(t) for t in angles(64, turned // 2))
    places = net.const(np.arange(LENGTH)[None] + np.zeros((2, 1), np.int64))
    return str(net.op("RotaryEmbedding", x, *tables, places, interleaved=1, rotary_embedding_dim=turned % SIZE))


FORMS = {"halves": halves, "every two": every_two, "cached": cached, "looked up": looked_up}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("turned", [SIZE, SIZE // 2])
def test_in_front_of_linear_attention(tmp_path: Path, form: str, turned: int) -> None:
    if turned != SIZE and form in ("halves", "every two"):
        return
    net = Net()
    x = dense(net, net.input([2, LENGTH, 3]), 3, 4)
    query, key = (FORMS[form](net, per_head(net, x), turned) for _ in range(2))
    y = net.op("Transpose", attended(net, query, key, per_head(net, x)), perm=[0, 2, 1, 3])
    y = net.op("Reshape", y, net.ints(2, LENGTH, HEADS * SIZE))
    model = net.model([(y, [2, LENGTH, HEADS * SIZE])], opset=23)
    model.ir_version = 11
    on_targets(load_model(save(model, tmp_path)), 2, LENGTH)


@pytest.mark.parametrize("dynamic", [True, False])
def test_in_front_of_a_system(tmp_path: Path, dynamic: bool) -> None:
    """Three axes, the positions an input of the model or stored."""
    net = Net()
    tables = [net.const(t) for t in angles(64, 2)]
    x = first_layer(net, LENGTH)
    places = net.input(["n", LENGTH], TensorProto.INT64) if dynamic else net.const(np.arange(LENGTH)[None])
    y = net.op("RotaryEmbedding", x, *tables, places, num_heads=1)
    model = net.model([(dense(net, y, 4, 2), ["n", LENGTH, 2])], opset=23)
    model.ir_version = 11
    if not dynamic:
        for graph_input in model.graph.input:
            graph_input.type.tensor_type.shape.dim[0].dim_value = 1
    lifted = load_model(save(model, tmp_path))
    on_both(lifted, 2 if dynamic else 1)


def on_both(model: Model, batch: int) -> None:
    arrays = {
        port.name: RNG.integers(0, 64, (batch, LENGTH))
        if port.dtype == "int64"
        else RNG.standard_normal((batch, LENGTH, 3)).astype(np.float32)
        for port in model.inputs
    }
    for target in ("cim", "epochcore"):
        found = compile_model(model, target, ideal=True).run(arrays).outputs
        for name, array in reference(model, arrays).items():
            assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()
