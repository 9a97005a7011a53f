"""The disguiser, for recurrences whose decay is given at every step, real or complex, in every form of a scan.

Every model is u (batch, time, features) -> a_k, v_k computed from u_k -> h_k = a_k h_{k-1} + v_k -> read -> tanh. The
decay is that of events (a power by an elapsed time), of a gate, of a liquid system (Liquid-S4) or of Mamba's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from tests.frontend.net import Net

FEATURES = 3
DECAYS = ("events", "liquid", "gate", "mamba")
FORMS = ("unrolled", "scan", "loop", "step", "doubling", "tree", "powers")  # powers: a table exp(sum - sum), real only
Parts = list[str]  # a real value, or its real and imaginary part
ROW = 2**62


@dataclass(frozen=True)
class Varying:
    """Sizes and kind of a layer. `layout` of complex values: "pair", "last" (a last axis of two) or "halves"."""

    seed: int
    states: int
    decay: str
    is_complex: bool
    layout: str = "pair"
    backward: bool = False


def as_model(layer: Varying, form: str, length: int) -> onnx.ModelProto:
    """The layer in one form; the batch is dynamic, and the length where the form allows it."""
    net, rng = Net(), np.random.default_rng(layer.seed)
    if form == "step":
        return _as_step(net, layer, rng)
    dims: list[int | str] = ["b", "t" if form in ("scan", "loop", "powers") else length, FEATURES]
    u = net.input(dims)
    a, v = _computed(net, layer, rng, u)
    if layer.backward:
        a, v = _turned(net, a), _turned(net, v)
    packed = form in ("doubling", "tree") and layer.is_complex and layer.layout != "pair"
    if packed:
        a, v = (_unpacked(net, layer, _packed(net, layer, x), 1) for x in (a, v))
    h = SCANS[form](net, a, v, length)
    if packed:
        h = _unpacked(net, layer, _packed(net, layer, h), 1)
    h = _turned(net, h) if layer.backward else h
    return net.model([(_read(net, layer, rng, h), [*dims[:2], 2])])


# -- decays, drives, readouts ------------------------------------------------------------------------------


def _computed(net: Net, layer: Varying, rng: np.random.Generator, u: str) -> tuple[Parts, Parts]:
    """a and v at every step, from u (..., FEATURES)."""
    n, parts = layer.states, 1 + layer.is_complex
    drive = [net.op("MatMul", u, net.const(rng.standard_normal((FEATURES, n)))) for _ in range(parts)]
    other = net.op("MatMul", u, net.const(rng.standard_normal((FEATURES, n)) / 3))
    rate, turn = rng.uniform(0.1, 0.8, n), rng.uniform(0.3, 2.0, n)
    if layer.decay in ("events", "mamba"):
        one = net.op("MatMul", u, net.const(rng.standard_normal((FEATURES, 1 if layer.decay == "events" else n)) / 3))
        delta = net.op("Log", net.op("Add", net.op("Exp", one), net.const(1.0)))  # onnxruntime's Softplus is float32
        size = net.op("Exp", net.op("Mul", delta, net.const(-rate)))
        angle = net.op("Mul", delta, net.const(turn))
        waves = [net.op("Cos", angle), net.op("Sin", angle)] if layer.is_complex else []
        a = [net.op("Mul", size, wave) for wave in waves] or [size]
        if layer.decay == "mamba":
            drive = [net.op("Mul", part, delta) for part in drive]
    elif layer.decay == "gate":
        gate = net.op("Sigmoid", other)
        waves = [np.cos(turn), np.sin(turn)] if layer.is_complex else []
        a = [net.op("Mul", gate, net.const(wave)) for wave in waves] or [gate]
        written = net.op("Sub", net.const(1.0), gate)
        drive = [net.op("Mul", part, written) for part in drive]
    else:  # liquid: A + B u
        small = net.op("Tanh", other)
        fixed = [0.6 * np.cos(turn), 0.6 * np.sin(turn)] if layer.is_complex else [0.9 * rate]
        gains = [rng.uniform(0.05, 0.2, n) for _ in fixed]
        a = [
            net.op("Add", net.op("Mul", small, net.const(gain)), net.const(mean))
            for mean, gain in zip(fixed, gains, strict=True)
        ]
    return a, drive


def _read(net: Net, layer: Varying, rng: np.random.Generator, h: Parts) -> str:
    y = [net.op("MatMul", part, net.const(rng.standard_normal((layer.states, 2)))) for part in h]
    return str(net.op("Tanh", net.op("Sub", *y) if len(y) == 2 else y[0]))


def _packed(net: Net, layer: Varying, x: Parts) -> str:
    if layer.layout == "last":
        return str(net.op("Concat", *(net.op("Unsqueeze", p, net.ints(-1)) for p in x), axis=-1))
    return str(net.op("Concat", *x, axis=-1))


def _unpacked(net: Net, layer: Varying, x: str, rank: int) -> Parts:
    """The parts, read from one tensor."""
    if layer.layout == "last":
        return [net.op("Gather", x, net.const(np.int64(k)), axis=-1) for k in range(2)]
    n = layer.states
    return [net.op("Slice", x, net.ints(k * n), net.ints((k + 1) * n), net.ints(-rank)) for k in range(2)]


def _turned(net: Net, x: Parts) -> Parts:
    return [net.op("Slice", p, net.ints(-1), net.ints(-ROW), net.ints(1), net.ints(-1)) for p in x]


# -- products and steps ------------------------------------------------------------------------------------


def times(net: Net, a: Parts, x: Parts) -> Parts:
    if len(a) == 1:
        return [net.op("Mul", a[0], x[0])]
    return [
        net.op("Sub", net.op("Mul", a[0], x[0]), net.op("Mul", a[1], x[1])),
        net.op("Add", net.op("Mul", a[0], x[1]), net.op("Mul", a[1], x[0])),
    ]


def plus(net: Net, x: Parts, y: Parts) -> Parts:
    return [net.op("Add", *pair) for pair in zip(x, y, strict=True)]


def _cut(net: Net, x: Parts, start: int, stop: int, step: int = 1) -> Parts:
    return [net.op("Slice", p, net.ints(start), net.ints(stop), net.ints(1), net.ints(step)) for p in x]


def _joined(net: Net, x: Parts, y: Parts) -> Parts:
    return [net.op("Concat", *pair, axis=1) for pair in zip(x, y, strict=True)]


def _unrolled(net: Net, a: Parts, v: Parts, length: int) -> Parts:
    def step(x: Parts, k: int) -> Parts:
        return [net.op("Gather", p, net.const(np.int64(k)), axis=1) for p in x]

    h, found = step(v, 0), []
    for k in range(length):
        h = plus(net, times(net, step(a, k), h), step(v, k)) if k else h
        found.append([net.op("Unsqueeze", p, net.ints(1)) for p in h])
    return [net.op("Concat", *parts, axis=1) for parts in zip(*found, strict=True)]


def _scanned(net: Net, a: Parts, v: Parts, length: int) -> Parts:
    body, count = Net(), len(v)
    h, now = [body.input(None) for _ in v], [body.input(None) for _ in (*a, *v)]
    following = plus(body, times(body, now[: len(a)], h), now[len(a) :])
    shown = [body.op("Identity", p) for p in following]
    graph = body.subgraph([(p, None) for p in (*following, *shown)])
    zeros = [_zero(net, p) for p in v]
    along = [1] * (len(a) + count)
    found = net.op(
        "Scan", *zeros, *a, *v, outputs=2 * count, body=graph, num_scan_inputs=len(along),
        scan_input_axes=along, scan_output_axes=[1] * count,
    )  # fmt: skip
    return list(found[count:])


def looped(net: Net, a: Parts, v: Parts, length: int, features: int = 1) -> Parts:
    body, count = Net(), len(v)
    place, going = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL)
    h = [body.input(None) for _ in v]
    now = [body.op("Gather", p, place, axis=1) for p in (*a, *v)]
    following = plus(body, times(body, now[: len(a)], h), now[len(a) :])
    end = body.op("Identity", going)
    shown = [body.op("Identity", p) for p in following]
    graph = body.subgraph([(end, None), *((p, None) for p in (*following, *shown))], {end: TensorProto.BOOL})
    trips = net.op("Squeeze", net.op("Shape", v[0], start=1, end=2))
    zeros = [_zero(net, p) for p in v]
    found = net.op("Loop", trips, net.const(np.asarray(True)), *zeros, outputs=2 * count, body=graph)
    return [net.op("Transpose", p, perm=[1, 0, *range(2, 2 + features)]) for p in found[count:]]


def _zero(net: Net, v: str) -> str:
    first = net.op("Gather", v, net.const(np.int64(0)), axis=1)
    return str(net.op("Mul", first, net.const(0.0)))


def _doubled(net: Net, a: Parts, v: Parts, length: int) -> Parts:
    """Hillis and Steele: each of log2(length) levels takes in what lies twice as far back."""
    a = [net.op("Add", p, net.op("Mul", v[0], net.const(0.0))) for p in a]  # as wide as the drive
    span = 1
    while span < length:
        late, early = _cut(net, a, span, length), _cut(net, a, 0, length - span)
        more = plus(net, times(net, late, _cut(net, v, 0, length - span)), _cut(net, v, span, length))
        v = _joined(net, _cut(net, v, 0, span), more)
        a = _joined(net, _cut(net, a, 0, span), times(net, late, early))
        span *= 2
    return v


def _tree(net: Net, a: Parts, v: Parts, length: int) -> Parts:
    """Blelloch: pairs are combined, the odd results come from half as many, the even ones from those."""
    return _halved(net, [net.op("Add", p, net.op("Mul", v[0], net.const(0.0))) for p in a], v, length)[1]


def _halved(net: Net, a: Parts, v: Parts, length: int) -> tuple[Parts, Parts]:
    if length < 2:
        return a, v
    odd, even = (lambda x: _cut(net, x, 1, length, 2)), (lambda x: _cut(net, x, 0, length - 1, 2))
    pairs = times(net, odd(a), even(a)), plus(net, times(net, odd(a), even(v)), odd(v))
    powers, sums = _halved(net, *pairs, length // 2)
    before = [x if length % 2 else _cut(net, x, 0, -1) for x in (powers, sums)]
    first = [_cut(net, x, 0, 1) for x in (a, v)]
    if length > 2:
        later = _cut(net, a, 2, length, 2)
        more = plus(net, times(net, later, before[1]), _cut(net, v, 2, length, 2))
        first = [_joined(net, first[0], times(net, later, before[0])), _joined(net, first[1], more)]
    return _laced(net, first[0], powers, length), _laced(net, first[1], sums, length)


def _laced(net: Net, even: Parts, odd: Parts, length: int) -> Parts:
    found = []
    for p, q in zip(even, odd, strict=True):
        head = net.op("Slice", p, net.ints(0), net.ints(length // 2), net.ints(1))
        both = net.op("Concat", *(net.op("Unsqueeze", x, net.ints(2)) for x in (head, q)), axis=2)
        flat = net.op("Reshape", both, net.op("Concat", net.ints(0, -1), net.op("Shape", p, start=2), axis=0))
        last = net.op("Slice", p, net.ints(length // 2), net.ints(ROW), net.ints(1))
        found.append(net.op("Concat", flat, last, axis=1) if length % 2 else flat)
    return found


def _powers(net: Net, a: Parts, v: Parts, length: int) -> Parts:
    """Every step with every other: exp of the differences of the sums of log a, masked, times what was written."""
    total = net.op("CumSum", net.op("Log", a[0]), net.const(np.int64(1)))
    ends = [net.op("Unsqueeze", total, net.ints(axis)) for axis in (2, 1)]
    count = net.op("Squeeze", net.op("Shape", total, start=1, end=2))
    steps = net.op("Range", net.const(np.int64(0)), count, net.const(np.int64(1)))
    rows, columns = (net.op("Unsqueeze", steps, net.ints(*at)) for at in ((1, 2), (0, 2)))
    lags = net.op("Where", net.op("Less", rows, columns), net.const(-np.inf), net.op("Sub", *ends))
    return [net.op("ReduceSum", net.op("Mul", net.op("Exp", lags), net.op("Unsqueeze", v[0], net.ints(1))),
                   net.ints(2), keepdims=0)]  # fmt: skip


SCANS: dict[str, Callable[[Net, Parts, Parts, int], Parts]] = {
    "unrolled": _unrolled,
    "scan": _scanned,
    "loop": looped,
    "doubling": _doubled,
    "tree": _tree,
    "powers": _powers,
}


def _as_step(net: Net, layer: Varying, rng: np.random.Generator) -> onnx.ModelProto:
    """One step, its states inputs and outputs."""
    u = net.input(["b", FEATURES])
    a, v = _computed(net, layer, rng, u)
    parts, n = len(v), layer.states
    dims: Sequence[list[int | str]] = [["b", n]] * parts
    if parts == 2 and layer.layout != "pair":
        dims = [["b", n, 2]] if layer.layout == "last" else [["b", 2 * n]]
    states = [net.input(shape) for shape in dims]
    h = states if len(states) == parts else _unpacked(net, layer, states[0], 1)
    h = plus(net, times(net, a, h), v)
    following = h if len(states) == parts else [_packed(net, layer, h)]
    y = _read(net, layer, rng, h)
    return net.model([(y, ["b", 2]), *zip(following, dims, strict=True)])
