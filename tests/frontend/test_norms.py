"""Norms spelled out in several nodes, as exporters write them before their ops existed, and as people write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.frontend.blocks import DYNAMIC, RNG, decaying, first_layer
from tests.frontend.checks import lift
from tests.frontend.net import Net

EPSILON = 1e-5
Build = Callable[[Net, str], str]


def mean(net: Net, x: str) -> str:
    return net.op("ReduceMean", x, net.ints(-1), keepdims=1)


def root(net: Net, square: str, epsilon: float = EPSILON) -> str:
    return net.op("Sqrt", net.op("Add", square, net.const(epsilon)))


def squared(net: Net, x: str) -> str:
    return net.op("Pow", x, net.const(2.0))


def layer_norm(net: Net, x: str) -> str:
    """As below opset 17."""
    centred = net.op("Sub", x, mean(net, x))
    normal = net.op("Div", centred, root(net, mean(net, squared(net, centred))))
    scaled = net.op("Mul", normal, net.const(RNG.uniform(0.5, 1.5, 4)))
    return net.op("Add", scaled, net.const(RNG.standard_normal(4)))


def by_moments(net: Net, x: str) -> str:
    """(x - mean) / sqrt(mean(x^2) - mean(x)^2 + e)."""
    middle = mean(net, x)
    variance = net.op("Sub", mean(net, net.op("Mul", x, x)), net.op("Mul", middle, middle))
    return net.op("Div", net.op("Sub", x, middle), root(net, variance))


def scaled_first(net: Net, x: str) -> str:
    """g (x - mean) rsqrt(var + e), the mean taken twice."""
    centred = net.op("Sub", x, mean(net, x))
    again = net.op("Sub", x, mean(net, x))
    inverse = net.op("Reciprocal", root(net, mean(net, net.op("Mul", again, again))))
    return net.op("Mul", net.op("Mul", net.const(RNG.uniform(0.5, 1.5, 4)), centred), inverse)


def rms_norm(net: Net, x: str) -> str:
    inverse = net.op("Div", net.const(1.0), root(net, mean(net, squared(net, x))))
    return net.op("Mul", net.op("Mul", x, inverse), net.const(RNG.uniform(0.5, 1.5, 4)))


def rms_by_power(net: Net, x: str) -> str:
    square = net.op("Add", mean(net, net.op("Mul", x, x)), net.const(EPSILON))
    return net.op("Mul", x, net.op("Pow", square, net.const(-0.5)))


def rms_by_sum(net: Net, x: str) -> str:
    """x sqrt(width) / sqrt(sum x^2 + e)."""
    total = net.op("ReduceSumSquare", x, net.ints(-1), keepdims=1)
    return net.op("Div", net.op("Mul", x, net.const(2.0)), root(net, total, 4 * EPSILON))


def heads(net: Net, x: str) -> str:
    parts = net.op("Reshape", x, net.ints(0, 0, 2, 2))
    return net.op("Reshape", net.op("Div", parts, root(net, mean(net, squared(net, parts)))), net.ints(0, 0, 4))


NORMS: dict[str, tuple[Build, str]] = {
    "layer norm": (layer_norm, "layer"),
    "layer norm by moments": (by_moments, "layer"),
    "layer norm, scaled first": (scaled_first, "layer"),
    "RMS norm": (rms_norm, "rms"),
    "RMS norm by a power": (rms_by_power, "rms"),
    "RMS norm by a sum": (rms_by_sum, "rms"),
    "RMS norm of heads": (heads, "rms"),
}


@pytest.mark.parametrize("form", NORMS)
def test_a_spelled_out_norm_is_one(tmp_path: Path, form: str) -> None:
    build, kind = NORMS[form]
    net = Net()
    x = first_layer(net)
    y = net.op("Add", x, decaying(net, build(net, x), 4))
    model = lift(net, y, ["n", "t", 4], tmp_path, *DYNAMIC)
    (norm,) = model.graph.nodes("norm")
    assert norm.op["kind"] == kind and norm.op["epsilon"] == pytest.approx(EPSILON, rel=1e-6)
    assert not list(model.graph.nodes("reduce", "unary"))


def test_a_norm_of_a_pooled_value(tmp_path: Path) -> None:
    net = Net()
    x = first_layer(net)
    y = layer_norm(net, net.op("ReduceMean", x, net.ints(1), keepdims=0))
    assert len(list(lift(net, y, ["n", 4], tmp_path, *DYNAMIC).graph.nodes("norm"))) == 1


def outside(net: Net, x: str) -> str:
    """The epsilon is added to the root."""
    centred = net.op("Sub", x, mean(net, x))
    spread = net.op("Sqrt", mean(net, squared(net, centred)))
    return net.op("Div", centred, net.op("Add", spread, net.const(1e-3)))


def weighted(net: Net, x: str) -> str:
    """The mean of squares counts the features differently."""
    square = net.op("Mul", squared(net, x), net.const(RNG.uniform(0.2, 2.0, 4)))
    return net.op("Div", x, root(net, mean(net, square)))


def limited(net: Net, x: str) -> str:
    """x / max(|x|, e)"""
    return net.op("Div", x, net.op("Max", net.op("ReduceL2", x, net.ints(-1), keepdims=1), net.const(1e-3)))


@pytest.mark.parametrize("build", [outside, weighted, limited])
def test_what_only_looks_like_a_norm_stays_as_it_is(tmp_path: Path, build: Build) -> None:
    net = Net()
    x = first_layer(net)
    y = net.op("Add", x, decaying(net, build(net, x), 4))
    assert not list(lift(net, y, ["n", "t", 4], tmp_path, *DYNAMIC).graph.nodes("norm"))
