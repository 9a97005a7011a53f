"""The delta rule as products over the whole sequence: refused as what it is, and what is like it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.frontend.blocks import RNG
from tests.frontend.checks import refused
from tests.frontend.net import Net, save

LENGTH, WIDTH = 8, 3


def layer(net: Net, x: str, width: int) -> str:
    return str(net.op("MatMul", x, net.const(RNG.standard_normal((WIDTH, width)))))


def delta(net: Net, x: str) -> str:
    """o = tril(q k^T) (I - N)^-1 b v, N = -tril(b k k^T, -1), the inverse as (I + N)(I + N^2)(I + N^4)."""
    q, k, v = (layer(net, x, 2) for _ in range(3))
    k = net.op("Div", k, net.op("ReduceL2", k, axes=[2], keepdims=1))
    b = net.op("Sigmoid", layer(net, x, 1))
    back = net.op("Transpose", k, perm=[0, 2, 1])
    below = net.const(-np.tril(np.ones((LENGTH, LENGTH)), -1))
    n, one = net.op("Mul", net.op("MatMul", net.op("Mul", b, k), back), below), net.const(np.eye(LENGTH))
    inverse = net.op("Add", one, n)
    for _ in range(2):
        n = net.op("MatMul", n, n)
        inverse = net.op("MatMul", inverse, net.op("Add", one, n))
    u = net.op("MatMul", inverse, net.op("Mul", b, v))
    scores = net.op("Mul", net.op("MatMul", q, back), net.const(np.tril(np.ones((LENGTH, LENGTH)))))
    return str(net.op("MatMul", scores, u))


def attention(net: Net, x: str) -> str:
    q, k, v = (layer(net, x, 2) for _ in range(3))
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1]))
    mask = net.const(np.where(np.tril(np.ones((LENGTH, LENGTH))) > 0, 0.0, -1e9))
    return str(net.op("MatMul", net.op("Softmax", net.op("Add", scores, mask), axis=2), v))


@pytest.mark.parametrize("block", [delta, attention])
def test_products_over_the_whole_sequence(tmp_path: Path, block: object) -> None:
    net = Net()
    y = (delta if block is delta else attention)(net, net.input([2, LENGTH, WIDTH]))
    path = save(net.model([(y, [2, LENGTH, 2])]), tmp_path)
    if block is delta:
        assert "1 node cannot" in refused(path, "states are mixed by a matrix that depends on the data", "delta rule")
    else:
        assert "delta rule" not in refused(path, "softmax over scores")
