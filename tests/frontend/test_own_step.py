"""Linear attention in which a step counts otherwise for itself than for later ones: not at all, or by a bonus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.frontend.blocks import RNG
from tests.frontend.checks import lift, on_targets
from tests.frontend.net import Net

WIDTH, HEADS = 4, 2


def heads(net: Net, x: str) -> str:
    split = net.op(
        "Reshape", net.op("MatMul", x, net.const(RNG.standard_normal((3, WIDTH)))), net.ints(0, 0, HEADS, -1)
    )
    return net.op("Transpose", split, perm=[0, 2, 1, 3])


def lags(net: Net, x: str) -> str:
    """Steps (to, from) apart."""
    number = net.const(np.int64(1))
    steps = net.op("Range", net.const(np.int64(0)), net.op("Gather", net.op("Shape", x), number), number)
    return net.op("Sub", net.op("Unsqueeze", steps, net.ints(1)), net.op("Unsqueeze", steps, net.ints(0)))


def mask(net: Net, x: str, bonus: bool) -> str:
    """Powers of a decay a head, the first of them for the step before; `bonus` stands at the step itself."""
    lag, zero = lags(net, x), net.const(np.float32(0))
    before = net.op("Sub", lag, net.const(np.int64(1)))
    age = net.op("Cast", net.op("Max", before, net.const(np.int64(0))), to=1)
    powers = net.op("Pow", net.const(np.array([0.9, 0.4]).reshape(HEADS, 1, 1)), age)
    earlier = net.op("Where", net.op("GreaterOrEqual", before, net.const(np.int64(0))), powers, zero)
    if not bonus:
        return earlier
    own = net.op("Equal", lag, net.const(np.int64(0)))
    return net.op("Add", earlier, net.op("Where", own, net.const(np.array([1.7, -0.3]).reshape(HEADS, 1, 1)), zero))


@pytest.mark.parametrize("bonus", [False, True])
def test_a_step_counts_otherwise_for_itself(tmp_path: Path, bonus: bool) -> None:
    net = Net()
    x = net.input(["n", "l", 3])
    q, k, v = (heads(net, x) for _ in range(3))
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    y = net.op("MatMul", net.op("Mul", scores, mask(net, x, bonus)), v)
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.ints(0, 0, WIDTH))
    model = lift(net, y, ["n", "l", WIDTH], tmp_path, (2, 13), (3, 21))
    (system,) = model.systems
    assert (system.groups, system.states) == (HEADS * (WIDTH // HEADS) ** 2, 1)
    on_targets(model, 2, 17)


@pytest.mark.parametrize("late", [False, True])
def test_a_step_counts_otherwise_for_itself_beside_computed_decays(tmp_path: Path, late: bool) -> None:
    """exp(c_t - c_s) for s < t with c the sum of the logarithms of all decays up to a step, or before it (RWKV-6)."""
    net = Net()
    x = net.input(["n", "l", 3])
    q, k, v = (heads(net, x) for _ in range(3))
    log = net.op("Neg", net.op("Softplus", heads(net, x)))
    total = net.op("CumSum", log, net.const(np.int64(2)))
    until = net.op("Sub", total, log) if late else total
    read = net.op("Mul", q, net.op("Exp", until))
    written = net.op("Mul", k, net.op("Exp", net.op("Neg", total)))
    scores = net.op("MatMul", read, net.op("Transpose", written, perm=[0, 1, 3, 2]))
    y = net.op("MatMul", net.op("Trilu", scores, net.const(np.int64(-1)), upper=0), v)
    if late:
        bonus = net.op("Mul", net.op("Mul", q, k), net.const(RNG.standard_normal((HEADS, 1, WIDTH // HEADS))))
        y = net.op("Add", y, net.op("Mul", net.op("ReduceSum", bonus, net.ints(-1), keepdims=1), v))
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.ints(0, 0, WIDTH))
    model = lift(net, y, ["n", "l", WIDTH], tmp_path, (2, 13), (3, 21))
    (system,) = model.systems
    assert (system.kind, system.groups) == ("selective", HEADS * (WIDTH // HEADS) ** 2)
    on_targets(model, 2, 17)
