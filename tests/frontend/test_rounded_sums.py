"""Steps whose sums are rounded in any order and place: matrices, parts put together, scaled codes, sums of sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.quantization import QuantFormat, QuantType

from ssmc.frontend import load_model
from ssmc.frontend.states.couplings import find_couplings
from ssmc.ir.graph import Value
from ssmc.ir.ops.rounded_sums import islands
from tests.examples import examples
from tests.frontend.checks import refused
from tests.frontend.net import Net, save
from tests.frontend.rounding import Rounding, rounded
from tests.frontend.test_rounded_states import runs
from tests.frontend.test_rounding import off, quantised

BATCH, LENGTH, INPUTS, STATES = 2, 12, 3, 4
LAYERS = ("matrix", "affine", "joined", "complex", "memory", "euler", "oscillator", "halves", "still")


def matrix(rng: np.random.Generator, n: int = STATES) -> np.ndarray:
    a = rng.standard_normal((n, n))
    return np.asarray(0.9 * a / np.abs(np.linalg.eigvals(a)).max())


@dataclass(frozen=True)
class Layer:
    """One step of a layer whose states mix, every node's result rounded where there is a `rounding`."""

    kind: str
    rounding: Rounding | None = None
    seed: int = 3

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        each = {"memory": (2, STATES), "halves": (2 * STATES,)}.get(self.kind, (STATES,))
        return [each] * (2 if self.kind in ("complex", "oscillator", "still") else 1)

    def step(self, net: Net, x: Sequence[str], u: str) -> tuple[list[str], str]:
        rng, scales = np.random.default_rng(self.seed), np.random.default_rng(self.seed + 1)

        def op(kind: str, *operands: str, **attrs: Any) -> str:
            y = str(net.op(kind, *operands, **attrs))
            if self.rounding is None:
                return y
            return rounded(net, y, Rounding(self.rounding.writing, scales.uniform(0.02, 0.05)))

        def linear(of: str, inner: int, outer: int) -> str:
            return op("MatMul", of, net.const(0.5 * rng.standard_normal((inner, outer))))

        following = getattr(self, f"_{self.kind}")(net, op, linear, rng, x, u)
        flat = [net.op("Flatten", each) if self.kind == "memory" else each for each in following]
        size = int(np.prod(self.shapes[0]))
        parts = [net.op("MatMul", each, net.const(rng.standard_normal((size, 2)))) for each in flat]
        return following, parts[0] if len(parts) == 1 else str(net.op("Add", *parts))

    def _matrix(self, net: Net, op: Any, linear: Any, rng: Any, x: Any, u: str) -> list[str]:
        return [op("Add", op("MatMul", x[0], net.const(matrix(rng))), linear(u, INPUTS, STATES))]

    def _affine(self, net: Net, op: Any, linear: Any, rng: Any, x: Any, u: str) -> list[str]:
        bias = net.const(rng.standard_normal(STATES))
        return [op("Add", op("Gemm", x[0], net.const(matrix(rng)), bias, transB=1), linear(u, INPUTS, STATES))]

    def _joined(self, net: Net, op: Any, linear: Any, rng: Any, x: Any, u: str) -> list[str]:
        whole = np.concatenate([matrix(rng), rng.standard_normal((INPUTS, STATES))])
        return [op("MatMul", op("Concat", x[0], u, axis=-1), net.const(whole))]

    def _complex(self, net: Net, op: Any, linear: Any, rng: Any, x: Any, u: str) -> list[str]:
        p, q = net.const(0.7 * matrix(rng)), net.const(0.3 * matrix(rng))
        turned = [
            op("Sub", op("MatMul", x[0], p), op("MatMul", x[1], q)),
            op("Add", op("MatMul", x[0], q), op("MatMul", x[1], p)),
        ]
        return [op("Add", part, linear(u, INPUTS, STATES)) for part in turned]

    def _still(self, net: Net, op: Any, linear: Any, rng: Any, x: Any, u: str) -> list[str]:
        """The first of the numbers does not turn: what is rounded there is 0, whatever the states are."""
        size, angle = rng.uniform(0.6, 0.9, STATES), 0.5 * np.arange(STATES)
        a, b = net.const(size * np.cos(angle)), net.const(size * np.sin(angle))
        turned = [
            op("Sub", op("Mul", x[0], a), op("Mul", x[1], b)),
            op("Add", op("Mul", x[1], a), op("Mul", x[0], b)),
        ]
        return [op("Add", part, linear(u, INPUTS, STATES)) for part in turned]

    def _memory(self, net: Net, op: Any, linear: Any, rng: Any, x: Any, u: str) -> list[str]:
        drive = net.op("Unsqueeze", linear(u, INPUTS, 2), net.ints(-1))
        drive = op("Mul", drive, net.const(rng.standard_normal(STATES)))
        return [op("Add", op("MatMul", x[0], net.const(matrix(rng))), drive)]

    def _euler(self, net: Net, op: Any, linear: Any, rng: Any, x: Any, u: str) -> list[str]:
        rate = op("Add", op("MatMul", x[0], net.const(matrix(rng) - 2 * np.eye(STATES))), linear(u, INPUTS, STATES))
        return [op("Add", x[0], op("Mul", rate, net.const(0.2)))]

    def _oscillator(self, net: Net, op: Any, linear: Any, rng: Any, x: Any, u: str) -> list[str]:
        force = op("Mul", x[1], net.const(-rng.uniform(0.1, 0.3, STATES)))
        z = op("Add", x[0], op("Add", force, linear(u, INPUTS, STATES)))
        return [z, op("Add", x[1], op("Mul", z, net.const(0.3)))]

    def _halves(self, net: Net, op: Any, linear: Any, rng: Any, x: Any, u: str) -> list[str]:
        size, angle = rng.uniform(0.6, 0.9, STATES), rng.uniform(0.3, 1.5, STATES)
        a, b = net.const(size * np.cos(angle)), net.const(size * np.sin(angle))
        re, im = (op("Slice", x[0], *(net.ints(k) for k in (i * STATES, (i + 1) * STATES, -1))) for i in range(2))
        new = [op("Sub", op("Mul", re, a), op("Mul", im, b)), op("Add", op("Mul", re, b), op("Mul", im, a))]
        return [op("Concat", *(op("Add", part, linear(u, INPUTS, STATES)) for part in new), axis=-1)]


