"""Parallel scans with computed decays that start from constants, and what a selective block is delayed by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.frontend.blocks import RNG
from tests.frontend.checks import kinds, lift, on_targets
from tests.frontend.net import Net


def in_the_log_domain(net: Net, x: str, start: np.ndarray, backward: bool) -> str:
    """minGRU (arXiv 2410.01201, appendix B.2) with a logcumsumexp as the dynamo exporter writes it."""
    decay = net.op("Neg", net.op("Softplus", x))
    written = net.op("Log", net.op("Softplus", net.op("Mul", x, net.const(RNG.uniform(0.5, 2.0, 3)))))
    size = net.op("Concat", net.op("Shape", x, end=1), net.ints(1, 3), axis=0)
    first = net.op("Expand", net.const(np.log(start).reshape(1, 1, 3)), size)
    values = net.op("Concat", *((written, first) if backward else (first, written)), axis=1)
    sums = net.op("CumSum", decay, net.const(np.int64(1)), reverse=int(backward))
    pads = net.ints(0, 0, 0, 0, 1, 0) if backward else net.ints(0, 1, 0, 0, 0, 0)
    sums = net.op("Pad", sums, pads)
    left = net.op("Sub", values, sums)
    most = net.op("ReduceMax", left, net.ints(1), keepdims=1)
    total = net.op("CumSum", net.op("Exp", net.op("Sub", left, most)), net.const(np.int64(1)), reverse=int(backward))
    h = net.op("Exp", net.op("Add", sums, net.op("Add", net.op("Log", total), most)))
    ends = (net.ints(0), net.ints(-1)) if backward else (net.ints(1), net.ints(1 << 40))
    return str(net.op("Slice", h, *ends, net.ints(1)))


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("dims", [(2, 12, 3), ("b", "t", 3)])
def test_a_scan_in_the_log_domain(tmp_path: Path, dims: tuple[int | str, ...], backward: bool) -> None:
    net, start = Net(), RNG.uniform(0.5, 3.0, 3)
    y = in_the_log_domain(net, net.input(dims), start, backward)
    model = lift(net, y, dims, tmp_path, *([(3, 17)] if dims[0] == "b" else [(2, 12)]))
    assert kinds(model) == ["selective"]
    assert model.systems[0].reverse == backward
    on_targets(model, 2, 12)


@pytest.mark.parametrize("shared", [False, True])
def test_a_scan_of_quotients(tmp_path: Path, shared: bool) -> None:
    """exp(S_k) (h_0 + the sum of v_j exp(-S_j)), read by another stream in the region."""
    net, width = Net(), 1 if shared else 3
    x = net.input(["b", "t", 3])
    rates = net.op("MatMul", x, net.const(RNG.standard_normal((3, width)) * 0.3))
    sums = net.op("CumSum", net.op("Neg", net.op("Softplus", rates)), net.const(np.int64(1)))
    drive = net.op("Tanh", net.op("MatMul", x, net.const(RNG.standard_normal((3, 3)))))
    scaled = net.op("Mul", drive, net.op("Exp", net.op("Neg", sums)))
    total = net.op("Add", net.op("CumSum", scaled, net.const(np.int64(1))), net.const(RNG.standard_normal(3)))
    y = net.op("Mul", net.op("Sigmoid", x), net.op("Mul", net.op("Exp", sums), total))
    assert kinds(lift(net, y, ["b", "t", 3], tmp_path, (3, 17))) == ["selective"]


@pytest.mark.parametrize("backward", [False, True])
def test_a_masked_product_of_a_step_before(tmp_path: Path, backward: bool) -> None:
    """The decays of all pairs of steps in a mask, keys and values, and the result shifted by a step (as in Hydra)."""
    net, length = Net(), 10
    x = net.input([2, length, 3])
    rate = net.op("Squeeze", net.op("MatMul", x, net.const(RNG.standard_normal((3, 1)))), net.ints(2))
    sums = net.op("CumSum", net.op("Neg", net.op("Softplus", rate)), net.const(np.int64(1)), reverse=int(backward))
    gaps = net.op("Sub", net.op("Unsqueeze", sums, net.ints(2)), net.op("Unsqueeze", sums, net.ints(1)))
    seen = np.tril(np.ones((length, length), bool))
    seen = seen.T if backward else seen
    mask = net.op("Exp", net.op("Where", net.const(seen), gaps, net.const(np.full((), -np.inf))))
    query, key, value = (net.op("MatMul", x, net.const(RNG.standard_normal((3, n)))) for n in (2, 2, 3))
    scores = net.op("Einsum", query, key, equation="btn,bsn->bts")
    h = net.op("MatMul", net.op("Mul", scores, mask), value)
    pads = net.ints(0, 0, 0, 0, 1, 0) if backward else net.ints(0, 1, 0, 0, 0, 0)
    ends = (net.ints(1), net.ints(1 << 40)) if backward else (net.ints(0), net.ints(length))
    y = net.op("Slice", net.op("Pad", h, pads), *ends, net.ints(1))
    y = net.op("MatMul", y, net.const(RNG.standard_normal((3, 3))))
    model = lift(net, y, [2, length, 3], tmp_path, (2, length))
    assert kinds(model) == ["selective"]
    on_targets(model, 2, length)
