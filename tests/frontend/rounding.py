"""Writes models whose states are rounded at every step: every writing of the rounding, in every form of the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tests.frontend.net import Net, save

BATCH, LENGTH, WIDTH = 2, 12, 5
WRITINGS = ("qdq", "chain", "straight-through", "unbounded", "half up")
LOOPS = ("scan", "loop", "unrolled", "step")
PLACES = ("sum", "state", "product")


@dataclass(frozen=True)
class Rounding:
    """How a number is rounded: `scale` is one number, or one for each of the last axis."""

    writing: str = "qdq"
    scale: Any = 1 / 16
    zero: int = 0
    low: int = -128
    high: int = 127


def rounded(net: Net, x: str, r: Rounding) -> str:
    scale = net.const(np.asarray(r.scale, np.float32))
    match r.writing:
        case "qdq":
            dtype = np.int8 if r.low < 0 else np.uint8
            zero = net.const(np.full(np.shape(r.scale), r.zero, dtype))
            codes = net.op("QuantizeLinear", x, scale, zero, axis=-1)
            return str(net.op("DequantizeLinear", codes, scale, zero, axis=-1))
        case "unbounded":
            return str(net.op("Mul", net.op("Round", net.op("Div", x, scale)), scale))
        case "half up":
            codes = net.op("Floor", net.op("Add", net.op("Div", x, scale), net.const(0.5)))
            return str(net.op("Mul", net.op("Clip", codes, net.const(float(r.low)), net.const(float(r.high))), scale))
        case "straight-through":
            inner = rounded(net, x, Rounding("chain", r.scale, r.zero, r.low, r.high))
            return str(net.op("Add", x, net.op("Sub", inner, x)))
    inverse = net.const(np.asarray(1 / np.asarray(r.scale), np.float32))
    shifted = net.op("Add", net.op("Round", net.op("Mul", x, inverse)), net.const(float(r.zero)))
    kept = net.op("Clip", shifted, net.const(float(r.low)), net.const(float(r.high)))
    return str(net.op("Mul", net.op("Sub", kept, net.const(float(r.zero))), scale))


@dataclass(frozen=True)
class Layer:
    """x' = S(P(a Q(x)) + B u), y = C x', with one rounding, at `places`."""

    rounding: Rounding
    places: Sequence[str] = ("sum",)
    pairs: str = ""  # of complex states: "halves" of one tensor, or "apart", two of them
    seed: int = 1

    @property
    def states(self) -> int:
        return 2 if self.pairs == "apart" else 1

    @property
    def width(self) -> int:
        return 2 * WIDTH if self.pairs == "halves" else WIDTH

    def step(self, net: Net, states: Sequence[str | None], u: str) -> tuple[list[str], str]:
        """(next states, output) of a step; no state is the zero that an exporter folds away."""
        rng = np.random.default_rng(self.seed)
        drives = [
            net.op("MatMul", u, net.const(rng.standard_normal((3, WIDTH)))) for _ in range(2 if self.pairs else 1)
        ]
        turn = np.exp(1j * rng.uniform(0, 1.5, WIDTH)) * rng.uniform(0.5, 0.95, WIDTH)
        out = net.const(rng.standard_normal((self.width, 3)))

        def at(place: str, x: str) -> str:
            return rounded(net, x, self.rounding) if place in self.places else x

        held = [None if s is None else at("state", s) for s in states]
        if not self.pairs:
            a = net.const(np.abs(turn) * np.sign(rng.standard_normal(WIDTH)))
            product = None if held[0] is None else at("product", net.op("Mul", held[0], a))
            following = [at("sum", drives[0] if product is None else net.op("Add", product, drives[0]))]
            return following, str(net.op("MatMul", following[0], out))
        if self.pairs == "halves" and held[0] is not None:
            held = [
                net.op("Slice", held[0], *(net.ints(k) for k in (i * WIDTH, (i + 1) * WIDTH, -1))) for i in range(2)
            ]
        sums = drives
        if held[0] is not None:
            p, q = net.const(turn.real), net.const(turn.imag)
            own, cross = ([at("product", net.op("Mul", x, a)) for x in held if x is not None] for a in (p, q))
            parts = [net.op("Sub", own[0], cross[1]), net.op("Add", cross[0], own[1])]
            sums = [net.op("Add", at("turned", part), drive) for part, drive in zip(parts, drives, strict=True)]
        if self.pairs == "halves":
            following = [at("sum", net.op("Concat", *sums, axis=-1))]
            return following, str(net.op("MatMul", following[0], out))
        following = [at("sum", each) for each in sums]
        return following, str(net.op("MatMul", net.op("Sub", *following), out))


def write(layer: Layer, loop: str, folder: Path, length: int = LENGTH) -> Path:
    """A model of one layer, (batch, time, 3) in and out; one step of it where `loop` is "step"."""
    net, count = Net(), layer.states
    if loop == "step":
        u, states = net.input(["b", 3]), [net.input(["b", layer.width]) for _ in range(count)]
        following, y = layer.step(net, states, u)
        outputs = [(y, ["b", 3]), *((net.op("Identity", x), ["b", layer.width]) for x in following)]
        return save(net.model(outputs, opset=17), folder)
    if loop == "unrolled":
        u, rows = net.input([BATCH, length, 3]), []
        states: Any = [None] * count
        for k in range(length):
            states, y = layer.step(net, states, net.op("Gather", u, net.const(np.int64(k)), axis=1))
            rows.append(net.op("Unsqueeze", y, net.ints(1)))
        return save(net.model([(net.op("Concat", *rows, axis=1), [BATCH, length, 3])], opset=17), folder)
    u, body = net.input([BATCH, "t", 3]), Net()
    zeros = [net.const(np.zeros((BATCH, layer.width))) for _ in range(count)]
    if loop == "scan":
        states = [body.input([BATCH, layer.width]) for _ in range(count)]
        following, y = layer.step(body, states, body.input([BATCH, 3]))
        graph = body.subgraph([*((x, [BATCH, layer.width]) for x in following), (body.op("Identity", y), [BATCH, 3])])
        moved = net.op("Transpose", u, perm=[1, 0, 2])
        *_, y = net.op("Scan", *zeros, moved, outputs=count + 1, body=graph, num_scan_inputs=1)
    else:
        k, going = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL)
        states = [body.input([BATCH, layer.width]) for _ in range(count)]
        following, y = layer.step(body, states, body.op("Gather", u, k, axis=1))
        outputs = [(body.op("Identity", going), []), *((x, [BATCH, layer.width]) for x in following), (y, [BATCH, 3])]
        graph = body.subgraph(outputs, {outputs[0][0]: TensorProto.BOOL})
        steps = net.op("Gather", net.op("Shape", u), net.ints(1), axis=0)
        yes = net.const(np.asarray(True))
        *_, y = net.op("Loop", net.op("Squeeze", steps), yes, *zeros, outputs=count + 1, body=graph)
    return save(net.model([(net.op("Transpose", y, perm=[1, 0, 2]), [BATCH, "t", 3])], opset=17), folder)


def tensor(name: str, shape: Sequence[Any]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