def one_step(layer: Layer, folder: Path) -> tuple[Path, str, list[str]]:
    net = Net()
    u, x = net.input(["b", INPUTS]), [net.input(["b", *shape]) for shape in layer.shapes]
    following, y = layer.step(net, x, u)
    rows = [(v, ["b", *shape]) for v, shape in zip(following, layer.shapes, strict=True)]
    return save(net.model([(y, ["b", 2]), *rows], opset=17), folder), u, x


def scanned(layer: Layer, folder: Path) -> Path:
    net, body = Net(), Net()
    u = net.op("Transpose", net.input([BATCH, "t", INPUTS]), perm=[1, 0, 2])
    x = [body.input([BATCH, *shape]) for shape in layer.shapes]
    following, y = layer.step(body, x, body.input([BATCH, INPUTS]))
    rows = [(v, [BATCH, *shape]) for v, shape in zip(following, layer.shapes, strict=True)]
    graph = body.subgraph([*rows, (body.op("Identity", y), [BATCH, 2])])
    zeros = [net.const(np.zeros((BATCH, *shape))) for shape in layer.shapes]
    *_, found = net.op("Scan", *zeros, u, outputs=len(x) + 1, body=graph, num_scan_inputs=1)
    return save(net.model([(net.op("Transpose", found, perm=[1, 0, 2]), [BATCH, "t", 2])], opset=17), folder)


@pytest.mark.parametrize("kind", LAYERS)
def test_as_onnxruntime_quantises_a_step(tmp_path: Path, kind: str) -> None:
    form = QuantFormat.QDQ if LAYERS.index(kind) % 2 else QuantFormat.QOperator
    layer = Layer(kind)
    path, u, x = one_step(layer, tmp_path)
    shapes = {u: (2, INPUTS), **{v: (2, *shape) for v, shape in zip(x, layer.shapes, strict=True)}}
    coarse = quantised(path, shapes, 2.0, quant_format=form, weight_type=QuantType.QInt8, reduce_range=True)
    model = load_model(coarse)
    assert [system.kind for system in model.systems] == ["rounded"]
    data = np.random.default_rng(2).standard_normal((2, 20, INPUTS)).astype(np.float32)
    assert off(model, u, data, coarse) <= 1e-5


