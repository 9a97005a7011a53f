"""Linear attention over the whole sequence, written as every step with every other: (q k^T) v."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.frontend.blocks import RNG
from tests.frontend.checks import lift, on_targets, refused
from tests.frontend.net import Net, save

WIDTH, HEADS = 4, 2


def heads(net: Net, x: str, wide: int) -> str:
    split = net.op("Reshape", net.op("MatMul", x, net.const(RNG.standard_normal((3, wide)))), net.ints(0, 0, HEADS, -1))
    return net.op("Transpose", split, perm=[0, 2, 1, 3])


def scores(net: Net, x: str) -> str:
    q, k = (net.op("Softplus", heads(net, x, WIDTH)) for _ in range(2))
    return net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))


def together(net: Net, y: str) -> str:
    return net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.ints(0, 0, 2 * WIDTH))


def plain(net: Net, x: str) -> str:
    return net.op("MatMul", scores(net, x), heads(net, x, 2 * WIDTH))


def normalised(net: Net, x: str) -> str:
    weights = scores(net, x)
    total = net.op("ReduceSum", weights, net.ints(-1), keepdims=1)
    y = net.op("MatMul", weights, heads(net, x, 2 * WIDTH))
    return net.op("Div", y, net.op("Add", total, net.const(np.float32(1e-6))))


def weights_normalised(net: Net, x: str) -> str:
    """Of the first-order Taylor series of the softmax, over columns that are gated."""
    weights = net.op("Add", net.op("Mul", scores(net, x), net.const(np.float32(0.5))), net.const(np.float32(1.0)))
    gate = net.op("Transpose", net.op("Sigmoid", heads(net, x, HEADS)), perm=[0, 1, 3, 2])
    weights = net.op("Mul", weights, gate)
    total = net.op("ReduceSum", weights, net.ints(-1), keepdims=1)
    return net.op("MatMul", net.op("Div", weights, total), heads(net, x, 2 * WIDTH))


def by_length(net: Net, x: str) -> str:
    steps = net.op("Cast", net.op("Gather", net.op("Shape", x), net.const(np.int64(1))), to=1)
    q, k, v = heads(net, x, WIDTH), heads(net, x, WIDTH), heads(net, x, 2 * WIDTH)
    turned = net.op("Einsum", k, q, equation="bhsd,bhtd->bhst")
    weights = net.op("Div", net.op("Transpose", turned, perm=[0, 1, 3, 2]), steps)
    return net.op("Einsum", weights, v, equation="bhts,bhse->bhte")


@pytest.mark.parametrize("form", [plain, normalised, weights_normalised, by_length])
def test_products_that_nothing_masks(tmp_path: Path, form) -> None:  # type: ignore[no-untyped-def]
    net = Net()
    x = net.input(["n", "l", 3])
    y = together(net, form(net, x))
    model = lift(net, y, ["n", "l", 2 * WIDTH], tmp_path, (2, 13), (3, 21))
    assert "the sequence is run through 2 times" in " ".join(model.notes)
    on_targets(model, 2, 17)


def test_what_is_no_product_of_sides_is_attention(tmp_path: Path) -> None:
    net = Net()
    x = net.input(["n", "l", 3])
    y = together(net, net.op("MatMul", net.op("Relu", scores(net, x)), heads(net, x, 2 * WIDTH)))
    refused(save(net.model([(y, ["n", "l", 2 * WIDTH])]), tmp_path), "scores of every step with every other")
