"""Kernels that are tables: filled up with zeros, running backward, of every step with every other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.frontend import load_model
from tests.frontend.blocks import RNG
from tests.frontend.checks import LINEAR, kinds, lift, on_targets, refused
from tests.frontend.net import Net, save

CHANNELS, TAPS, MODES = 3, 29, 4


def product_of_spectra(net: Net, x: str, spectrum: str, twice: str) -> str:
    """x (batch, time, channels) convolved with a kernel whose spectrum is (channels, bins, 2)."""
    u = net.op("Unsqueeze", net.op("Transpose", x, perm=[0, 2, 1]), net.ints(3))
    u = net.op("DFT", u, twice, net.const(np.int64(2)), onesided=1)
    (ur, ui), (kr, ki) = (
        [net.op("Slice", z, net.ints(k), net.ints(k + 1), net.ints(-1)) for k in (0, 1)] for z in (u, spectrum)
    )
    real = net.op("Sub", net.op("Mul", ur, kr), net.op("Mul", ui, ki))
    imaginary = net.op("Add", net.op("Mul", ur, ki), net.op("Mul", ui, kr))
    z = net.op("DFT", net.op("Concat", real, imaginary, axis=-1), twice, net.const(np.int64(2)), inverse=1, onesided=1)
    y = net.op("Slice", z, net.ints(0, 0), net.op("Concat", net.ints(1), size_of(net, x), axis=0), net.ints(3, 2))
    return str(net.op("Transpose", net.op("Squeeze", y, net.ints(3)), perm=[0, 2, 1]))


def size_of(net: Net, x: str) -> str:
    return str(net.op("Shape", x, start=1, end=2))


@pytest.mark.parametrize("filled", ["Pad", "DFT"])
def test_kernel_that_is_filled_up_is_seen_whole(tmp_path: Path, filled: str) -> None:
    """29 taps, however many steps there are: at fewer steps than that, only some of them would be seen."""
    net = Net()
    x = net.input(["b", "t", CHANNELS])
    twice = net.op("Mul", size_of(net, x), net.ints(2))
    kernel = net.const(RNG.standard_normal((CHANNELS, TAPS)))
    if filled == "Pad":
        more = net.op("Max", net.op("Sub", twice, net.ints(TAPS)), net.ints(0))
        kernel = net.op("Pad", kernel, net.op("Concat", net.ints(0, 0, 0), more, axis=0))
        kernel = net.op("Slice", kernel, net.ints(0), size_of(net, x), net.ints(1))
        kernel = net.op("Pad", kernel, net.op("Concat", net.ints(0, 0, 0), size_of(net, x), axis=0))
    else:
        kernel = net.const(RNG.standard_normal((CHANNELS, TAPS, 1)))
        twice = net.op("Max", twice, net.ints(2 * TAPS))
    kernel = kernel if filled == "DFT" else net.op("Unsqueeze", kernel, net.ints(2))
    size = net.op("Squeeze", twice)
    spectrum = net.op("DFT", kernel, size, net.const(np.int64(1)), onesided=1)
    y = net.op("Tanh", product_of_spectra(net, x, spectrum, size))
    model = load_model(save(net.model([(y, ["b", "t", CHANNELS])]), tmp_path))
    assert kinds(model) == ["fir"]
    assert model.systems[0].states == TAPS - 1
    assert {proof.length > TAPS for proof in model.proofs} == {True}


@pytest.mark.parametrize("length", ["t", 32])
def test_powers_that_run_backward_tell_the_poles(tmp_path: Path, length: int | str) -> None:
    """a^(L - 1) ... a^0, as a causal Conv wants its kernel: the poles are those of the system, not their inverses."""
    net = Net()
    x = net.input(["b", length, CHANNELS])
    one = net.const(np.int64(1))
    last = net.op("Sub", net.op("Squeeze", size_of(net, x)), one)
    powers = net.op("Cast", net.op("Range", last, net.const(np.int64(-1)), net.const(np.int64(-1))), to=1)
    poles = np.exp(RNG.uniform(-0.02, -0.005, (CHANNELS, MODES)) + 1j * RNG.uniform(0.1, 0.4, (CHANNELS, MODES)))
    decay, turn = (net.op("Mul", net.const(v[..., None]), powers) for v in (np.log(np.abs(poles)), np.angle(poles)))
    waves = net.op("Mul", net.op("Exp", decay), net.op("Cos", turn))
    kernel = net.op(
        "ReduceSum", net.op("Mul", net.const(RNG.standard_normal((CHANNELS, MODES, 1))), waves), net.ints(1)
    )
    before = net.op("Concat", net.ints(0, 0), net.op("Unsqueeze", last, net.ints(0)), net.ints(0, 0, 0), axis=0)
    padded = net.op("Pad", net.op("Transpose", x, perm=[0, 2, 1]), before)
    y = net.op("Conv", padded, kernel, group=CHANNELS)
    y = net.op("Tanh", net.op("Transpose", y, perm=[0, 2, 1]))
    sizes = [(2, 32)] if length == 32 else [(2, 20), (3, 33)]
    model = lift(net, y, ["b", length, CHANNELS], tmp_path, *sizes)
    assert kinds(model) == [LINEAR]
    assert model.systems[0].time_constants is not None
    expected = -1 / np.log(np.abs(poles))
    assert np.allclose(np.sort(np.ravel(model.systems[0].time_constants)), np.sort(np.ravel(expected)), rtol=1e-4)
    on_targets(model, *sizes[0])


@pytest.mark.parametrize("length", ["t", 64])
def test_filters_of_many_inputs_end_where_their_taps_do(tmp_path: Path, length: int | str) -> None:
    """A dilated Conv that mixes channels, with more taps than are worth delays of their own."""
    net, dilation = Net(), 3
    x = net.op("Transpose", net.input(["b", length, CHANNELS]), perm=[0, 2, 1])
    padded = net.op("Pad", x, net.ints(0, 0, 8 * dilation, 0, 0, 0))
    weight = net.const(RNG.standard_normal((CHANNELS, CHANNELS, 9)))
    y = net.op("Conv", padded, weight, dilations=[dilation], kernel_shape=[9])
    y = net.op("Tanh", net.op("Transpose", y, perm=[0, 2, 1]))
    model = lift(net, y, ["b", length, CHANNELS], tmp_path, (2, 64))
    assert {system.kind for system in model.systems} == {"fir"}
    assert {node.op["kernel"].array.shape[-1] for node in model.graph.nodes("fir")} <= set(range(1, 8 * dilation + 2))
    on_targets(model, 2, 64)


def test_toeplitz_product_as_a_sum_of_products(tmp_path: Path) -> None:
    """No MatMul: u (b, 1, s, f) times a table (t, s, f), summed over s; with a residual, which says that t is time."""
    net, steps = Net(), 20
    x = net.input(["n", steps, 4])
    lags = np.arange(steps)[:, None] - np.arange(steps)
    table = np.where(lags[..., None] >= 0, RNG.uniform(0.5, 0.9, 4) ** np.maximum(lags, 0)[..., None], 0.0)
    weighted = net.op("Mul", net.const(table[None]), net.op("Unsqueeze", x, net.ints(1)))
    y = net.op("Add", x, net.op("Gelu", net.op("ReduceSum", weighted, net.ints(2), keepdims=0)))
    model = lift(net, y, ["n", steps, 4], tmp_path, (2, steps))
    assert ("Toeplitz product", LINEAR) in [(s.disguise, s.kind) for s in model.systems]
    on_targets(model, 2, steps)


def filtered(net: Net, taps: np.ndarray, form: str) -> str:
    """A depthwise Conv with kernels (channels, L) that look back, ahead, or both ways."""
    channels, length = taps.shape
    x = net.op("Transpose", net.input(["b", length, channels]), perm=[0, 2, 1])
    back = taps[:, ::-1]
    weight, pads = {
        "back": (back, [length - 1, 0]),
        "ahead": (taps, [0, length - 1]),
        "both": (np.concatenate([back[:, :-1], taps], axis=1), [length - 1, length - 1]),
    }[form]
    y = net.op("Conv", x, net.const(weight[:, None]), group=channels, pads=pads)
    return str(net.op("Tanh", net.op("Transpose", y, perm=[0, 2, 1])))


@pytest.mark.parametrize("form", ["back", "ahead", "both"])
def test_a_delay_in_front_of_a_kernel(tmp_path: Path, form: str) -> None:
    """Nine steps of nothing, then two modes: a delay and two modes, not as many states as it takes to wait."""
    net, rng = Net(), np.random.default_rng(0)
    poles = rng.uniform(0.6, 0.95, (3, 2)) * np.exp(1j * rng.uniform(0.1, 2, (3, 2)))
    modes = (rng.standard_normal((3, 2, 1)) * poles[..., None] ** np.arange(55)).real.sum(axis=1)
    taps = np.concatenate([np.zeros((3, 9)), modes], axis=1)
    model = lift(net, filtered(net, taps, form), ["b", 64, 3], tmp_path, (2, 64))
    assert kinds(model) == [LINEAR] * (2 if form == "both" else 1)
    for system in model.systems:
        assert system.states == 2 and system.replacement is not None
        assert "behind a delay of 9 steps" in system.replacement.how
    on_targets(model, 2, 64)


@pytest.mark.parametrize("channels", [3, 20])
def test_a_filter_that_nearly_is_a_system_says_how_nearly(tmp_path: Path, channels: int) -> None:
    net, rng = Net(), np.random.default_rng(0)
    taps = 0.9 ** np.arange(64) + 1e-5 * rng.standard_normal((channels, 64))
    path = save(net.model([(filtered(net, taps, "back"), ["b", 64, channels])]), tmp_path)
    (system,) = load_model(path).systems
    assert system.kind == "fir" and system.disguise == "convolution" and system.replacement is not None
    assert "the nearest is" in system.replacement.how and "e-05 of the largest tap off" in system.replacement.how
    assert load_model(path, tolerance=1e-4).systems[0].kind == LINEAR


@pytest.mark.parametrize(("form", "noisy"), [("back", True), ("ahead", True), ("back", False)])
def test_filters_and_delays_of_many_steps(tmp_path: Path, form: str, noisy: bool) -> None:
    """More taps, or more steps to wait, than one instruction takes; onnxruntime runs so many of one sample alone."""
    net, rng = Net(), np.random.default_rng(0)
    taps = rng.standard_normal((1, 8400)) * 0.999 ** np.arange(8400) if noisy else np.zeros((1, 8400))
    taps[:, 5000:] += 0.99 ** np.arange(3400)
    path = save(net.model([(filtered(net, taps / 50, form), ["b", 8400, 1])]), tmp_path)
    model = load_model(path)
    assert kinds(model) == ["fir" if noisy else LINEAR]
    assert {proof.batch for proof in model.proofs} == {1, 2}
    assert {proof.batch for proof in model.proofs if proof.against == "onnxruntime"} == {1}
    on_targets(model, 1, 8400)


@pytest.mark.parametrize(("most", "there"), [(3, 2), (2, 1)])
def test_long_sequences_that_differ_with_the_batch_are_told(tmp_path: Path, most: int, there: int) -> None:
    """They are studied at one batch and proved at two smaller ones."""
    net = Net()
    y = filtered(net, 0.99 ** np.arange(4096.0)[None] / 50, "back")
    batch = net.op("Cast", net.op("Shape", y, start=0, end=1), to=TensorProto.FLOAT)
    batch = net.op("Min", batch, net.const(np.array([float(most)])))
    path = save(net.model([(net.op("Mul", y, batch), ["b", 4096, 1])]), tmp_path)
    refused(path, f"the file is another model at batch {there} than at batch 3")


def test_a_type_that_is_taken_from_the_data(tmp_path: Path) -> None:
    """CastLike, as torch's exporter leaves it in graphs that it does not optimise: the bias of a padded Conv."""
    net = Net()
    x = net.op("Transpose", net.input(["b", 24, 3]), perm=[0, 2, 1])
    padded = net.op("Pad", x, net.ints(0, 0, 23, 0, 0, 0))
    bias = net.op("CastLike", net.const(np.arange(3)), padded)
    kernel = net.const(np.linspace(0.5, 0.9, 3)[:, None, None] ** np.arange(24)[::-1])
    y = net.op("Tanh", net.op("Transpose", net.op("Conv", padded, kernel, bias, group=3), perm=[0, 2, 1]))
    model = lift(net, y, ["b", 24, 3], tmp_path, (2, 24))
    assert kinds(model) == [LINEAR]
