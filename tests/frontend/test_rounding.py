"""Quantised models: ops on integers run as they are; rounded states run, or lose their rounding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from ssmc.frontend.proofs.proof import run_graph
from ssmc.ir.ops.rounded import PLACES
from tests.frontend.blocks import decaying
from tests.frontend.checks import lift, refused
from tests.frontend.net import Net, save

WIDTH, STEPS = 4, 9


class Samples(CalibrationDataReader):  # type: ignore[misc]
    """Random inputs of given shapes, to calibrate on."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], scale: float = 1.0) -> None:
        rng = np.random.default_rng(0)
        draws = ({n: scale * rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()} for _ in range(6))
        self.draws: Iterator[dict[str, Any]] = iter(list(draws))

    def get_next(self) -> dict[str, Any] | None:
        return next(self.draws, None)


def quantised(path: Path, shapes: dict[str, tuple[int, ...]], scale: float = 1.0, **options: Any) -> Path:
    out = path.with_name("quantised.onnx")
    quantize_static(path, out, Samples(shapes, scale), **options)
    return out


def layer(net: Net, u: str, state: str | None, rng: np.random.Generator) -> tuple[str, str]:
    """x' = a x + B u + b, and relu(C x' + c)."""
    drive = net.op("Gemm", u, net.const(rng.standard_normal((WIDTH, WIDTH))), net.const(rng.standard_normal(WIDTH)))
    decay = net.const(rng.uniform(0.5, 0.9, WIDTH))
    x = drive if state is None else net.op("Add", net.op("Mul", state, decay), drive)
    y = net.op("Gemm", x, net.const(rng.standard_normal((WIDTH, WIDTH))), net.const(rng.standard_normal(WIDTH)))
    return x, net.op("Relu", y)


def one_step(folder: Path) -> tuple[Path, str, str]:
    net, rng = Net(), np.random.default_rng(1)
    u, state = net.input(["b", WIDTH]), net.input(["b", WIDTH])
    x, y = layer(net, u, state, rng)
    return save(net.model([(y, ["b", WIDTH]), (x, ["b", WIDTH])], opset=17), folder), u, state


def unrolled(folder: Path) -> tuple[Path, str]:
    """A model of which each step is given its own scales."""
    net, state, rows = Net(), None, []
    u = net.input([2, STEPS, WIDTH])
    for k in range(STEPS):
        step = net.op("Gather", u, net.const(np.int64(k)), axis=1)
        state, y = layer(net, step, state, np.random.default_rng(1))
        rows.append(net.op("Unsqueeze", y, net.ints(1)))
    return save(net.model([(net.op("Concat", *rows, axis=1), [2, STEPS, WIDTH])], opset=17), folder), u


def off(model: Any, data: str, u: np.ndarray, path: Path) -> float:
    """How far both targets are from what another file gives, relative to its largest output."""
    expected, worst = reference(replace(model, path=path), {data: u}), 0.0
    for target in ("cim", "epochcore"):
        found = compile_model(model, target, ideal=True).run({data: u}).outputs
        for name, array in expected.items():
            worst = max(worst, float(np.abs(found[name] - array).max() / np.abs(array).max()))
    return worst


def test_a_state_that_onnxruntime_quantises(tmp_path: Path) -> None:
    """It rounds the state that is given, its product with the decay, and the sum."""
    path, u, state = one_step(tmp_path)
    coarse = quantised(path, {u: (2, WIDTH), state: (2, WIDTH)}, 3.0)
    model = load_model(coarse)
    (node,) = model.graph.nodes("rounded")
    assert all(node.op[f"{place}_grid"] is not None for place in ("state", "product", "sum"))
    data = np.random.default_rng(2).standard_normal((2, 20, WIDTH)).astype(np.float32)
    assert off(model, u, data, coarse) <= 1e-5


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_the_rounding_of_a_state_is_left_out_and_told(tmp_path: Path, form: QuantFormat) -> None:
    path, u, state = one_step(tmp_path)
    shapes = {u: (2, WIDTH), state: (2, WIDTH)}
    coarse = quantised(path, shapes, 3.0, quant_format=form, weight_type=QuantType.QInt8, per_channel=False)
    model = load_model(coarse, drop_rounding=True)
    assert model.states and len(model.systems) == 1
    (note,) = (note for note in model.notes if "rounding" in note)
    assert "outputs are off by" in note
    data = np.random.default_rng(2).standard_normal((2, 6, WIDTH)).astype(np.float32)
    assert off(model, u, data, path) < 0.05  # what rounded weights are off, and the ReLU is there


