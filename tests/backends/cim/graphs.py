"""Random tile graphs, built by hand: every op that a graph of that level may hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ssmc.ir import Graph, Piece, SequenceType, StreamType, Tensor, Value
from tests.ir.grids import random_rounding, random_sums

ARRAY_ROWS, ARRAY_COLS, ARRAYS, PER_CORE = 8, 6, 400, 3


class Tiles:
    """A tile graph under construction; `streams` and `sequences` are what further ops may read."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph("random", {"form": "sequence"})
        self.streams: list[Value] = []
        self.sequences: list[Value] = []
        self.unit = 0
        self.inputs: dict[str, tuple[str, tuple[int, ...]]] = {}
        self.dt: Value | None = None

    def input(self, name: str, kind: StreamType | SequenceType, role: str = "data") -> Value:
        self.inputs[name] = ("stream" if isinstance(kind, StreamType) else "sequence", kind.shape)
        return self.graph.add("input", [], {"name": name, "type": kind, "role": role}, name=name)

    def output(self, name: str, value: Value) -> None:
        self.graph.add("output", [value], {"name": name}, name=f"out_{name}")

    def shape(self, value: Value) -> tuple[int, ...]:
        kind: Any = self.graph.type(value)
        return tuple(kind.shape)

    def add(self, op: str, *operands: Value | None, **attrs: Any) -> Value:
        return self.graph.add(op, operands, attrs, provenance=[f"onnx_{op}"])

    def constant(self, *shape: int) -> Value:
        return self.add("constant", value=Tensor(self.rng.normal(size=shape)))

    def pieces(self, rows: int, cols: int) -> tuple[Piece, ...]:
        """A grid over the matrix, some of it left out, anywhere on the chip."""
        high, wide = int(self.rng.integers(1, ARRAY_ROWS + 1)), int(self.rng.integers(1, ARRAY_COLS // 2 + 1))
        found = []
        for k in range(0, rows, high):
            for n in range(0, cols, wide):
                if self.rng.random() < 0.85:
                    found.append(Piece(k, min(k + high, rows), n, min(n + wide, cols), self.unit % ARRAYS))
                    self.unit += int(self.rng.integers(1, 3))
        return tuple(found)

    def matmul(self, x: Value, cols: int) -> Value:
        rows = self.shape(x)[-1]
        weight = self.rng.normal(size=(rows, cols)) / np.sqrt(rows)
        bias = Tensor(self.rng.normal(size=cols)) if self.rng.random() < 0.5 else None
        return self.add("tile.matmul", x, weight=Tensor(weight), bias=bias, pieces=self.pieces(rows, cols))

    def vector(self, x: Value) -> Value:
        """The value as one feature axis."""
        shape = self.shape(x)
        return x if len(shape) == 1 else self.add("reshape", x, shape=(int(np.prod(shape)),))


def _pick(t: Tiles) -> Value:
    return t.streams[int(t.rng.integers(len(t.streams)))]


def _matmul(t: Tiles) -> None:
    x = _pick(t)
    t.streams.append(t.matmul(x if t.shape(x) else t.vector(x), int(t.rng.integers(1, 9))))


def _state(t: Tiles) -> None:
    rng, v = t.rng, t.vector(_pick(t))
    width = t.shape(v)[0]
    timed = t.dt is not None and t.graph.type(t.dt) == StreamType(()) and rng.random() < 0.6
    timed = timed and t.graph.type(v).rate == 1  # type: ignore[union-attr]
    complex_ = width % 2 == 0 and rng.random() < 0.6
    count = width // 2 if complex_ else width
    if timed:
        decay = -rng.uniform(0.01, 2.0, count) + (1j * rng.uniform(-9, 9, count) if complex_ else 0.0)
    else:
        decay = rng.uniform(0.1, 0.99, count) * (
            np.exp(1j * rng.uniform(-3.1, 3.1, count)) if complex_ else rng.choice([-1, 1], count)
        )
    x0 = None
    if rng.random() < 0.4:
        x0 = t.input(f"x{len(t.inputs)}", SequenceType((width,)), "state") if rng.random() < 0.6 else t.constant(width)
    bank = str(rng.choice(["volatile", "digital", ""]))
    pieces = (Piece(0, count, 0, 1, 0),) if rng.random() < 0.8 else (Piece(0, max(1, count // 2), 0, 1, 0),)
    kinds = {"read_before": bool(rng.random() < 0.3), "reverse": bool(rng.random() < 0.2)}
    x = t.add(
        "tile.state",
        v,
        t.dt if timed else None,
        x0,
        decay=Tensor(decay),
        asynchronous=bool(timed),
        bank=bank,
        pieces=pieces,
        **kinds,
    )
    t.streams.append(x)
    t.sequences.append(Value(x.node, 1))


def _recurrence(t: Tiles) -> None:
    rng, v = t.rng, t.vector(_pick(t))
    width = t.shape(v)[0]
    source = t.add("unary", v, fn="tanh") if rng.random() < 0.7 else t.add("unary", t.constant(width), fn="tanh")
    a = t.add("binary", source, t.add("constant", value=Tensor(0.6)), fn="mul")
    complex_ = width % 2 == 0 and bool(rng.random() < 0.5)
    kinds = {"read_before": bool(rng.random() < 0.3), "reverse": bool(rng.random() < 0.2)}
    x = t.add("tile.recurrence", a, v, t.constant(width) if rng.random() < 0.3 else None, is_complex=complex_, **kinds)
    t.streams.append(x)
    t.sequences.append(Value(x.node, 1))


def _ssm(t: Tiles) -> None:
    rng, u = t.rng, t.vector(_pick(t))
    channels, states = t.shape(u)[0], int(rng.integers(1, 4))
    shape, complex_ = (channels, states), rng.random() < 0.5

    def draw() -> Any:
        return rng.normal(size=shape) + (1j * rng.normal(size=shape) if complex_ else 0.0)

    decay = rng.uniform(0.1, 0.95, shape) * (np.exp(1j * rng.uniform(-3, 3, shape)) if complex_ else 1.0)
    pieces = (Piece(0, channels, 0, states),) if rng.random() < 0.7 else (Piece(0, channels, 0, 1),)
    y = t.add(
        "tile.ssm",
        u,
        decay=Tensor(decay),
        b=Tensor(draw()),
        c=Tensor(draw()),
        d=Tensor(rng.normal(size=channels)),
        pieces=pieces,
        reverse=bool(rng.random() < 0.2),
    )
    t.streams.append(y)
    t.sequences.append(Value(y.node, 1))


def _unary(t: Tiles) -> None:
    names = ["tanh", "sigmoid", "gelu", "silu", "relu", "abs", "sin", "softplus", "identity", "elu", "gelu_tanh"]
    t.streams.append(t.add("unary", _pick(t), fn=str(t.rng.choice(names))))


def _binary(t: Tiles) -> None:
    a = _pick(t)
    b = _partner(t, a)
    pair = [a, b] if t.rng.random() < 0.5 else [b, a]
    t.streams.append(t.add("binary", *pair, fn=str(t.rng.choice(["add", "sub", "mul", "max", "min", "greater"]))))


def _partner(t: Tiles, a: Value) -> Value:
    """A value that broadcasts against `a`: a stream of its rate, a sequence, or a constant."""
    shape, rate = t.shape(a), t.graph.type(a).rate  # type: ignore[union-attr]
    same = [s for s in t.streams if t.graph.type(s).rate == rate and t.shape(s) == shape]  # type: ignore[union-attr]
    same += [s for s in t.sequences if t.shape(s) == shape]
    if same and t.rng.random() < 0.7:
        return same[int(t.rng.integers(len(same)))]
    return t.constant(*(1 if t.rng.random() < 0.4 else d for d in shape[int(t.rng.integers(len(shape) + 1)) :]))


def _gate(t: Tiles) -> None:
    a = _pick(t)
    t.streams.append(t.add("gate", a, _partner(t, a), fn=str(t.rng.choice(["sigmoid", "silu"]))))


def _select(t: Tiles) -> None:
    a = _pick(t)
    t.streams.append(t.add("select", t.add("unary", a, fn="heaviside"), a, _partner(t, a)))


def _norm(t: Tiles) -> None:
    x = _pick(t)
    if not t.shape(x):
        return
    width = t.shape(x)[-1]
    scale, shift = (Tensor(t.rng.normal(size=width)) if t.rng.random() < 0.6 else None for _ in range(2))
    groups = 2 if width % 2 == 0 and t.rng.random() < 0.3 else 1
    kind = str(t.rng.choice(["layer", "rms"]))
    t.streams.append(t.add("norm", x, kind=kind, epsilon=0.1, scale=scale, shift=shift, groups=groups))


def _softmax(t: Tiles) -> None:
    x = _pick(t)
    if t.shape(x):
        t.streams.append(t.add("softmax", x, log=bool(t.rng.random() < 0.3)))


def _shape_op(t: Tiles) -> None:
    x, rng = _pick(t), t.rng
    rank = len(t.shape(x))
    if not rank:
        t.streams.append(t.add("broadcast", x, shape=(2, 3)))
        return
    axis = -int(rng.integers(1, rank + 1))
    size = t.shape(x)[axis]
    match int(rng.integers(6)):
        case 0:
            y = t.add("slice", x, axis=axis, start=int(rng.integers(size)), stop=None, step=int(rng.integers(1, 3)))
        case 1:
            y = t.add("take", x, axis=axis, index=Tensor(rng.integers(-size, size, int(rng.integers(1, 6)))))
        case 2:
            y = t.add("transpose", x, permutation=tuple(int(i) for i in rng.permutation(rank)))
        case 3:
            y = t.add("concat", x, _same_but(t, x, axis), axis=axis)
        case 4 if rank < 3:
            y = t.add("broadcast", x, shape=(2, *t.shape(x)))
        case _:
            axes = tuple(-int(i) - 1 for i in rng.permutation(rank)[: int(rng.integers(1, rank + 1))])
            fn = str(rng.choice(["sum", "mean", "max", "min", "prod"]))
            y = t.add("reduce", x, fn=fn, axes=axes, keepdims=bool(rng.random() < 0.5))
    t.streams.append(y)


def _same_but(t: Tiles, x: Value, axis: int) -> Value:
    shape = list(t.shape(x))
    if t.rng.random() < 0.4:
        return t.add("unary", x, fn="neg")
    shape[axis] = int(t.rng.integers(1, 3))
    return t.constant(*shape)


def _contract(t: Tiles) -> None:
    x = _pick(t)
    shape = t.shape(x)
    if len(shape) == 1:
        n = int(t.rng.integers(1, 4))
        equation, other = str(t.rng.choice(["h,hn->n", "h,n->hn", "h,h->", "h,nh->n", "h,hn->nh"])), t.constant
        second = equation.split("->")[0].split(",")[1]
        t.streams.append(t.add("contract", x, other(*(shape[0] if c == "h" else n for c in second)), equation=equation))
    elif len(shape) == 2:
        equation = str(t.rng.choice(["hn,hn->h", "hn,hm->nm", "hn,hn->", "hn,hm->n"]))
        second = x if "m" not in equation and t.rng.random() < 0.5 else t.constant(*shape)
        t.streams.append(t.add("contract", x, second, equation=equation))


def _fir(t: Tiles) -> None:
    u = t.vector(_pick(t))
    channels, taps = t.shape(u)[0], int(t.rng.integers(1, 5))
    history = None
    if taps > 1 and t.rng.random() < 0.4:
        history = t.input(f"h{len(t.inputs)}", SequenceType((channels, taps - 1)), "state")
    kernel = Tensor(t.rng.normal(size=(channels, taps)))
    y = t.add("fir", u, history, kernel=kernel, reverse=bool(t.rng.random() < 0.2))
    t.streams.append(y)
    if taps > 1:
        t.sequences.append(Value(y.node, 1))


def _spike(t: Tiles) -> None:
    v = _pick(t)
    rows = ("decay", "threshold", "fired_decay", "fired_gain", "fired_offset")
    attrs = {name: Tensor(t.rng.uniform(-0.9, 0.9, size=t.shape(v))) for name in rows}
    start = t.input(f"x{len(t.inputs)}", SequenceType(t.shape(v)), "state") if t.rng.random() < 0.4 else None
    choices = {name: bool(t.rng.random() < 0.3) for name in ("reverse", "read_before", "or_equal", "immediate")}
    y = t.add("spike", v, start, **attrs, **choices)
    t.streams.append(y)
    t.sequences.append(Value(y.node, 1))


def _rounded(t: Tiles) -> None:
    v = _pick(t)
    start = t.input(f"x{len(t.inputs)}", SequenceType(t.shape(v)), "state") if t.rng.random() < 0.4 else None
    choices = {name: bool(t.rng.random() < 0.3) for name in ("reverse", "read_before")}
    y = t.add("rounded", v, start, **random_rounding(t.rng, t.shape(v)), **choices)
    t.streams.append(y)
    t.sequences.append(Value(y.node, 1))


def _rounded_sums(t: Tiles) -> None:
    v = _pick(t)
    if len(t.shape(v)) != 1:
        return
    start = t.input(f"x{len(t.inputs)}", SequenceType(t.shape(v)), "state") if t.rng.random() < 0.4 else None
    choices = {name: bool(t.rng.random() < 0.3) for name in ("reverse", "read_before")}
    y = t.add("rounded_sums", v, start, **random_sums(t.rng, t.shape(v)[0]), **choices)
    t.streams.append(y)
    t.sequences.append(Value(y.node, 1))


def _delay(t: Tiles) -> None:
    t.streams.append(t.add("delay", _pick(t), steps=int(t.rng.integers(1, 4))))


def _reverse(t: Tiles) -> None:
    t.streams.append(t.add("reverse", _pick(t)))


def _pool(t: Tiles) -> None:
    x = _pick(t)
    kind = str(t.rng.choice(["mean", "last", "first", "max", "sum", "weighted_mean"]))
    if kind != "weighted_mean":
        t.sequences.append(t.add("pool", x, kind=kind))
        return
    lifted = t.add("unary", x, fn="sigmoid")
    t.sequences.append(t.add("pool", x, lifted, kind=kind))


def _spread(t: Tiles) -> None:
    if t.sequences:
        value = t.sequences[int(t.rng.integers(len(t.sequences)))]
        t.streams.append(t.add("spread", value, _pick(t)))


def _head(t: Tiles) -> None:
    if t.sequences:
        x = t.sequences[int(t.rng.integers(len(t.sequences)))]
        if t.shape(x):
            t.sequences.append(t.add("unary", t.matmul(x, int(t.rng.integers(1, 5))), fn="tanh"))


def _downsample(t: Tiles) -> None:
    x = _pick(t)
    if t.graph.type(x).rate < 1:  # type: ignore[union-attr,operator]
        return
    kind = str(t.rng.choice(["take", "mean", "sum", "max"]))
    offset = int(t.rng.integers(2)) if kind == "take" else 0
    t.streams.append(t.add("downsample", x, stride=2, kind=kind, offset=offset))


STEPS: tuple[Callable[[Tiles], None], ...] = (
    *(_matmul, _matmul, _state, _state, _recurrence, _ssm, _unary, _binary, _gate, _select, _norm, _softmax),
    *(
        _shape_op,
        _shape_op,
        _contract,
        _fir,
        _spike,
        _rounded,
        _rounded_sums,
        _delay,
        _reverse,
        _pool,
        _spread,
        _head,
        _downsample,
    ),
)


def random_graph(seed: int, layers: int) -> Tiles:
    """A graph of about so many layers with inputs u (and dt, tokens, initial states), and several outputs."""
    t = Tiles(seed)
    t.streams.append(t.input("u", StreamType((int(t.rng.integers(1, 7)),))))
    if t.rng.random() < 0.5:
        t.dt = t.input("dt", StreamType(()), "dt")
    if t.rng.random() < 0.3:
        token = t.input("token", StreamType((), "index"))
        t.streams.append(t.add("embed", token, table=Tensor(t.rng.normal(size=(5, int(t.rng.integers(1, 5)))))))
    for _ in range(layers):
        t.rng.choice(np.array(STEPS, object))(t)
    t.output("y", t.streams[-1])
    for i in range(min(3, len(t.streams) - 1)):
        t.output(f"s{i}", _pick(t))
    for i, value in enumerate(t.sequences[-3:]):
        t.output(f"q{i}", value)
    t.graph.prune()
    return t


def arrays(t: Tiles, batch: int, steps: int, seed: int) -> dict[str, Any]:
    """Arrays for the graph's inputs."""
    rng, found = np.random.default_rng(seed), {}
    for node in t.graph.inputs():
        name, (kind, shape) = node.op["name"], t.inputs[node.op["name"]]
        outer = (batch, steps) if kind == "stream" else (batch,)
        match name:
            case "dt":
                found[name] = rng.exponential(size=outer) * (rng.random(outer) < 0.9)
            case "token":
                found[name] = rng.integers(0, 5, outer)
            case _:
                found[name] = rng.normal(size=(*outer, *shape))
    return found
