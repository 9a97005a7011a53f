"""The twelve models of Long Range Arena (arXiv 2011.04006), S4 and Liquid-S4, with weights at random.

Sizes are those of the public configurations of S4 (arXiv 2111.00396) and Liquid-S4 (arXiv 2209.12951). A block is
SSM (D included) -> GELU -> linear H -> 2H, as its two halves -> GLU -> + residual -> batch norm. N is the order of a
channel's real system in each direction: ceil(N / 2) conjugate pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssmc.frontend.graph.builder import Builder, Operand
from ssmc.ir import Graph, StreamType, Tensor, Value
from ssmc.statespace import StateSpace

CLASSES = 10
VOCABULARY = 128


@dataclass(frozen=True)
class Model:
    """One row of the table. `tokens`: the input is a number of a table's row, else one pixel."""

    task: str
    liquid: bool
    length: int
    layers: int
    channels: int
    order: int
    bidirectional: bool
    tokens: bool

    @property
    def name(self) -> str:
        return f"{'Liquid-S4' if self.liquid else 'S4'} {self.task}"

    @property
    def states(self) -> int:
        """Complex states of a channel in a direction."""
        return -(-self.order // 2)

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1


def _task(
    task: str, length: int, tokens: bool, s4: tuple[int, int, int], liquid: tuple[int, int, int, bool]
) -> list[Model]:
    return [
        Model(task, False, length, *s4, bidirectional=True, tokens=tokens),
        Model(task, True, length, *liquid[:3], bidirectional=liquid[3], tokens=tokens),
    ]


MODELS = (
    *_task("ListOps", 2048, True, (6, 256, 4), (9, 128, 7, False)),
    *_task("Text", 4096, True, (6, 256, 4), (4, 128, 7, False)),
    *_task("Retrieval", 4000, True, (6, 256, 4), (6, 256, 64, False)),
    *_task("Image", 1024, False, (6, 512, 64), (6, 512, 512, True)),
    *_task("Pathfinder", 1024, False, (6, 256, 64), (6, 256, 64, False)),
    *_task("Path-X", 16384, False, (6, 256, 64), (6, 320, 64, False)),
)


def model(name: str) -> Model:
    """A model by its name, upper or lower case, spaces or hyphens. Raises KeyError."""
    wanted = name.lower().replace(" ", "-")
    return {m.name.lower().replace(" ", "-"): m for m in MODELS}[wanted]


def whole(m: Model, seed: int = 0) -> Graph:
    """Encoder, blocks, mean over time, decoder."""
    rng, b = np.random.default_rng(seed), Builder()
    x = _encoder(m, b, rng)
    for _ in range(m.layers):
        y = b.unary("gelu", _systems(m, b, x, rng))
        first, second = (
            b.linear(y, rng.standard_normal((m.channels, m.channels)) / m.channels**0.5, np.zeros(m.channels))
            for _ in range(2)
        )
        summed = b.binary("add", x, b.emit("gate", [first, second], fn="sigmoid"))
        scaled = b.binary("mul", summed, rng.uniform(0.9, 1.1, m.channels))
        x = b.binary("add", scaled, 0.1 * rng.standard_normal(m.channels))
    pooled = b.add("pool", [x], kind="mean")
    _output(b, b.linear(pooled, rng.standard_normal((m.channels, CLASSES)) / m.channels**0.5))
    return b.graph


def systems_alone(m: Model, seed: int = 0) -> Graph:
    """All state-space layers of the model, side by side; the mean of the sum of what they give.

    All channels see the same input, so that it does not take longer to fetch than a layer before would to make it.
    """
    rng, b = np.random.default_rng(seed), Builder()
    x = b.emit("take", [_input(b, StreamType((1,)))], axis=-1, index=Tensor(np.zeros(m.channels, np.int64)))
    total: Operand | None = None
    for reverse in (False, True)[: m.directions]:
        for _ in range(m.layers):
            y = _system(m, b, x, rng, reverse)
            total = y if total is None else b.binary("add", total, y)
    assert total is not None
    _output(b, b.add("pool", [total], kind="mean"))
    return b.graph


def inputs(
    m: Model, graph: Graph, batch: int = 1, length: int | None = None, seed: int = 1
) -> dict[str, NDArray[np.float64]]:
    """An input that fits the graph, of the task's length unless told."""
    rng, (node,) = np.random.default_rng(seed), graph.inputs()
    kind = node.types[0]
    assert isinstance(kind, StreamType)
    shape = (batch, length or m.length, *kind.shape)
    drawn = rng.integers(0, VOCABULARY, shape) if kind.element == "index" else rng.standard_normal(shape)
    return {node.op["name"]: drawn.astype(np.float64)}


def _input(b: Builder, kind: StreamType) -> Value:
    return b.graph.add("input", attrs={"name": "x", "type": kind, "axes": "bt" + "f" * len(kind.shape)}, name="x")


def _output(b: Builder, y: Operand) -> None:
    assert isinstance(y, Value)
    b.graph.add("output", [y], {"name": "y"})


def _encoder(m: Model, b: Builder, rng: np.random.Generator) -> Operand:
    if not m.tokens:
        return b.linear(_input(b, StreamType((1,))), rng.standard_normal((1, m.channels)), np.zeros(m.channels))
    token = _input(b, StreamType((), "index"))
    return b.emit("embed", [token], table=Tensor(rng.standard_normal((VOCABULARY, m.channels))))


def _systems(m: Model, b: Builder, x: Operand, rng: np.random.Generator) -> Operand:
    y = _system(m, b, x, rng, False)
    return b.binary("add", y, _system(m, b, x, rng, True)) if m.bidirectional else y


def _system(m: Model, b: Builder, x: Operand, rng: np.random.Generator, reverse: bool) -> Operand:
    """ZOH of A = -1/2 + i pi n (S4D-Lin, arXiv 2206.11893, equation 9), steps from 1e-3 to 1e-1.

    The backward half of a bidirectional model sees the future alone: it reads before it updates, and has no D.
    """
    h, n = m.channels, m.states
    dt = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), (h, 1)))
    a = (-0.5 + 1j * np.pi * np.arange(n)) * dt
    inward = 0.1 * dt[:, :, None] * np.ones((h, n, 1)) if m.liquid else ((np.exp(a) - 1) / a * dt)[:, :, None]
    c = (rng.standard_normal((h, 1, n)) + 1j * rng.standard_normal((h, 1, n))) / n**0.5
    d = np.zeros((h, 1, 1)) if reverse else rng.standard_normal((h, 1, 1))
    system = StateSpace(A=np.exp(a), B=inward.astype(complex), C=c, D=d, halved=True, read_before=reverse)
    return b.add("liquid_ssm" if m.liquid else "ssm", [x], system=system, reverse=reverse)
