"""Attention whose weights are a polynomial of the scores, and linear attention without a mask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.frontend.blocks import RNG
from tests.frontend.checks import LINEAR, kinds, lift, on_targets, refused
from tests.frontend.net import Net, save

WIDTH = 3


def projected(net: Net, dims: list[int | str], width: int = WIDTH) -> list[str]:
    x = net.input(dims)
    return [net.op("MatMul", x, net.const(RNG.standard_normal((4, width)) * 0.7)) for _ in range(3)]


def square(net: Net, s: str) -> str:
    return str(net.op("Pow", s, net.const(np.float32(2))))


def squared_by_itself(net: Net, s: str) -> str:
    return str(net.op("Mul", s, s))


def taylor(net: Net, s: str) -> str:
    """1 + s + s^2/2 (Based, arXiv 2402.18668, equation 3)."""
    half = net.op("Mul", net.const(np.float32(0.5)), net.op("Mul", s, s))
    return str(net.op("Add", net.op("Add", net.const(np.float32(1)), s), half))


def cubic(net: Net, s: str) -> str:
    return str(net.op("Sub", net.op("Pow", s, net.const(np.float32(3))), net.op("Mul", s, net.const(np.float32(0.3)))))


@pytest.mark.parametrize("weights", [square, squared_by_itself, taylor, cubic])
@pytest.mark.parametrize("dims", [[2, 20, 4], ["n", "l", 4]])
def test_weights_that_are_a_polynomial(
    tmp_path: Path, weights: Callable[[Net, str], str], dims: list[int | str]
) -> None:
    net = Net()
    q, k, v = projected(net, dims)
    a = weights(net, net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])))
    y = net.op("MatMul", net.op("Trilu", a, net.const(np.int64(0)), upper=0), v)
    model = lift(net, y, [*dims[:2], WIDTH], tmp_path, (2, 20), *([(3, 33)] if dims[0] == "n" else []))
    assert kinds(model) == [LINEAR]
    on_targets(model, 2, 20)


def test_a_normaliser(tmp_path: Path) -> None:
    net = Net()
    q, k, v = projected(net, [2, 20, 4])
    a = taylor(net, net.op("Einsum", q, k, equation="btd,bsd->bts"))
    a = net.op("Where", net.const(np.tri(20, dtype=bool)), a, net.const(np.float32(0)))
    total = net.op("ReduceSum", a, net.ints(2), keepdims=1)
    y = net.op("Div", net.op("MatMul", a, v), net.op("Add", total, net.const(np.float32(1e-6))))
    model = lift(net, y, [2, 20, WIDTH], tmp_path, (2, 20))
    assert kinds(model) == [LINEAR, LINEAR]
    on_targets(model, 2, 20)


def test_a_decay_under_the_square(tmp_path: Path) -> None:
    net = Net()
    q, k, v = projected(net, [2, 20, 4])
    lags = np.arange(20)[:, None] - np.arange(20)
    table = net.const(np.where(lags >= 0, 0.9 ** np.maximum(lags, 0), 0.0))
    scores = net.op("Mul", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), table)
    y = net.op("MatMul", square(net, scores), v)
    model = lift(net, y, [2, 20, WIDTH], tmp_path, (2, 20))
    assert model.systems[0].time_constants.max() == pytest.approx(-0.5 / np.log(0.9), rel=1e-4)
    on_targets(model, 2, 20)


def test_too_many_products_are_told(tmp_path: Path) -> None:
    net = Net()
    q, k, v = projected(net, [2, 20, 4], width=256)
    a = square(net, net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])))
    y = net.op("MatMul", net.op("Trilu", a, net.const(np.int64(0)), upper=0), v)
    path = save(net.model([(y, [2, 20, 256])]), tmp_path)
    refused(path, "a polynomial of degree 2", "32896 products of the 256 features", "8421376 states", "at most")


def test_a_softmax_is_no_polynomial(tmp_path: Path) -> None:
    net = Net()
    q, k, v = projected(net, [2, 20, 4])
    a = net.op("Exp", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])))
    y = net.op("MatMul", net.op("Trilu", a, net.const(np.int64(0)), upper=0), v)
    refused(save(net.model([(y, [2, 20, WIDTH])]), tmp_path), "attention")


@pytest.mark.parametrize("dims", [[2, 20, 4], ["n", "l", 4]])
def test_linear_attention_without_a_mask(tmp_path: Path, dims: list[int | str]) -> None:
    """Sums over all steps, which every step reads: another run through the sequence."""
    net = Net()
    q, k, v = projected(net, dims)
    q, k = (net.op("Add", net.op("Elu", x), net.const(np.float32(1))) for x in (q, k))
    both = net.op("MatMul", net.op("Transpose", k, perm=[0, 2, 1]), v)
    total = net.op("Mul", q, net.op("ReduceSum", k, net.ints(1), keepdims=1))
    y = net.op("Div", net.op("MatMul", q, both), net.op("ReduceSum", total, net.ints(2), keepdims=1))
    model = lift(net, y, [*dims[:2], WIDTH], tmp_path, (2, 20), *([(3, 33)] if dims[0] == "n" else []))
    assert not model.systems and any("run through 2 times" in note for note in model.notes)
    on_targets(model, 2, 20)


def test_a_step_that_is_not_linear_is_not_read_along_its_features(tmp_path: Path) -> None:
    """h' = tanh(U h + W x): its features are no time over which it could sum."""
    net = Net()
    x, h = net.input([1, WIDTH]), net.input([1, WIDTH])
    read = net.op("MatMul", x, net.const(RNG.standard_normal((WIDTH, WIDTH))))
    kept = net.op("MatMul", h, net.const(RNG.standard_normal((WIDTH, WIDTH))))
    new = net.op("Tanh", net.op("Add", read, kept))
    y = net.op("MatMul", new, net.const(RNG.standard_normal((WIDTH, 2))))
    path = save(net.model([(y, [1, 2]), (new, [1, WIDTH])]), tmp_path)
    refused(path, "is not a linear function of it, as in LSTM and GRU")