def test_complex_states_that_onnxruntime_quantises(tmp_path: Path) -> None:
    """Every product and every sum is rounded by itself, each by its own scale."""
    net, rng = Net(), np.random.default_rng(6)
    u, re, im = (net.input(["b", WIDTH]) for _ in range(3))
    p, q = net.const(rng.uniform(0.4, 0.6, WIDTH)), net.const(rng.uniform(0.3, 0.6, WIDTH))
    drives = [net.op("Gemm", u, net.const(rng.standard_normal((WIDTH, WIDTH)))) for _ in range(2)]
    turned = [
        net.op("Sub", net.op("Mul", re, p), net.op("Mul", im, q)),
        net.op("Add", net.op("Mul", im, p), net.op("Mul", re, q)),
    ]
    following = [net.op("Add", x, v) for x, v in zip(turned, drives, strict=True)]
    y = net.op("Gemm", following[0], net.const(rng.standard_normal((WIDTH, WIDTH))))
    path = save(net.model([(v, ["b", WIDTH]) for v in (y, *following)], opset=17), tmp_path)
    coarse = quantised(path, dict.fromkeys((u, re, im), (2, WIDTH)), 2.0)
    model = load_model(coarse)
    (node,) = model.graph.nodes("rounded")
    assert all(node.op[f"{place}_grid"] is not None for place in PLACES)
    data = rng.standard_normal((2, 20, WIDTH)).astype(np.float32)
    assert off(model, u, data, coarse) <= 1e-5


def test_steps_with_scales_of_their_own(tmp_path: Path) -> None:
    path, u = unrolled(tmp_path)
    coarse = quantised(path, {u: (2, STEPS, WIDTH)}, quant_format=QuantFormat.QDQ, weight_type=QuantType.QInt8)
    refused(coarse, "--drop-rounding")
    model = load_model(coarse, drop_rounding=True)
    assert [system.kind for system in model.systems] == ["linear time-invariant"]
    data = np.random.default_rng(2).standard_normal((2, STEPS, WIDTH)).astype(np.float32)
    assert off(model, u, data, path) < 0.05


def test_rounding_said_with_round_and_clip(tmp_path: Path) -> None:
    """As quantisation-aware training writes it, inside of a step."""
    net, rng = Net(), np.random.default_rng(3)
    u, state = net.input(["b", WIDTH]), net.input(["b", WIDTH])
    x, y = layer(net, u, state, rng)
    scale = net.const(np.float32(1 / 64))
    whole = net.op("Round", net.op("Div", x, scale))
    whole = net.op("Clip", whole, net.const(np.float32(-1024)), net.const(np.float32(1023)))
    x = net.op("Mul", whole, scale)
    path = save(net.model([(y, ["b", WIDTH]), (x, ["b", WIDTH])]), tmp_path)
    data = rng.standard_normal((2, 6, WIDTH)).astype(np.float32)
    model = load_model(path)
    assert [system.kind for system in model.systems] == ["rounded"]
    assert off(model, u, data, path) <= 1e-5  # what is read is not rounded yet
    assert 1e-4 < off(load_model(path, drop_rounding=True), u, data, path) < 0.05


