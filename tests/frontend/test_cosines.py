"""Fourier transforms written as products with tables of cosines, which a file stores in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from ssmc.frontend import Model, load_model
from ssmc.frontend.source import cosines
from ssmc.frontend.source.cosines import DIGITS, _exact
from ssmc.ir.op import Array
from ssmc.verification import verify
from tests.frontend.blocks import RNG
from tests.frontend.checks import LINEAR, kinds, on_targets
from tests.frontend.net import Net, save

SINGLE = 2.0**-24
CHANNELS, LENGTH = 4, 48
FORMATS = {TensorProto.BFLOAT16: "bfloat16", TensorProto.FLOAT16: "float16", TensorProto.FLOAT: "float32"}


def waves(n: int, *, narrow: bool) -> tuple[Array, Array]:
    """cos and -sin, (n // 2 + 1, n); with `narrow` of angles in float32, as exporters make them."""
    k, t = np.arange(n // 2 + 1)[:, None], np.arange(n)[None]
    if narrow:
        angle = np.float32(k) * np.float32(t) * np.float32(2 * np.pi / n)
        return np.cos(angle), -np.sin(angle)
    angle = 2 * np.pi * (k * t % n) / n
    return np.cos(angle), -np.sin(angle)


LAYOUTS = {
    "cosines": lambda c, s: c,
    "sines": lambda c, s: s.T,
    "side by side": lambda c, s: np.concatenate([c, s]).T,
    "parts last": lambda c, s: np.stack([c, s], axis=-1),
    "blocks": lambda c, s: np.block([[c, -s], [s, c]]),
    "filters": lambda c, s: np.concatenate([c, s])[:, None],
    "half of the steps": lambda c, s: s[:, : c.shape[1] // 2],
    "inverse": lambda c, s: c / c.shape[1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("n", [24, 50, 257, 512])
def test_a_table_is_made_exact(layout: str, narrow: bool, n: int) -> None:
    exact = LAYOUTS[layout](*waves(n, narrow=False))
    found = _exact(LAYOUTS[layout](*waves(n, narrow=narrow)).astype(np.float32), SINGLE)
    assert found is not None
    assert np.abs(found.array - exact).max() <= 1e-11 * np.abs(exact).max()
    assert found.off <= (SINGLE * 8 * n if narrow else 2 * SINGLE)


@given(st.integers(0, 2**31), st.integers(8, 40), st.integers(8, 40))
def test_other_tables_stay(seed: int, rows: int, columns: int) -> None:
    """Weights, waves of any frequency, and cosines that are off by more than rounding."""
    rng = np.random.default_rng(seed)
    cosine = waves(32, narrow=False)[0]
    for array in (
        rng.standard_normal((rows, columns)),
        np.cos(np.outer(np.arange(rows), rng.uniform(0, 3, columns))),
        cosine + 1e-4 * rng.standard_normal(cosine.shape),
        np.ones((rows, columns)),
    ):
        found = _exact(array.astype(np.float32), SINGLE)
        assert found is None or found.off == 0


def decay(length: int) -> Array:
    """(channels, length) the kernel of two modes a channel."""
    rng, t = np.random.default_rng(3), np.arange(length)
    rates = rng.uniform(-0.3, -0.05, (CHANNELS, 2)) + 1j * rng.uniform(0, 2, (CHANNELS, 2))
    modes = np.exp(np.multiply.outer(rates, t))
    return np.asarray(np.einsum("cn,cnl->cl", rng.standard_normal((CHANNELS, 2)), modes.real))


def by_products(folder: Path, *, narrow: bool, frozen: bool, format: int = TensorProto.FLOAT) -> Model:
    """y = irfft(rfft(u) rfft(k)), padded to twice the length, all of it matrix products; tables stored in a format."""
    net, n = Net(), 2 * LENGTH

    def stored(table: Array) -> str:
        if format == TensorProto.FLOAT:
            return net.const(table)
        name = net.fresh()
        net.weights.append(numpy_helper.from_array(table.astype(helper.tensor_dtype_to_np_dtype(format)), name))
        return str(net.op("Cast", name, to=TensorProto.FLOAT))

    cosine, sine = waves(n, narrow=narrow)
    twice = np.full(LENGTH + 1, 2.0)
    twice[[0, -1]] = 1.0
    back = [stored(table * twice[:, None] / n) for table in (cosine, sine)]
    tables = [stored(table.T) for table in (cosine, sine)]
    padding = np.pad(decay(LENGTH), ((0, 0), (0, LENGTH))).astype(np.float32)
    if frozen:
        spectrum = [net.const((padding @ table.T.astype(np.float32))[None]) for table in (cosine, sine)]
    else:
        spectrum = [net.op("MatMul", net.const(padding[None]), table) for table in tables]
    u = net.op("Transpose", net.input(["b", LENGTH, CHANNELS]), perm=[0, 2, 1])
    padded = net.op("Pad", u, net.ints(0, 0, 0, 0, 0, LENGTH))
    re, im = (net.op("MatMul", padded, table) for table in tables)
    whole = net.op("Sub", net.op("Mul", re, spectrum[0]), net.op("Mul", im, spectrum[1]))
    other = net.op("Add", net.op("Mul", re, spectrum[1]), net.op("Mul", im, spectrum[0]))
    y = net.op("Add", net.op("MatMul", whole, back[0]), net.op("MatMul", other, back[1]))
    y = net.op("Slice", y, net.ints(0), net.ints(LENGTH), net.ints(2))
    y = net.op("Gelu", net.op("Transpose", y, perm=[0, 2, 1]))
    return load_model(save(net.model([(y, ["b", LENGTH, CHANNELS])]), folder))


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_convolution_by_products_is_causal(narrow: bool, frozen: bool, tmp_path: Path) -> None:
    """No filter is left that hears the future, whatever the tables and the spectrum were rounded by."""
    model = by_products(tmp_path, narrow=narrow, frozen=frozen)
    (system,) = model.systems
    assert (system.disguise, system.reverse) == ("FFT convolution", False)
    if not frozen:
        assert kinds(model) == [LINEAR]
        assert system.states <= 4
    assert any("tables of cosines" in note for note in model.notes) == narrow
    on_targets(model, 2, LENGTH)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n", [16, 96, 257])
def test_a_table_is_off_by_its_rounding(layout: str, n: int, format: int) -> None:
    """However coarse the format is: no other wave is taken for it, and none of another size."""
    exact = LAYOUTS[layout](*waves(n, narrow=False))
    digits = DIGITS[FORMATS[format]]
    found = _exact(exact.astype(helper.tensor_dtype_to_np_dtype(format)).astype(np.float32), digits)
    assert found is not None
    assert np.abs(found.array - exact).max() <= 1e-11 * np.abs(exact).max()
    assert found.off <= 2 * digits


@pytest.mark.parametrize("format", [TensorProto.BFLOAT16, TensorProto.FLOAT16])
def test_it_is_told_what_coarse_tables_move(format: int, tmp_path: Path) -> None:
    """Widened before they are used: the lift is of the exact ones, and as far from onnxruntime as the note says."""
    model = by_products(tmp_path, narrow=False, frozen=False, format=format)
    (system,) = model.systems
    assert (system.disguise, system.reverse, system.states) == ("FFT convolution", False, 2)
    assert model.precision == FORMATS[format]
    moved = float(next(note for note in model.notes if "tables of cosines" in note).split()[-4])
    (proof,) = (proof for proof in model.proofs if proof.against == "onnxruntime")
    assert abs(proof.error - moved) <= 0.01 * moved
    if format == TensorProto.FLOAT16:
        u = {model.inputs[0].name: RNG.standard_normal((2, LENGTH, CHANNELS)).astype(np.float32)}
        found = verify(model, "cim", u, ideal=True)
        assert found.passed and "float16" in found.note


@pytest.mark.parametrize("weights", [np.linspace(-1.0, -16.0, 16)[None] * np.ones((32, 1)), np.ones((16, 32)), None])
def test_what_is_no_table_is_told_at_once(weights: Array | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decays -1 ... -N, columns all alike, noise: no wave is fitted to them."""

    def fitted(*args: object) -> None:
        raise AssertionError("a wave was fitted")

    monkeypatch.setattr(cosines, "_fitted", fitted)
    array = np.random.default_rng(0).standard_normal((64, 256)) if weights is None else weights
    assert cosines._exact(array.astype(np.float32), SINGLE) is None
