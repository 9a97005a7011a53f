"""The disguiser, for decays that are computed from the data: Mamba-2's chunks, retention, gated and log-domain scans.

Every model is u (batch, time, features) -> projections -> h_k = a_k h_{k-1} + (what is written) -> read -> tanh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from tests.frontend.net import Net

FEATURES = 5


@dataclass(frozen=True)
class Heads:
    """Sizes of a layer of heads with matrix-valued states (states, width); `shared`: one key and query for all heads.

    `constant`: each head has a decay of its own (retention); else it is computed (Mamba-2). `flat`: chunks and heads
    are split by one reshape.
    """

    seed: int
    heads: int
    width: int
    states: int
    length: int
    shared: bool
    constant: bool
    flat: bool = False


@dataclass(frozen=True)
class _Parts:
    """Values (batch, time, heads, ...): `logs` of the decay (batch or 1, time, heads), keys, queries, and values."""

    logs: str
    key: str
    query: str
    value: str


def _project(net: Net, u: str, rng: np.random.Generator, *shape: int) -> str:
    flat = net.op("MatMul", u, net.const(rng.standard_normal((FEATURES, int(np.prod(shape)))) / 2))
    return str(net.op("Reshape", flat, net.ints(0, 0, *shape)))


def _parts(net: Net, sizes: Heads, u: str) -> _Parts:
    rng = np.random.default_rng(sizes.seed)
    heads, width, states = sizes.heads, sizes.width, sizes.states
    shared = 1 if sizes.shared else heads
    key, query = (_project(net, u, rng, shared, states) for _ in range(2))
    value = _project(net, u, rng, heads, width)
    if sizes.constant:
        decay = np.log(rng.uniform(0.6, 0.98, heads))
        return _Parts(net.const(np.tile(decay, (1, sizes.length, 1))), key, query, value)
    delta = net.op("Softplus", _project(net, u, rng, heads))
    value = net.op("Mul", value, net.op("Unsqueeze", delta, net.ints(3)))
    return _Parts(net.op("Mul", delta, net.const(-rng.uniform(0.1, 1.0, heads))), key, query, value)


def _segments(net: Net, logs: str, size: int, stable: bool) -> str:
    """exp of the sums of logs (..., size) from after step s to step l, (..., l, s); zero where s comes after l.

    The listing of Mamba-2 (arXiv 2405.21060) masks and then sums (`stable`); the plain way subtracts two sums.
    """
    steps = np.arange(size)
    after = net.const(steps[:, None] < steps)
    if stable:
        tall = net.op("Expand", net.op("Unsqueeze", logs, net.ints(-1)), net.ints(1, 1, 1, 1, size))
        tall = net.op("Where", net.const(steps[:, None] <= steps), net.const(np.zeros(())), tall)
        sums = net.op("CumSum", tall, net.const(np.int64(-2)))
    else:
        total = net.op("CumSum", logs, net.const(np.int64(-1)))
        sums = net.op("Sub", *(net.op("Unsqueeze", total, net.ints(axis)) for axis in (-1, -2)))
    return str(net.op("Exp", net.op("Where", after, net.const(np.asarray(-np.inf)), sums)))


def as_chunks(sizes: Heads, chunk: int, stable: bool = False, backward: bool = False) -> onnx.ModelProto:
    """The block decomposition of SSD (arXiv 2405.21060, listing 1), the last chunk padded; one chunk: quadratic."""
    net = Net()
    u = net.input(["b", sizes.length, FEATURES])
    parts = _parts(net, sizes, _turned(net, u) if backward else u)
    rest, count = -sizes.length % chunk, -(-sizes.length // chunk)

    def chunks(x: str, rank: int, *shape: int) -> str:
        if sizes.flat:
            x, rank = net.op("Reshape", x, net.ints(0, 0, -1)), 3
        padded = net.op("Pad", x, net.ints(*[0] * rank, 0, rest, *[0] * (rank - 2))) if rest else x
        return str(net.op("Reshape", padded, net.ints(0, count, chunk, *shape)))

    shared = 1 if sizes.shared else sizes.heads
    key, query = (chunks(x, 4, shared, sizes.states) for x in (parts.key, parts.query))
    value = chunks(parts.value, 4, sizes.heads, sizes.width)
    if sizes.shared:
        wide = net.ints(1, 1, 1, sizes.heads, sizes.states)
        key, query = net.op("Expand", key, wide), net.op("Expand", query, wide)
    logs = net.op("Transpose", chunks(parts.logs, 3, sizes.heads), perm=[0, 3, 1, 2])  # b h c l
    scores = net.op("Einsum", query, key, equation="bclhn,bcshn->bhcls")
    inside = net.op("Mul", scores, _segments(net, logs, chunk, stable))
    y = net.op("Einsum", inside, value, equation="bhcls,bcshp->bclhp")
    if count > 1:
        total = net.op("CumSum", logs, net.const(np.int64(-1)))
        last = net.op("Slice", total, net.ints(chunk - 1), net.ints(chunk), net.ints(3))
        left = net.op("Transpose", net.op("Exp", net.op("Sub", last, total)), perm=[0, 2, 3, 1])
        weighted = net.op("Mul", value, net.op("Unsqueeze", left, net.ints(4)))
        states = net.op("Einsum", key, weighted, equation="bclhn,bclhp->bchnp")
        ends = net.op("Pad", net.op("Squeeze", last, net.ints(3)), net.ints(0, 0, 1, 0, 0, 0))
        ends = net.op("Unsqueeze", ends, net.ints(2))  # b h 1 c: one row of chunks
        between = net.op("Squeeze", _segments(net, ends, count + 1, stable), net.ints(2))
        states = net.op("Pad", states, net.ints(0, 1, 0, 0, 0, 0, 0, 0, 0, 0))
        before = net.op("Einsum", between, states, equation="bhzc,bchnp->bzhnp")
        before = net.op("Slice", before, net.ints(0), net.ints(count), net.ints(1))
        seen = net.op("Einsum", query, before, equation="bclhn,bchnp->bclhp")
        since = net.op("Unsqueeze", net.op("Transpose", net.op("Exp", total), perm=[0, 2, 3, 1]), net.ints(4))
        y = net.op("Add", y, net.op("Mul", seen, since))
    y = net.op("Reshape", y, net.ints(0, count * chunk, sizes.heads * sizes.width))
    if rest:
        y = net.op("Slice", y, net.ints(0), net.ints(sizes.length), net.ints(1))
    return _model(net, sizes, y, backward)


def as_retention(sizes: Heads, chunk: int, backward: bool = False) -> onnx.ModelProto:
    """Retention with a mask of powers, whole or chunk by chunk, written out (arXiv 2307.08621, equations 5 and 7)."""
    assert sizes.constant and not sizes.shared
    net = Net()
    u = net.input(["b", sizes.length, FEATURES])
    parts = _parts(net, sizes, _turned(net, u) if backward else u)
    decay = np.exp(net_array(net, parts.logs)[0, 0])[:, None, None]
    q, k, v = (net.op("Transpose", x, perm=[0, 2, 1, 3]) for x in (parts.query, parts.key, parts.value))
    state, found = "", []
    for start in range(0, sizes.length, chunk):
        size = min(chunk, sizes.length - start)
        lags = np.arange(size)[:, None] - np.arange(size)
        mask = net.const(np.where(lags >= 0, decay ** np.maximum(lags, 0), 0.0))
        bounds = net.ints(start), net.ints(start + size), net.ints(2)
        now = [x if size == sizes.length else net.op("Slice", x, *bounds) for x in (q, k, v)]
        turned = net.op("Transpose", now[1], perm=[0, 1, 3, 2])
        y = net.op("MatMul", net.op("Mul", net.op("MatMul", now[0], turned), mask), now[2])
        steps = np.arange(size)[:, None]
        if state:
            seen = net.op("MatMul", now[0], state)
            y = net.op("Add", y, net.op("Mul", seen, net.const(decay ** (steps + 1))))
        new = net.op("MatMul", turned, net.op("Mul", now[2], net.const(decay ** (size - 1 - steps))))
        state = net.op("Add", new, net.op("Mul", state, net.const(decay**size))) if state else new
        found.append(y)
    y = found[0] if len(found) == 1 else net.op("Concat", *found, axis=2)
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.ints(0, 0, sizes.heads * sizes.width))
    return _model(net, sizes, y, backward)


def as_log_sums(seed: int, width: int, length: int, shifted: bool) -> onnx.ModelProto:
    """Gates and positive values in the log domain (minGRU, arXiv 2410.01201, appendix B): exp(a + logcumsumexp(v - a)).

    `shifted` as torch's dynamo-based exporter writes logcumsumexp: with the largest of all steps taken out.
    """
    net, rng = Net(), np.random.default_rng(seed)
    u = net.input(["b", length, FEATURES])
    gate, written = (_project(net, u, rng, width) for _ in range(2))
    total = net.op("CumSum", net.op("Neg", net.op("Softplus", gate)), net.const(np.int64(1)))
    since = net.op("Sub", written, total)
    if shifted:
        top = net.op("ReduceMax", since, net.ints(1), keepdims=1)
        since = net.op("Sub", since, top)
    logs = net.op("Log", net.op("CumSum", net.op("Exp", since), net.const(np.int64(1))))
    logs = net.op("Add", logs, top) if shifted else logs
    y = net.op("Exp", net.op("Add", total, logs))
    return net.model([(net.op("Tanh", y), ["b", length, width])])


def _turned(net: Net, x: str) -> str:
    return str(net.op("Slice", x, net.ints(-1), net.ints(-(2**62)), net.ints(1), net.ints(-1)))


def net_array(net: Net, name: str) -> Any:
    """The array of a weight."""
    return onnx.numpy_helper.to_array(next(w for w in net.weights if w.name == name)).astype(np.float64)


def _model(net: Net, sizes: Heads, y: str, backward: bool) -> onnx.ModelProto:
    y = _turned(net, y) if backward else y
    return net.model([(net.op("Tanh", y), ["b", sizes.length, sizes.heads * sizes.width])])