@pytest.mark.parametrize("kind", LAYERS)
def test_every_sum_of_a_loop(tmp_path: Path, kind: str) -> None:
    writing = ("chain", "straight-through", "qdq")[LAYERS.index(kind) % 3]
    model = load_model(scanned(Layer(kind, Rounding(writing)), tmp_path))
    (node,) = model.graph.nodes("rounded_sums")
    sets = {"memory": 2, "oscillator": STATES, "halves": STATES, "still": STATES + 1}.get(kind, 1)
    assert len(islands(node.op["grid"].shape[1], node.op["terms"].array)) == sets
    (system,) = model.systems
    assert system.groups * system.states == sum(int(np.prod(shape)) for shape in Layer(kind).shapes)
    runs(model)


def test_a_value_that_is_rounded_by_two_scales(tmp_path: Path) -> None:
    """Codes of one scale, read by another: what is left is 1.1 of the sum."""
    net, body = Net(), Net()
    u = net.input([2, LENGTH, STATES])
    state, v = body.input([2, STATES]), body.input([2, STATES])
    total = body.op("Add", body.op("Mul", state, body.const(np.full(STATES, 0.7))), v)
    codes = body.op("QuantizeLinear", total, body.const(0.1), body.const(np.int8(3)))
    following = body.op("DequantizeLinear", codes, body.const(0.11), body.const(np.int8(3)))
    graph = body.subgraph([(following, [2, STATES]), (body.op("Identity", following), [2, STATES])])
    attrs = {"body": graph, "num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [1]}
    y = net.op("Scan", net.const(np.zeros((2, STATES))), u, outputs=2, **attrs)[1]
    path = save(net.model([(y, [2, LENGTH, STATES])], opset=17), tmp_path)
    data = np.random.default_rng(2).standard_normal((2, LENGTH, STATES)).astype(np.float32)
    assert off(load_model(path), net.inputs[0].name, data, path) <= 1e-6


def test_decays_of_the_data_that_a_rounding_hides(tmp_path: Path) -> None:
    """What is left of a state is at most 0.508 codes of the sum, so that few data show what it depends on."""
    net, body = Net(), Net()
    u = net.input([2, LENGTH, STATES])
    x, v = body.input([2, STATES]), body.input([2, STATES])
    product = body.op("Mul", body.op("Mul", body.op("Sigmoid", v), body.const(0.02)), x)
    product = rounded(body, product, Rounding(scale=2e-5))
    drive = rounded(body, body.op("Mul", v, body.const(10.0)), Rounding("unbounded", scale=0.005))
    following = rounded(body, body.op("Add", product, drive), Rounding("unbounded", scale=0.005))
    graph = body.subgraph([(following, [2, STATES]), (body.op("Identity", following), [2, STATES])])
    attrs = {"body": graph, "num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [1]}
    y = net.op("Scan", net.const(np.zeros((2, STATES))), u, outputs=2, **attrs)[1]
    refused(save(net.model([(y, [2, LENGTH, STATES])], opset=17), tmp_path), "depends on the data", "--drop-rounding")


@settings(max_examples=examples(60), deadline=None)
@given(seed=st.integers(0, 2**20), dense=st.booleans(), rows=st.integers(1, 5), columns=st.integers(1, 6))
def test_couplings_of_any_linear_map(seed: int, dense: bool, rows: int, columns: int) -> None:
    """Matrices, moves and multiples of one tensor and another, beside an offset."""
    rng = np.random.default_rng(seed)
    one, two, result = Value("one"), Value("two"), Value("result")
    a = rng.standard_normal((rows * columns, rows * columns)) if dense else np.zeros((rows * columns,) * 2)
    if not dense:
        a[np.arange(rows * columns), rng.permutation(rows * columns)] = rng.standard_normal(rows * columns)
    b = np.diag(rng.standard_normal(rows * columns) * rng.integers(0, 2, rows * columns))
    offset = rng.standard_normal(rows * columns)

    def run(feed: Any) -> dict[Value, np.ndarray]:
        zero = np.zeros((rows, columns))
        x, y = (np.asarray(feed.get(v, zero)).reshape(-1) for v in (one, two))
        return {result: (a @ x + b @ y + offset).reshape(rows, columns)}

    found = find_couplings(run, {one: (rows, columns), two: (rows, columns)}, np.random.default_rng(1))
    got = {v: np.zeros_like(a) for v in (one, two)}
    for number, value, source, weight in found.terms[result]:
        got[value][number, source] += weight
    np.testing.assert_allclose(got[one], a, atol=1e-9)
    np.testing.assert_allclose(got[two], b, atol=1e-9)
