"""One use of every op, and random graphs made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ssmc.ir import ConstantType, Graph, Piece, Place, SequenceType, StreamType, Tensor, Value
from ssmc.ir.tensor import Quantization
from ssmc.statespace import StateSpace
from tests.ir.grids import random_rounding, random_sums

F = 4  # features of every stream in these graphs
Draw = Callable[[st.SearchStrategy[Any]], Any]


def numbers(draw: Draw, *shape: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    return rng.standard_normal(shape)


def system(draw: Draw, *, asynchronous: bool = False) -> StateSpace:
    n = draw(st.integers(1, 3))
    a = -np.abs(numbers(draw, 1, n)) + (1j * numbers(draw, 1, n) if draw(st.booleans()) else 0.0)
    delta: Any = 0.5
    if not asynchronous:
        a, delta = np.exp(0.1 * a), None
    return StateSpace(
        a,
        numbers(draw, 1, n, F),
        numbers(draw, 1, F, n),
        numbers(draw, 1, F, F),
        delta=delta,
        asynchronous=asynchronous,
        halved=draw(st.booleans()),
        read_before=draw(st.booleans()),
        x0=draw(st.sampled_from([None, np.ones((1, n))])),
    )


def tensor(draw: Draw, *shape: int) -> Tensor:
    if draw(st.booleans()):
        return Tensor(numbers(draw, *shape))
    integers = np.round(4 * numbers(draw, *shape))
    return Tensor(integers * 0.25, Quantization(6, (0.25,) * shape[-1]))


def single(name: str, **attrs: Any) -> Callable[[Graph, Value, Draw], Value]:
    """A case that keeps the stream's type and has one operand."""
    return lambda g, x, draw: g.add(name, [x], attrs)


def _spike(g: Graph, x: Value, draw: Draw) -> Value:
    rows = ("decay", "threshold", "fired_decay", "fired_gain", "fired_offset")
    attrs = {name: Tensor(numbers(draw, F)) for name in rows}
    flags = {name: draw(st.booleans()) for name in ("or_equal", "immediate", "reverse")}
    return g.add("spike", [x], {**attrs, **flags})


def _rounded(g: Graph, x: Value, draw: Draw) -> Value:
    attrs = random_rounding(np.random.default_rng(draw(st.integers(0, 2**16))), (F,))
    start = [g.add("pool", [x], {"kind": "first"})] if draw(st.booleans()) else []
    flags = {name: draw(st.booleans()) for name in ("reverse", "read_before")}
    return g.add("rounded", [x, *start], {**attrs, **flags})


def _rounded_sums(g: Graph, x: Value, draw: Draw) -> Value:
    attrs = random_sums(np.random.default_rng(draw(st.integers(0, 2**16))), F)
    start = [g.add("pool", [x], {"kind": "first"})] if draw(st.booleans()) else []
    flags = {name: draw(st.booleans()) for name in ("reverse", "read_before")}
    return g.add("rounded_sums", [x, *start], {**attrs, **flags})


def _constant(g: Graph, x: Value, draw: Draw) -> Value:
    value = draw(st.sampled_from([numbers(draw, F), np.arange(F), np.ones(F, bool), numbers(draw, 9, F)[0]]))
    return g.add("binary", [x, g.add("constant", [], {"value": Tensor(np.asarray(value, float))})], {"fn": "add"})


def _ssm(g: Graph, x: Value, draw: Draw) -> Value:
    if draw(st.booleans()):
        return g.add("ssm", [x], {"system": system(draw), "reverse": draw(st.booleans())}, provenance=["Scan_1", "a b"])
    dt = g.add("input", [], {"name": f"dt{len(g)}", "type": StreamType(()), "axes": "bt", "role": "dt"})
    dt = g.add("unary", [dt], {"fn": "abs"})
    return g.add("ssm", [x, dt], {"system": system(draw, asynchronous=True)})


