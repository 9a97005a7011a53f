"""Families whose decays or drives depend on the data: what a step multiplies the states by, what it adds, what is read.

`u` is (..., H), `dt` (..., 1), for all steps or for one; a number is its real part, or real and imaginary part. States
are (..., P), or (..., N, H) of heads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from tests.frontend.disguise_scans import Parts, times
from tests.frontend.family_systems import H, N, P, normal, normal_poles, poles, steps
from tests.frontend.net import Net

Started = tuple[Parts, Parts, Callable[[Parts], str]]  # decays, drives, what is read of the states


def pair(net: Net, values: np.ndarray) -> Parts:
    return [net.const(values.real), net.const(values.imag)]


def product(net: Net, x: str, matrix: np.ndarray) -> str:
    return str(net.op("MatMul", x, net.const(matrix)))


def real_part(net: Net, c: np.ndarray, h: Parts) -> str:
    """Re(C h), C (outputs, states)."""
    return str(net.op("Sub", product(net, h[0], c.real.T), product(net, h[1], c.imag.T)))


def softplus(net: Net, x: str) -> str:  # onnxruntime's own is float32
    return str(net.op("Log", net.op("Add", net.op("Exp", x), net.const(1.0))))


def events(rule: str, net: Net, u: str, dt: str, rng: np.random.Generator) -> Started:
    """Event-SSM (arXiv 2404.18508): dt has passed since the event before; by ZOH it also scales what is added."""
    pole, step = normal_poles(P), steps(rng, P)
    b, c = normal(rng, H, P), normal(rng, H, P)
    size = net.op("Exp", net.op("Mul", dt, net.const(step * pole.real)))
    angle = net.op("Mul", dt, net.const(step * pole.imag))
    a = [net.op("Mul", size, net.op("Cos", angle)), net.op("Mul", size, net.op("Sin", angle))]
    if rule == "async":
        b = b * (np.exp(step * pole) - 1) / pole
    v = [product(net, u, b.real), product(net, u, b.imag)]
    if rule == "zoh":
        less = [net.op("Sub", a[0], net.const(1.0)), a[1]]
        v = times(net, v, times(net, less, pair(net, 1 / pole)))
    return a, v, partial(real_part, net, c)


def liquid(kind: str, net: Net, u: str, dt: str, rng: np.random.Generator, real_input: bool = False) -> Started:
    """Liquid-S4 (arXiv 2209.12951), a layer of P states: x' = (A + B u) x + B u; with a real B A's frequencies stay."""
    a, b, c = np.exp(0.1 * poles(kind, P)), 0.1 * normal(rng, P, H), normal(rng, H, P)
    if kind == "real":
        v = product(net, u, b.real.T)
        return [net.op("Add", v, net.const(a.real))], [v], lambda h: product(net, h[0], c.real.T)
    both = [product(net, u, b.real.T), product(net, u, b.imag.T)]
    moved = [both[0], net.op("Mul", both[1], net.const(0.0))] if real_input else both
    fixed = zip(moved, pair(net, a), strict=True)
    return [net.op("Add", *each) for each in fixed], both, partial(real_part, net, c)


def gated(net: Net, u: str, dt: str, rng: np.random.Generator) -> Started:
    """RG-LRU (arXiv 2402.19427): a = sigma(Lambda)^(8 r), h = a h + sqrt(1 - a^2) (i u), r and i gates of the data."""
    gates = [net.op("Sigmoid", product(net, u, rng.standard_normal((H, H)))) for _ in range(2)]
    log = net.op("Mul", gates[0], net.const(8 * np.log(rng.uniform(0.9, 0.999, H))))
    rest = net.op("Sub", net.const(1.0), net.op("Exp", net.op("Mul", log, net.const(2.0))))
    v = net.op("Mul", net.op("Sqrt", rest), net.op("Mul", gates[1], u))
    return [net.op("Exp", log)], [v], lambda h: h[0]


def selective(net: Net, u: str, dt: str, rng: np.random.Generator, heads: bool) -> Started:
    """Mamba (arXiv 2312.00752): steps, B and C of the data; Mamba-2 (arXiv 2405.21060) has one decay a head."""
    step = softplus(net, product(net, u, rng.standard_normal((H, 1 if heads else H))))
    rates = np.ones((1, 1)) if heads else np.arange(1.0, N + 1)[:, None]
    a = net.op("Exp", net.op("Mul", net.op("Unsqueeze", step, net.ints(-2)), net.const(-rates)))
    into, out = (net.op("Unsqueeze", product(net, u, rng.standard_normal((H, N))), net.ints(-1)) for _ in range(2))
    v = net.op("Mul", into, net.op("Unsqueeze", net.op("Mul", step, u), net.ints(-2)))

    def read(h: Parts) -> str:
        return str(net.op("ReduceSum", net.op("Mul", h[0], out), net.ints(-2), keepdims=0))

    return [a], [v], read


def retention(net: Net, u: str, dt: str, rng: np.random.Generator) -> Started:
    """A head of retention (arXiv 2307.08621) by its recurrence: S = g S + k v, y = q S."""
    key, query = (net.op("Unsqueeze", product(net, u, rng.standard_normal((H, N))), net.ints(-1)) for _ in range(2))
    v = net.op("Mul", key, net.op("Unsqueeze", product(net, u, rng.standard_normal((H, H))), net.ints(-2)))

    def read(h: Parts) -> str:
        return str(net.op("ReduceSum", net.op("Mul", h[0], query), net.ints(-2), keepdims=0))

    decay = net.op("Add", net.op("Mul", v, net.const(0.0)), net.const(1 - 2.0**-4))  # as wide as what is added
    return [decay], [v], read


Family = Callable[[Net, str, str, np.random.Generator], Started]
FAMILIES: dict[str, Family] = {
    "events, asynchronous": partial(events, "async"),
    "events, ZOH": partial(events, "zoh"),
    "events, Dirac": partial(events, "dirac"),
    "Liquid-S4, real": partial(liquid, "real"),
    "Liquid-S4": partial(liquid, "lin"),
    "Liquid-S4, real B": partial(liquid, "lin", real_input=True),
    "RG-LRU": gated,
    "Mamba": partial(selective, heads=False),
    "Mamba-2": partial(selective, heads=True),
    "retention": retention,
}
