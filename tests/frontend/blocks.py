"""Parts of models as exporters write them, for tests that need a model around what they test."""

from __future__ import annotations

import numpy as np

from tests.frontend.net import Net

RNG = np.random.default_rng(11)  # starts anew for every test
DYNAMIC = ((2, 24), (3, 37))


def decaying(net: Net, u: str, width: int) -> str:
    """x_k = a x_{k-1} + u_k as a cumulative sum against growing weights, for any length; u is (batch, time, width)."""
    size = net.op("Gather", net.op("Shape", u), net.const(np.int64(1)), axis=0)
    steps = net.op("Cast", net.op("Range", net.const(np.int64(0)), size, net.const(np.int64(1))), to=1)
    exponent = net.op("Mul", net.op("Unsqueeze", steps, net.ints(1)), net.const(RNG.uniform(0.05, 0.3, width)))
    grown = net.op("Mul", u, net.op("Exp", exponent))
    return net.op("Mul", net.op("CumSum", grown, net.const(np.int64(1))), net.op("Exp", net.op("Neg", exponent)))


def dense(net: Net, x: str, inputs: int, outputs: int) -> str:
    y = net.op("MatMul", x, net.const(RNG.standard_normal((inputs, outputs))))
    return net.op("Add", y, net.const(RNG.standard_normal(outputs)))


def turned(net: Net, x: str) -> str:
    return net.op("Slice", x, net.ints(-1), net.ints(np.iinfo(np.int64).min), net.ints(1), net.ints(-1))


def first_layer(net: Net, length: int | str = "t") -> str:
    """Three inputs through a dense layer into a system: (batch, time, 4)."""
    return decaying(net, dense(net, net.input(["n", length, 3]), 3, 4), 4)