def _liquid_ssm(g: Graph, x: Value, draw: Draw) -> Value:
    decay, b, c = (np.exp(1j * numbers(draw, F, 2)) * 0.5, *(numbers(draw, F, 2) + 1j for _ in range(2)))
    system = StateSpace(A=decay, B=b[:, :, None], C=c[:, None], D=numbers(draw, F, 1, 1), halved=draw(st.booleans()))
    x0 = g.add("constant", [], {"value": Tensor(numbers(draw, 2 * F))}) if draw(st.booleans()) else None
    return g.add("liquid_ssm", [x, x0], {"system": system, "reverse": draw(st.booleans())})


def _recurrence(g: Graph, x: Value, draw: Draw) -> Value:
    a = g.add("unary", [x], {"fn": "sigmoid"})
    first = g.add("pool", [x], {"kind": "first"})
    return g.add("recurrence", [a, x, first], {"read_before": draw(st.booleans())})


def _pool(g: Graph, x: Value, draw: Draw) -> Value:
    return g.add("spread", [g.add("pool", [x], {"kind": draw(st.sampled_from(["mean", "max"]))}), x])


def _take(g: Graph, x: Value, draw: Draw) -> Value:
    return g.add("take", [x], {"axis": -1, "index": Tensor(np.arange(F)[::-1])})


