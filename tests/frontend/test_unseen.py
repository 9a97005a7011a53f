"""Patterns of real exports: what exporters write around and inside the systems, graph by graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ssmc.frontend import Model, load_model, reference
from ssmc.frontend.proof import run_graph
from ssmc.frontend.reference import user_shape
from tests.frontend.net import Net, save

RNG = np.random.default_rng(3)


def lift(net: Net, y: str, dims: Sequence[int | str], folder: Path, *sizes: tuple[int, int]) -> Model:
    """Load the model and compare it with onnxruntime at each (batch, length)."""
    model = load_model(save(net.model([(y, dims)]), folder))
    for batch, length in sizes or ((2, 24),):
        arrays = {}
        for port in model.inputs:
            named = {"b": batch, "t": length}
            shape = [named.get(a, d) for a, d in zip(port.axes, user_shape(port), strict=True)]
            arrays[port.name] = RNG.uniform(0.1, 1.0, [int(d) for d in shape]).astype(np.float32)
        expected = reference(model, arrays)
        found = run_graph(model.graph, model.inputs, model.outputs, arrays)
        for name, array in expected.items():
            assert np.abs(found[name] - array).max() <= 1e-4 * np.abs(array).max()
    return model


def kinds(model: Model) -> list[str]:
    return [system.kind for system in model.systems]


def modes(channels: int, count: int, length: int) -> np.ndarray:
    """Kernels (channels, length) of complex pairs."""
    poles = RNG.uniform(0.6, 0.95, (channels, count)) * np.exp(1j * RNG.uniform(0.1, 2.0, (channels, count)))
    weights = RNG.standard_normal((channels, count)) + 1j * RNG.standard_normal((channels, count))
    return np.asarray(np.einsum("hn,hnl->hl", weights, poles[..., None] ** np.arange(length)).real)


def test_a_spectrum_stored_in_float32_has_no_future(tmp_path: Path) -> None:
    length, net = 24, Net()
    spectrum = np.fft.rfft(modes(3, 2, length), 2 * length)
    x = net.op("Transpose", net.input([2, length, 3]), perm=[0, 2, 1])
    padded = net.op("Pad", x, net.ints(0, 0, 0, 0, 0, length))
    u = net.op("DFT", net.op("Unsqueeze", padded, net.ints(3)), "", net.const(np.int64(2)), onesided=1)
    ur, ui = (net.op("Gather", u, net.const(np.int64(i)), axis=3) for i in (0, 1))
    hr, hi = net.const(spectrum.real), net.const(spectrum.imag)
    yr = net.op("Sub", net.op("Mul", ur, hr), net.op("Mul", ui, hi))
    yi = net.op("Add", net.op("Mul", ur, hi), net.op("Mul", ui, hr))
    # the negative frequencies by symmetry, as exporters write them that have no one-sided inverse
    back = net.ints(*range(length - 1, 0, -1))
    mirrored = [net.op("Gather", yr, back, axis=2), net.op("Neg", net.op("Gather", yi, back, axis=2))]
    whole = [net.op("Concat", a, b, axis=2) for a, b in zip((yr, yi), mirrored, strict=True)]
    both = net.op("Concat", *(net.op("Unsqueeze", w, net.ints(3)) for w in whole), axis=3)
    full = net.op("DFT", both, "", net.const(np.int64(2)), inverse=1)
    real = net.op("Gather", full, net.const(np.int64(0)), axis=3)
    y = net.op("Transpose", net.op("Slice", real, net.ints(0), net.ints(length), net.ints(2)), perm=[0, 2, 1])
    model = lift(net, y, [2, length, 3], tmp_path)
    assert [s.reverse for s in model.systems] == [False]
    assert kinds(model) == ["linear time-invariant"]


def test_toeplitz_product_with_the_batch_as_columns(tmp_path: Path) -> None:
    length, net = 24, Net()
    taps = modes(3, 2, length)
    lags = np.arange(length)[:, None] - np.arange(length)
    table = net.const(np.where(lags >= 0, taps[:, np.maximum(lags, 0)], 0.0))
    x = net.op("Mul", net.input([2, length, 3]), net.const(np.ones(3) * 0.7))
    y = net.op("MatMul", table, net.op("Transpose", x, perm=[2, 1, 0]))
    model = lift(net, net.op("Transpose", y, perm=[2, 1, 0]), [2, length, 3], tmp_path)
    assert kinds(model) == ["linear time-invariant"]


@pytest.mark.parametrize("inputs", [3, 5])
def test_doubling_scan_with_zeros_shaped_like_a_slice(tmp_path: Path, inputs: int) -> None:
    """Hillis-Steele: x + a^d shift(x, d), complex, the zeros by Shape and Expand, as the dynamo exporter writes it."""
    length, count, net = 24, 4, Net()
    pole = RNG.uniform(0.6, 0.9, count) * np.exp(1j * RNG.uniform(0.2, 1.5, count))
    u = net.input(["n", length, inputs])
    parts = [net.op("MatMul", u, net.const(RNG.standard_normal((inputs, count)))) for _ in range(2)]
    step = 1
    while step < length:
        shifted = []
        for x in parts:
            head = net.op("Slice", x, net.ints(0), net.ints(step), net.ints(1))
            zeros = net.op("Expand", net.const(np.zeros(())), net.op("Shape", head))
            tail = net.op("Slice", x, net.ints(0), net.ints(-step), net.ints(1))
            shifted.append(net.op("Concat", zeros, tail, axis=1))
        re, im = net.const((pole**step).real), net.const((pole**step).imag)
        real = net.op("Add", parts[0], net.op("Mul", re, shifted[0]))
        imag = net.op("Add", parts[1], net.op("Mul", re, shifted[1]))
        parts = [
            net.op("Sub", real, net.op("Mul", im, shifted[1])),
            net.op("Add", imag, net.op("Mul", im, shifted[0])),
        ]
        step *= 2
    y = net.op("Sub", *(net.op("MatMul", x, net.const(RNG.standard_normal((count, 2)))) for x in parts))
    model = lift(net, y, ["n", length, 2], tmp_path)
    assert kinds(model) == ["linear time-invariant"]
    assert model.systems[0].states in (count, 2 * count)


def test_cumulative_sum_against_growing_weights(tmp_path: Path) -> None:
    """x_k = exp(k log a) sum_j exp(-j log a) v_j, the exponents from the shape."""
    length, net = 24, Net()
    u = net.input(["n", length, 3])
    v = net.op("MatMul", u, net.const(RNG.standard_normal((3, 4))))
    logs = net.const(np.log(RNG.uniform(0.6, 0.9, 4)))
    size = net.op("Gather", net.op("Shape", u), net.const(np.int64(1)), axis=0)
    steps = net.op("Range", net.const(np.int64(0)), size, net.const(np.int64(1)))
    exponent = net.op("Mul", net.op("Unsqueeze", net.op("Cast", steps, to=1), net.ints(1)), logs)
    grown = net.op("Mul", v, net.op("Exp", net.op("Neg", exponent)))
    x = net.op("Mul", net.op("Exp", exponent), net.op("CumSum", grown, net.const(np.int64(1))))
    y = net.op("MatMul", x, net.const(RNG.standard_normal((4, 2))))
    assert kinds(lift(net, y, ["n", length, 2], tmp_path)) == ["linear time-invariant"]
