"""Random tile graphs with every op that the tile level may hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from ssmc.ir import ConstantType, Graph, Piece, SequenceType, StreamType, Tensor, Value
from tests.ir.grids import random_rounding, random_sums

WIDTH = 4


@dataclass
class Builder:
    """A graph under construction; streams by rate, and values per sequence, that later ops may read."""

    seed: int
    graph: Graph = field(default_factory=lambda: Graph("random"))
    streams: list[Value] = field(default_factory=list)
    sequences: list[Value] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.streams.append(self.input("u", StreamType((WIDTH,))))
        self.dt = self.input("dt", StreamType(()))
        self.token = self.input("token", StreamType((2,), "index"))
        self.sequences.append(self.input("s", SequenceType((WIDTH,))))

    def input(self, name: str, kind: StreamType | SequenceType) -> Value:
        return self.graph.add("input", [], {"name": name, "type": kind}, name=name)

    def constant(self, *shape: int) -> Value:
        return self.graph.add("constant", [], {"value": Tensor(self.rng.standard_normal(shape))})

    def pick(self, values: list[Value]) -> Value:
        return values[int(self.rng.integers(len(values)))]

    def stream(self, full_rate: bool = False) -> Value:
        fit = [v for v in self.streams if not full_rate or self.kind(v).rate == 1]
        return self.vector(self.pick(fit))

    def kind(self, value: Value) -> StreamType:
        kind = self.graph.type(value)
        assert isinstance(kind, StreamType | SequenceType | ConstantType)
        return kind  # type: ignore[return-value]

    def shape(self, value: Value) -> tuple[int, ...]:
        return self.kind(value).shape

    def vector(self, value: Value) -> Value:
        """The value with one feature axis of `WIDTH`."""
        if self.shape(value) == (WIDTH,):
            return value
        flat = self.add("reshape", value, shape=(prod(self.shape(value)),))
        size = self.shape(flat)[0]
        index = np.arange(WIDTH) % size
        return flat if size == WIDTH else self.add("take", flat, axis=-1, index=Tensor(index))

    def add(self, op: str, *operands: Value | None, **attrs: object) -> Value:
        return self.graph.add(op, operands, attrs, provenance=[f"/{op}"])

    def chance(self, p: float = 0.5) -> bool:
        return bool(self.rng.random() < p)

    def partner(self, value: Value) -> Value:
        """Something that can meet a stream of `WIDTH`: constant, sequence, scalar, or a stream of its rate."""
        mates = [v for v in self.streams if self.kind(v) == self.kind(value)]
        match int(self.rng.integers(5)):
            case 0:
                return self.constant(WIDTH)
            case 1:
                return self.constant()
            case 2:
                return self.vector(self.pick(self.sequences))
            case 3 if self.kind(value).rate == 1:
                return self.dt
        return self.pick(mates) if mates else value


def pieces(b: Builder, rows: int, cols: int) -> tuple[Piece, ...]:
    """A cover of a matrix, sometimes with holes."""
    k, n = int(b.rng.integers(1, rows + 1)), int(b.rng.integers(1, cols + 1))
    every = [Piece(i, min(i + k, rows), j, min(j + n, cols)) for i in range(0, rows, k) for j in range(0, cols, n)]
    kept = [p for p in every if b.chance(0.8)] if b.chance(0.3) else every
    return tuple(kept or every[:1])


def matmul(b: Builder) -> None:
    x, out = b.stream() if b.chance(0.8) else b.vector(b.pick(b.sequences)), int(b.rng.integers(1, 6))
    rows = WIDTH
    if b.chance(0.3):
        x, rows = b.add("reshape", x, shape=(2, 2)), 2
    bias = Tensor(b.rng.standard_normal(out)) if b.chance() else None
    y = b.add(
        "tile.matmul", x, weight=Tensor(b.rng.standard_normal((rows, out))), bias=bias, pieces=pieces(b, rows, out)
    )
    keep(b, y)


def keep(b: Builder, value: Value) -> None:
    (b.streams if isinstance(b.graph.type(value), StreamType) else b.sequences).append(value)


def decays(b: Builder, shape: tuple[int, ...], is_complex: bool) -> NDArray[np.complexfloating]:
    size = b.rng.uniform(0.1, 0.99, shape)
    return size * np.exp(1j * b.rng.uniform(-3, 3, shape)) if is_complex else size * b.rng.choice([-1, 1], shape)


def flags(b: Builder) -> dict[str, bool]:
    return {"reverse": b.chance(0.3), "read_before": b.chance(0.3)}


def start(b: Builder, width: int) -> list[Value]:
    """No initial states, constant ones, or computed ones."""
    if b.chance():
        return []
    if b.chance(0.3):
        return [b.constant(width)]
    x = b.vector(b.pick(b.sequences))
    return [b.add("take", x, axis=-1, index=Tensor(np.arange(width) % WIDTH))]


def state(b: Builder) -> None:
    is_complex, asynchronous = b.chance(), b.chance(0.3)
    x = b.stream(full_rate=asynchronous)
    count = WIDTH // 2 if is_complex else WIDTH
    decay = decays(b, (count,), is_complex)
    if asynchronous:
        decay = np.log(np.abs(decay)) + (1j * np.angle(decay) if is_complex else 0)
    cuts = (Piece(0, 1, 0, 1), Piece(1, count, 0, 1)) if b.chance() else (Piece(0, count, 0, 1),)
    operands = [x, b.dt if asynchronous else None, *start(b, WIDTH)]
    y = b.add("tile.state", *operands, decay=Tensor(decay), asynchronous=asynchronous, pieces=cuts, **flags(b))
    last(b, y)


def last(b: Builder, y: Value) -> None:
    b.streams.append(y)
    if b.chance(0.3):
        b.sequences.append(Value(y.node, 1))


def ssm(b: Builder) -> None:
    is_complex, n = b.chance(), int(b.rng.integers(1, 4))
    shape = (WIDTH, n)
    c = b.rng.standard_normal(shape) + (1j * b.rng.standard_normal(shape) if is_complex else 0)
    drive = b.rng.standard_normal(shape) + (1j * b.rng.standard_normal(shape) if is_complex else 0)
    k, m = int(b.rng.integers(1, WIDTH + 1)), int(b.rng.integers(1, n + 1))
    cuts = tuple(Piece(i, min(i + k, WIDTH), j, min(j + m, n)) for i in range(0, WIDTH, k) for j in range(0, n, m))
    numbers = {"decay": decays(b, shape, is_complex), "b": drive, "c": c, "d": b.rng.standard_normal(WIDTH)}
    tensors = {name: Tensor(array) for name, array in numbers.items()}
    u, liquid = b.stream(), b.chance(0.4)
    if liquid:
        u = b.add("binary", b.add("unary", u, fn="tanh"), b.add("constant", value=Tensor(np.array(0.1))), fn="mul")
    x0 = start(b, WIDTH * n * (1 + is_complex))
    y = b.add("tile.ssm", u, *x0, **tensors, liquid=liquid, pieces=cuts, **flags(b))
    last(b, y)


def recurrence(b: Builder) -> None:
    x, is_complex = b.add("unary", b.stream(), fn="tanh"), b.chance()
    if b.chance(0.4):  # Liquid-S4
        x = b.add("binary", x, b.add("constant", value=Tensor(np.array(0.3))), fn="mul")
        rates = b.add("constant", value=Tensor(b.rng.uniform(-0.4, 0.4, WIDTH)))
        a = b.add("binary", *((x, rates) if b.chance() else (rates, x)), fn="add")
        if b.chance(0.3):
            keep(b, a)
    else:
        a = b.add("unary", b.partner(x), fn="tanh")
        a = a if b.shape(a) == (WIDTH,) else b.add("broadcast", a, shape=(WIDTH,))
    last(b, b.add("tile.recurrence", a, x, *start(b, WIDTH), is_complex=is_complex, **flags(b)))


def fir(b: Builder) -> None:
    taps = int(b.rng.integers(1, 4))
    history = []
    if taps > 1 and b.chance():
        x = b.vector(b.pick(b.sequences))
        index = Tensor(np.arange(WIDTH * (taps - 1)) % WIDTH)
        history = [b.add("reshape", b.add("take", x, axis=-1, index=index), shape=(WIDTH, taps - 1))]
    kernel = Tensor(b.rng.standard_normal((WIDTH, taps)))
    y = b.add("fir", b.stream(), *history, kernel=kernel, reverse=b.chance(0.3))
    b.streams.append(y)
    if taps > 1 and b.chance(0.3):
        b.sequences.append(Value(y.node, 1))


def spike(b: Builder) -> None:
    rows = ("decay", "threshold", "fired_decay", "fired_gain", "fired_offset")
    attrs = {name: Tensor(b.rng.uniform(-0.9, 0.9, WIDTH)) for name in rows}
    kinds = {"or_equal": b.chance(), "immediate": b.chance()}
    last(b, b.add("spike", b.vector(b.stream()), *start(b, WIDTH), **attrs, **kinds, **flags(b)))


def rounded(b: Builder) -> None:
    attrs = random_rounding(b.rng, (WIDTH,))
    last(b, b.add("rounded", b.vector(b.stream()), *start(b, WIDTH), **attrs, **flags(b)))


def rounded_sums(b: Builder) -> None:
    attrs = random_sums(b.rng, WIDTH)
    last(b, b.add("rounded_sums", b.vector(b.stream()), *start(b, WIDTH), **attrs, **flags(b)))


def unary(b: Builder) -> None:
    fn = ("gelu", "sigmoid", "tanh", "silu", "relu", "softplus", "erf", "identity", "abs", "sin")[b.rng.integers(10)]
    keep(b, b.add("unary", b.stream() if b.chance(0.8) else b.pick(b.sequences), fn=fn))


def binary(b: Builder) -> None:
    x = b.stream()
    y = b.partner(x)
    x, y = (x, y) if b.chance() else (y, x)
    keep(b, b.add("binary", x, y, fn=("add", "sub", "mul", "max", "min", "greater")[b.rng.integers(6)]))


def outer(b: Builder) -> None:
    """Broadcasting over several axes: (4, 1) with (4,), (2, 1, 2) with (2, 2, 1)."""
    x = b.stream()
    if b.chance():
        a, c = b.add("reshape", x, shape=(WIDTH, 1)), b.partner(x)
    else:
        a = b.add("reshape", x, shape=(2, 1, 2))
        c = b.add("reshape", x, shape=(2, 2, 1))
    keep(b, b.add("binary", a, c, fn="mul") if b.chance() else b.add("gate", c, a, fn="sigmoid"))


def gate(b: Builder) -> None:
    x = b.stream()
    keep(b, b.add("gate", x, b.partner(x), fn=("sigmoid", "silu", "identity", "tanh")[b.rng.integers(4)]))


def select(b: Builder) -> None:
    x = b.stream()
    condition = b.add("unary", b.partner(x), fn="heaviside")
    keep(b, b.add("select", condition, x, b.partner(x)))


def norm(b: Builder) -> None:
    scale = Tensor(b.rng.standard_normal(WIDTH)) if b.chance() else None
    shift = Tensor(b.rng.standard_normal(WIDTH)) if b.chance() else None
    kind, groups = ("layer", "rms")[b.rng.integers(2)], (1, 2)[b.rng.integers(2)]
    x = b.stream() if b.chance(0.8) else b.vector(b.pick(b.sequences))
    keep(b, b.add("norm", x, kind=kind, epsilon=0.5, scale=scale, shift=shift, groups=groups))


def softmax(b: Builder) -> None:
    x = b.stream()
    x = b.add("reshape", x, shape=(2, 2)) if b.chance() else x
    keep(b, b.add("softmax", x, log=b.chance(0.3)))


def reduce(b: Builder) -> None:
    fn = ("sum", "mean", "max", "min", "prod")[b.rng.integers(5)]
    x = b.add("reshape", b.stream(), shape=(2, 1, 2))
    axes = ((-1,), (-3,), (-1, -3), (-1, -2, -3), ())[b.rng.integers(5)]
    keep(b, b.add("reduce", x, fn=fn, axes=axes, keepdims=b.chance()))


def concat(b: Builder) -> None:
    x = b.stream()
    other = b.partner(x)
    other = other if b.shape(other) == (WIDTH,) else b.add("broadcast", other, shape=(WIDTH,))
    if b.chance(0.4):
        parts = [b.add("reshape", v, shape=(2, 2)) for v in (x, other)]
        keep(b, b.add("concat", *parts, axis=(-1, -2)[b.rng.integers(2)]))
        return
    parts = [x, other] if b.chance() else [other, x]
    keep(b, b.add("concat", *parts, axis=-1))


def rearrange(b: Builder) -> None:
    x = b.stream()
    match int(b.rng.integers(5)):
        case 0:
            y = b.add("slice", x, axis=-1, start=1, stop=3, step=1)
        case 1:
            y = b.add("slice", x, axis=-1, start=None, stop=None, step=-1)
        case 2:
            y = b.add("transpose", b.add("reshape", x, shape=(2, 2)), permutation=(1, 0))
        case 3:
            y = b.add("take", x, axis=-1, index=Tensor(np.array(2)))
        case _:
            y = b.add("broadcast", b.add("reshape", x, shape=(4, 1)), shape=(4, 3))
    keep(b, y)


def contract(b: Builder) -> None:
    x = b.stream()
    equation, left, right = (
        ("hn,n->h", (2, 2), (2,)),
        ("h,n->hn", (4,), (2,)),
        ("hn,hn->h", (2, 2), (2, 2)),
        ("ab,bc->ca", (2, 2), (2, 2)),
        ("aa,b->b", (2, 2), (2,)),
        ("ab,c->c", (2, 2), (4,)),
    )[b.rng.integers(6)]
    a = b.add("reshape", x, shape=left)
    size = prod(right)
    source = b.pick([x, b.constant(WIDTH), b.vector(b.pick(b.sequences))])
    c = b.add("reshape", b.add("slice", source, axis=-1, start=0, stop=size, step=1), shape=right)
    keep(b, b.add("contract", a, c, equation=equation))


def embed(b: Builder) -> None:
    b.streams.append(b.add("embed", b.token, table=Tensor(b.rng.standard_normal((5, 3)))))


def pool(b: Builder) -> None:
    x, kind = b.stream(), ("mean", "last", "first", "max", "sum", "weighted_mean")[b.rng.integers(6)]
    if kind == "weighted_mean":
        weight = b.add("unary", b.dt if b.kind(x).rate == 1 and b.chance() else x, fn="sigmoid")
        b.sequences.append(b.add("pool", x, weight, kind=kind))
    else:
        b.sequences.append(b.add("pool", x, kind=kind))


def downsample(b: Builder) -> None:
    kind, stride = ("take", "mean", "sum", "max")[b.rng.integers(4)], int(b.rng.integers(1, 4))
    offset = int(b.rng.integers(stride)) if kind == "take" else 0
    x = b.stream(full_rate=True)
    y = b.add("downsample", x, stride=stride, kind=kind, offset=offset)
    # streams of one rate may differ in length by a step here: this one is used on its own
    y = b.add("unary", y, fn="tanh")
    b.sequences.append(b.add("pool", y, kind="sum"))
    b.graph.add("output", [y], {"name": f"low{len(b.graph)}"})


def reverse(b: Builder) -> None:
    b.streams.append(b.add("reverse", b.stream()))


def delay(b: Builder) -> None:
    b.streams.append(b.add("delay", b.stream(), steps=int(b.rng.integers(1, 4))))


def spread(b: Builder) -> None:
    b.streams.append(b.add("spread", b.pick(b.sequences), b.stream()))


OPS: dict[str, Callable[[Builder], None]] = {
    f.__name__: f
    for f in (
        *(
            matmul,
            state,
            ssm,
            recurrence,
            fir,
            spike,
            rounded,
            rounded_sums,
            unary,
            binary,
            outer,
            gate,
            select,
            norm,
            softmax,
            reduce,
            concat,
        ),
        *(rearrange, contract, embed, pool, downsample, reverse, delay, spread),
    )
}


def build(seed: int, ops: list[str]) -> Graph:
    """A graph of the named ops in order, with its last streams and sequence values as outputs."""
    b = Builder(seed)
    for name in ops:
        OPS[name](b)
    for i, value in enumerate(b.streams[-2:]):
        b.graph.add("output", [value], {"name": f"stream{i}"})
    for i, value in enumerate(b.sequences[-2:]):
        b.graph.add("output", [value], {"name": f"sequence{i}"})
    return b.graph


def inputs(seed: int, batch: int, steps: int) -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(seed)
    return {
        "u": rng.standard_normal((batch, steps, WIDTH)),
        "dt": rng.uniform(0.1, 2.0, (batch, steps)),
        "token": rng.integers(-5, 5, (batch, steps, 2)),
        "s": rng.standard_normal((batch, WIDTH)),
    }