def test_ops_on_integers_around_a_system(tmp_path: Path) -> None:
    """The QOperator format: what it computes is computed, to the last step of its roundings."""
    net, rng = Net(), np.random.default_rng(4)
    u = net.input([2, "t", WIDTH])
    drive = net.op("MatMul", u, net.const(rng.standard_normal((WIDTH, WIDTH))))
    inner = Net()
    state, v = inner.input([2, WIDTH]), inner.input([2, WIDTH])
    following = inner.op("Add", inner.op("Mul", state, inner.const(rng.uniform(0.5, 0.9, WIDTH))), v)
    y = inner.op("Identity", following)
    body = inner.subgraph([(following, [2, WIDTH]), (y, [2, WIDTH])])
    moved = net.op("Transpose", drive, perm=[1, 0, 2])
    _, x = net.op("Scan", net.const(np.zeros((2, WIDTH))), moved, outputs=2, body=body, num_scan_inputs=1)
    x = net.op("Transpose", x, perm=[1, 2, 0])
    x = net.op("Conv", x, net.const(rng.standard_normal((WIDTH, WIDTH, 1))), net.const(rng.standard_normal(WIDTH)))
    x = net.op("Transpose", net.op("LeakyRelu", x, alpha=0.1), perm=[0, 2, 1])
    x = net.op("Mul", x, net.op("Sigmoid", u))
    x = net.op("Concat", x, net.op("Add", x, u), axis=2)
    x = net.op("MatMul", x, net.const(rng.standard_normal((2 * WIDTH, 3))))
    path = save(net.model([(x, [2, "t", 3])], opset=17), tmp_path)
    integers = quantised(path, {u: (2, 12, WIDTH)}, quant_format=QuantFormat.QOperator)
    model = load_model(integers)
    assert [system.kind for system in model.systems] == ["linear time-invariant"]
    for length in (5, 17):
        data = rng.standard_normal((2, length, WIDTH)).astype(np.float32)
        assert off(model, u, data, integers) <= 1e-5


