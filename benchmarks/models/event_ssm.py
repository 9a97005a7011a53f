"""The four published networks (arXiv 2511.13912) at full size with random weights, after the authors' public code.

Event-driven layers with real coefficients: embedding rows of events; two stages of blocks
`u -> SSM -> norm -> y sigmoid(W GELU(y) + b) -> + skip`; the first block of a stage subsamples the events, where its
width changes D is a matrix and the skip is projected; mean over the events; a dense layer. The parameter counts are
the published ones, to the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ssmc.ir import Graph, StreamType, Tensor, Value
from ssmc.ir.types import Element
from ssmc.statespace import StateSpace


@dataclass(frozen=True)
class Network:
    """Sizes: inputs (embedding rows), (H, P) of the two stages, layers of each, events that become one, classes."""

    rows: int
    stages: tuple[tuple[int, int], tuple[int, int]]
    layers: int
    stride: int
    classes: int
    parameters: int  # published
    arrays: int  # 64 x 64 arrays with one device a weight, each matrix by itself


NETWORKS: Mapping[str, Network] = {
    "SHD": Network(700, ((96, 128), (96, 128)), 3, 8, 20, 274_964, 74),
    "SSC": Network(700, ((96, 128), (192, 256)), 3, 8, 35, 597_731, 146),
    "DVS128 Gesture": Network(32_768, ((128, 128), (256, 256)), 3, 16, 11, 4_972_939, 192),
    "DVS Lip": Network(32_768, ((128, 128), (256, 256)), 6, 16, 100, 5_738_852, 376),
}
TAUS = (1.5, 80.0)  # ms; time constants of the published networks lie between 1.2 and 500


def build(network: Network, seed: int = 0) -> Graph:
    """The lifted graph: inputs `event` (index) and `dt` (ms), output `logits`."""
    made = _Builder(network, seed)
    width = network.stages[0][0]
    x = made.add("embed", made.input("event", "index"), table=made.normal(network.rows, width))
    dt = made.input("dt", "real")
    for high, states in network.stages:
        for layer in range(network.layers):
            stride = network.stride if layer == 0 else 1
            x = made.block(x, dt, width, high, states, stride)
            if stride > 1:
                dt = made.add("downsample", dt, stride=stride, kind="sum")
            width = high
    pooled = made.add("pool", x, kind="mean")
    logits = made.dense(pooled, width, network.classes)
    made.graph.add("output", [logits], {"name": "logits", "role": "data"}, name="out_logits")
    return made.graph


def parameters(network: Network) -> int:
    """As the authors count: what is trained."""
    width, total = network.stages[0][0], network.rows * network.stages[0][0]
    for high, states in network.stages:
        for _ in range(network.layers):
            total += states * width + high * states + states + 2 * high + high * high + high
            total += high if width == high else high * width + width * high + high
            width = high
    return total + width * network.classes + network.classes


class _Builder:
    def __init__(self, network: Network, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph(f"event-ssm-{network.classes}", {"form": "sequence"})

    def input(self, name: str, element: Element) -> Value:
        role = "dt" if name == "dt" else "data"
        return self.graph.add("input", [], {"name": name, "type": StreamType((), element), "role": role}, name=name)

    def add(self, op: str, *operands: Value | None, **attrs: object) -> Value:
        return self.graph.add(op, operands, attrs)

    def normal(self, rows: int, cols: int) -> Tensor:
        return Tensor(self.rng.standard_normal((rows, cols)) / np.sqrt(rows))

    def dense(self, x: Value, rows: int, cols: int) -> Value:
        return self.add("linear", x, weight=self.normal(rows, cols), bias=Tensor(self.rng.standard_normal(cols) / 10))

    def block(self, u: Value, dt: Value, width: int, high: int, states: int, stride: int) -> Value:
        y = self.add("ssm", u, dt, system=self.system(width, high, states))
        skip = u
        if stride > 1:
            y = self.add("downsample", y, stride=stride, kind="take", offset=stride - 1)
            skip = self.add("downsample", u, stride=stride, kind="mean")
        if width != high:
            skip = self.dense(skip, width, high)
        y = self.add("norm", y, kind="layer", epsilon=1e-6, scale=Tensor(np.ones(high)), shift=Tensor(np.zeros(high)))
        gate = self.dense(self.add("unary", y, fn="gelu"), high, high)
        return self.add("binary", self.add("gate", y, gate, fn="sigmoid"), skip, fn="add")

    def system(self, width: int, high: int, states: int) -> StateSpace:
        """One decay a layer; B and C real."""
        tau = float(np.exp(self.rng.uniform(*np.log(TAUS))))
        b = self.rng.standard_normal((1, states, width)) / np.sqrt(width)
        c = self.rng.standard_normal((1, high, states)) / np.sqrt(states)
        if width == high:
            d = np.diag(self.rng.standard_normal(high))[None]
        else:
            d = self.rng.standard_normal((1, high, width)) / np.sqrt(width)
        a = np.full((1, states), -1.0 / tau)
        return StateSpace(a, b, c, d, np.ones((1, 1)), asynchronous=True)