def _slice(g: Graph, x: Value, draw: Draw) -> Value:
    halves = [g.add("slice", [x], {"axis": -1, "start": s, "stop": s + F // 2}) for s in (0, F // 2)]
    return g.add("concat", halves, {"axis": -1})


def _reshape(g: Graph, x: Value, draw: Draw) -> Value:
    square = g.add("reshape", [x], {"shape": (2, F // 2)})
    return g.add("reshape", [g.add("transpose", [square], {"permutation": (1, 0)})], {"shape": (F,)})


def _reduce(g: Graph, x: Value, draw: Draw) -> Value:
    mean = g.add("reduce", [x], {"fn": "mean", "axes": (-1,)})
    return g.add("broadcast", [mean], {"shape": (F,)})


def _contract(g: Graph, x: Value, draw: Draw) -> Value:
    outer = g.add("contract", [x, x], {"equation": "a,b->ab"})
    return g.add("contract", [outer, x], {"equation": "ab,b->a"})


def _complex(g: Graph, x: Value, draw: Draw) -> Value:
    z = g.add("complex", [x, g.add("unary", [x], {"fn": "tanh"})])
    return g.add("binary", [g.add("real", [z]), g.add("imag", [z])], {"fn": "sub"})


def _embed(g: Graph, x: Value, draw: Draw) -> Value:
    label = g.add("input", [], {"name": f"index{len(g)}", "type": SequenceType((), "index"), "axes": "b"})
    row = g.add("embed", [label], {"table": tensor(draw, 5, F)})
    return g.add("binary", [x, row], {"fn": "mul"})


def _select(g: Graph, x: Value, draw: Draw) -> Value:
    positive = g.add("unary", [x], {"fn": "heaviside"})
    return g.add("select", [positive, x, g.add("unary", [x], {"fn": "neg"})])


def _downsample(g: Graph, x: Value, draw: Draw) -> Value:
    slow = g.add("downsample", [x], {"stride": 2, "kind": draw(st.sampled_from(["take", "mean"]))})
    return g.add("binary", [x, g.add("pool", [slow], {"kind": "last"})], {"fn": "add"})


SSM: dict[str, Callable[[Graph, Value, Draw], Value]] = {
    "constant": _constant,
    "unary": single("unary", fn="gelu"),
    "binary": lambda g, x, draw: g.add("binary", [x, x], {"fn": "mul"}),
    "gate": lambda g, x, draw: g.add("gate", [x, x], {"fn": "silu"}),
    "select": _select,
    "complex": _complex,
    "linear": lambda g, x, draw: g.add("linear", [x], {"weight": tensor(draw, F, F), "bias": Tensor(numbers(draw, F))}),
    "norm": single("norm", kind="layer", epsilon=1e-5, scale=Tensor(np.full(F, 2.0))),
    "softmax": single("softmax", log=True),
    "reduce": _reduce,
    "slice": _slice,
    "take": _take,
    "reshape": _reshape,
    "contract": _contract,
    "embed": _embed,
    "ssm": _ssm,
    "liquid_ssm": _liquid_ssm,
    "recurrence": _recurrence,
    "spike": _spike,
    "rounded": _rounded,
    "rounded_sums": _rounded_sums,
    "fir": lambda g, x, draw: g.add("fir", [x], {"kernel": tensor(draw, F, 3), "reverse": draw(st.booleans())}),
    "pool": _pool,
    "downsample": _downsample,
    "reverse": single("reverse"),
    "delay": single("delay", steps=2),
}


def _tile_state(g: Graph, x: Value, draw: Draw) -> Value:
    is_complex = draw(st.booleans())
    decay = np.exp(1j * numbers(draw, F // 2)) * 0.5 if is_complex else np.full(F, 0.5)
    pieces = (Piece(0, 1, 0, 1, 2, 0, 3), Piece(1, len(decay), 0, 1))
    return g.add("tile.state", [x], {"decay": Tensor(decay), "pieces": pieces, "bank": "digital"})


def _tile_feedback(g: Graph, x: Value, draw: Draw) -> Value:
    pieces = tuple(Piece(0, F, n, n + 2, unit) for unit, n in enumerate(range(0, F, 2)))
    weight = Tensor(tensor(draw, F, F).array * 0.1)
    return g.add("tile.feedback", [x], {"weight": weight, "pieces": pieces, "read_before": draw(st.booleans())})


def _tile_ssm(g: Graph, x: Value, draw: Draw) -> Value:
    arrays = {name: tensor(draw, F, 2) for name in ("b", "c")}
    attrs = {"decay": Tensor(np.full((F, 2), 0.5)), "d": tensor(draw, F), "pieces": (Piece(0, F, 0, 2, 0),)}
    attrs["liquid"] = draw(st.booleans())
    return g.add("tile.ssm", [x], {**arrays, **attrs})


def _tile_matmul(g: Graph, x: Value, draw: Draw) -> Value:
    pieces = tuple(Piece(k, k + 2, 0, F, unit) for unit, k in enumerate(range(0, F, 2)))
    return g.add("tile.matmul", [x], {"weight": tensor(draw, F, F), "pieces": pieces})


TILE: dict[str, Callable[[Graph, Value, Draw], Value]] = {
    "tile.matmul": _tile_matmul,
    "tile.state": _tile_state,
    "tile.feedback": _tile_feedback,
    "tile.ssm": _tile_ssm,
    "tile.recurrence": lambda g, x, draw: g.add("tile.recurrence", [g.add("unary", [x], {"fn": "sigmoid"}), x]),
}
REAL = tuple(name for name in SSM if name not in ("linear", "ssm", "liquid_ssm", "recurrence", "complex"))


@st.composite
def graphs(draw: Draw, tiled: bool | None = None) -> Graph:
    """A well-formed graph of some ops in a row, at the ssm level or (`tiled`) the tile level."""
    tiled = draw(st.booleans()) if tiled is None else tiled
    known = {**{name: SSM[name] for name in REAL}, **TILE} if tiled else SSM
    graph = Graph(draw(st.sampled_from(["model", "two words", "é_1"])), {"form": "sequence", "states": {}})
    x = graph.add("input", [], {"name": "u", "type": StreamType((F,)), "axes": "btf"}, provenance=['"quoted"\n'])
    for name in draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=6)):
        x = known[name](graph, x, draw)
        if tiled:
            graph.add_provenance(x.node, "MatMul_7")
    if tiled:
        for order, node in enumerate(graph.order()):
            graph.set_place(node, Place(0, order, "steps"))
    graph.add("output", [x], {"name": "y", "axes": "btf"})
    return graph


def inputs(graph: Graph, batch: int = 2, steps: int = 6) -> dict[str, np.ndarray[Any, Any]]:
    """Random arrays for every input of `graph`, in its own layout."""
    rng = np.random.default_rng(0)
    given = {}
    for node in graph.inputs():
        kind: Any = node.types[0]
        outer = (batch, steps) if isinstance(kind, StreamType) else () if isinstance(kind, ConstantType) else (batch,)
        array = rng.standard_normal((*outer, *kind.shape))
        given[node.op["name"]] = rng.integers(0, 5, array.shape) if kind.element == "index" else array
    return given