@pytest.mark.parametrize(("bits", "zeros"), [(4, "none"), (4, "packed"), (4, "real"), (8, "none"), (8, "packed")])
def test_weights_of_few_bits(tmp_path: Path, bits: int, zeros: str) -> None:
    """MatMulNBits: numbers in the low bits first, a scale and a zero point for each block of 16 rows."""
    net, rng, rows, columns, block = Net(), np.random.default_rng(bits), 32, 3, 16
    u = net.input(["b", "t", rows])
    count = rows // block
    operands = [
        net.const(rng.integers(0, 256, (columns, count, block * bits // 8), dtype=np.uint8)),
        net.const(rng.uniform(0.01, 0.05, (columns, count))),
    ]
    if zeros == "packed":
        operands.append(net.const(rng.integers(0, 256, (columns, -(-count * bits // 8)), dtype=np.uint8)))
    if zeros == "real":
        operands.append(net.const(rng.uniform(0, 1 << bits, (columns, count))))
    attrs = {"K": rows, "N": columns, "bits": bits, "block_size": block}
    y = net.op("MatMulNBits", u, *operands, domain="com.microsoft", **attrs)
    lift(net, decaying(net, y, columns), ["b", "t", columns], tmp_path, (2, 7), (1, 20))


def test_weights_rounded_by_blocks(tmp_path: Path) -> None:
    net, rng = Net(), np.random.default_rng(5)
    u = net.input(["b", "t", WIDTH])
    numbers = net.const(rng.integers(-128, 128, (WIDTH, 3), dtype=np.int8))
    scale = net.const(rng.uniform(0.01, 0.05, (2, 3)))
    weight = net.op("DequantizeLinear", numbers, scale, axis=0, block_size=2)
    y = decaying(net, net.op("MatMul", u, weight), 3)
    model = load_model(save(net.model([(y, ["b", "t", 3])], opset=21), tmp_path))
    data = rng.standard_normal((2, 9, WIDTH)).astype(np.float32)
    assert off(model, u, data, model.path) <= 1e-5


@pytest.mark.parametrize("seed", range(4))
def test_weights_that_are_rounded_in_the_file(tmp_path: Path, seed: int) -> None:
    """As quantisation-aware training exports them: the largest of a channel lies between two codes, in float32."""
    net, rng = Net(), np.random.default_rng(seed)
    u, wide = net.input(["b", "t", WIDTH]), 16
    weight = rng.standard_normal((WIDTH, wide)).astype(np.float32)
    scale = (np.abs(weight).max(axis=0) / np.float32(127.5)).astype(np.float32)
    grid = net.const(scale), net.const(np.zeros(wide, np.int8))
    codes = net.op("QuantizeLinear", net.const(weight), *grid, axis=1)
    y = decaying(net, net.op("MatMul", u, net.op("DequantizeLinear", codes, *grid, axis=1)), wide)
    path = save(net.model([(y, ["b", "t", wide])], opset=17), tmp_path)
    data = rng.standard_normal((2, 9, WIDTH)).astype(np.float32)
    assert off(load_model(path), u, data, path) <= 1e-5


def test_sums_that_always_lie_on_an_edge_are_told(tmp_path: Path) -> None:
    """1 + x, as in GELU, on the grid of x: half a code beside each of them, whatever float32 makes of it."""
    net = Net()
    u, scale = net.input(["b", "t", WIDTH]), np.float32(2 / 255)
    grid = net.const(scale), net.const(np.int8(0))
    x = net.op("DequantizeLinear", net.op("QuantizeLinear", net.op("Tanh", u), *grid), *grid)
    one = net.const(np.float32(127.5) * scale)
    last = net.const(scale), net.const(np.int8(-128))
    y = net.op("DequantizeLinear", net.op("QuantizeLinear", net.op("Add", x, one), *last), *last)
    model = load_model(save(net.model([(decaying(net, y, WIDTH), ["b", "t", WIDTH])], opset=17), tmp_path))
    assert any("on the edge between two codes" in note for note in model.notes)


def test_a_quantised_exponent_is_a_whole_number(tmp_path: Path) -> None:
    """255 steps of float32's 2/255 are 2 in float32, and a little more in float64: no power of a negative number."""
    net = Net()
    u = net.input([2, STEPS, WIDTH])
    two = net.op("DequantizeLinear", net.const(np.uint8(255)), net.const(np.float32(2 / 255)), net.const(np.uint8(0)))
    mean = net.op("ReduceMean", net.op("Pow", u, two), net.ints(-1), keepdims=1)
    y = net.op("Div", u, net.op("Sqrt", net.op("Add", mean, net.const(np.float32(1e-6)))))
    model = load_model(save(net.model([(y, [2, STEPS, WIDTH])]), tmp_path))
    arrays = {model.inputs[0].name: np.random.default_rng(0).standard_normal((2, STEPS, WIDTH)).astype(np.float32)}
    (expected,) = reference(model, arrays).values()
    (found,) = run_graph(model.graph, model.inputs, model.outputs, arrays).values()
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


def test_an_epsilon_rounded_to_zero_is_told(tmp_path: Path) -> None:
    """0 / 0 behind a rounding: the output is finite, and every runtime makes up another one."""
    net = Net()
    u = net.op("Round", net.op("Mul", net.input([2, STEPS, WIDTH]), net.const(np.float32(0.1))))
    mean = net.op("ReduceMean", net.op("Mul", u, u), net.ints(-1), keepdims=1)
    ratio = net.op("Div", u, net.op("Sqrt", mean))
    grid = net.const(np.float32(0.02)), net.const(np.uint8(128))
    y = net.op("DequantizeLinear", net.op("QuantizeLinear", ratio, *grid), *grid)
    refused(save(net.model([(y, [2, STEPS, WIDTH])]), tmp_path), "Div", "not finite", "epsilon")
