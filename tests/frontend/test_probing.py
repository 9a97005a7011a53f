"""Regions that mix time, probed: what is found of them, how often they are run for it, and what is kept meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from ssmc.frontend.graph.flow import Flow, Unsupported
from ssmc.frontend.mixing.lti import Kernels, probe
from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.source import evaluate as evaluation
from ssmc.frontend.source import samples as kept
from ssmc.frontend.source.importer import import_model
from ssmc.frontend.source.listing import list_calls
from ssmc.frontend.source.proto import read_model
from ssmc.frontend.source.samples import Samples
from ssmc.ir.graph import Value
from tests.frontend.checks import LINEAR, kinds, lift
from tests.frontend.net import Net, save
from tests.frontend.test_kernel_channels import modes

BATCH, LENGTH, CHANNELS = 3, 9, 4
RNG = np.random.default_rng(0)
TAPS = RNG.standard_normal((CHANNELS, LENGTH))

Function = Callable[[np.ndarray], np.ndarray]


def filtered(x: np.ndarray) -> np.ndarray:
    """(batch, time, channels), each channel by its own taps."""
    rows = [sum(TAPS[:, lag] * x[:, k - lag] for lag in range(k + 1)) for k in range(LENGTH)]
    return np.stack(rows, axis=1)


def probed(function: Function, features: tuple[int, ...] = (CHANNELS,), batch: int = BATCH) -> tuple[Kernels, int]:
    """The kernels, and how many times the region was run."""
    runs = 0

    def run(arrays: Sequence[np.ndarray]) -> np.ndarray:
        nonlocal runs
        runs += 1
        return function(arrays[0].reshape(batch, LENGTH, -1))

    flow = Flow(Value("x"), "bt" + "f" * len(features), (batch, LENGTH, *features))
    shape = (batch, LENGTH, CHANNELS)
    return probe(Region(Value("y"), (), (Value("x"),), (flow,), {}, shape, run, ())), runs


def test_a_filter_of_every_channel_is_known_after_three_runs() -> None:
    """Noise, noise with another first sample, and ones at the first and at the last step."""
    found, runs = probed(filtered)
    np.testing.assert_allclose(found.causal[:, 0], TAPS, atol=1e-12)
    assert found.future is None and found.inputs[:, 0].tolist() == list(range(CHANNELS)) and runs == 3


def test_what_has_no_numbers_is_no_filter() -> None:
    """As where a level of a parallel scan has no even steps left."""
    flow = Flow(Value("x"), "btf", (BATCH, LENGTH, CHANNELS))
    empty = (BATCH, LENGTH, 0)
    with pytest.raises(Unsupported):
        probe(Region(Value("y"), (), (Value("x"),), (flow,), {}, empty, lambda arrays: np.zeros(empty), ()))


@pytest.mark.parametrize("features", [(CHANNELS, 1), (1, CHANNELS), (2, 2)])
def test_axes_of_one_feature_are_no_reason_for_channels_to_meet(features: tuple[int, ...]) -> None:
    """A signal to be transformed has an axis for its parts; and channels may stand in another order or layout."""
    order = np.array([2, 0, 3, 1]) if features == (2, 2) else np.arange(CHANNELS)
    found, _ = probed(lambda x: filtered(x[..., order]), features)
    np.testing.assert_allclose(found.causal[:, 0], TAPS, atol=1e-12)
    assert found.inputs[:, 0].tolist() == order.tolist() and found.inputs.shape == (CHANNELS, 1)


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_an_offset_and_what_comes_from_the_future(batch: int) -> None:
    offset = RNG.standard_normal(CHANNELS)
    found, _ = probed(lambda x: filtered(x) + filtered(x[:, ::-1])[:, ::-1] + offset, batch=batch)
    assert found.future is not None
    np.testing.assert_allclose(found.offset, offset, atol=1e-12)
    np.testing.assert_allclose(found.future[:, 0], TAPS[:, 1:], atol=1e-12)
    np.testing.assert_allclose(found.causal[:, 0, 1:], TAPS[:, 1:], atol=1e-12)


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: np.maximum(filtered(x), 0), "not linear"),
        (lambda x: filtered(x) ** 2, "not linear"),
        (lambda x: np.sign(filtered(x)), "not linear"),
        (lambda x: filtered(x) * np.arange(1, LENGTH + 1)[:, None], "all time steps alike"),
    ],
)
def test_what_is_no_filter_is_none(function: Function, reason: str, batch: int) -> None:
    with pytest.raises(Unsupported, match=reason):
        probed(function, batch=batch)


@pytest.mark.parametrize("batch", [2, 3, 5])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: filtered(x - x.mean(axis=0)),
        lambda x: filtered(x) + np.arange(len(x))[:, None, None],
        lambda x: filtered(x) * np.arange(1, len(x) + 1)[:, None, None],
        lambda x: filtered(x[::-1]),
    ],
)
def test_samples_that_meet_or_differ_are_no_filter(function: Function, batch: int) -> None:
    with pytest.raises(Unsupported):
        probed(function, batch=batch)


def test_what_is_asked_for_step_by_step_is_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large its values are."""
    monkeypatch.setattr(kept, "SMALL", 8)
    monkeypatch.setattr(kept, "KEPT", 8)
    net = Net()
    names = [net.input([100])]
    for _ in range(6):
        names.append(net.op("Add", names[-1], names[-1]))
    path = save(net.model([(names[-1], [100])]), tmp_path)
    listing = list_calls(import_model(read_model(path), path))
    ran, run = [], evaluation.run_quietly
    monkeypatch.setattr(evaluation, "run_quietly", lambda call, *rest: ran.append(call.position) or run(call, *rest))
    samples = Samples(listing, [{listing.inputs[names[0]]: np.ones(100)}])
    for k, call in enumerate(listing.calls, 1):
        (value,) = call.results
        assert samples.shape(value) == (100,) and samples.dtype(value) == np.float64
        np.testing.assert_array_equal(samples.at(0, [value])[value], np.full(100, 2.0**k))
    assert ran == list(range(6))


@pytest.mark.parametrize("form", ["half", "full", "along time", "spectrum", "both ways"])
def test_kernels_in_every_layout(tmp_path: Path, form: str) -> None:
    """Of all frequencies or half of them, transposed, as a spectrum, of two directions: one system a channel."""
    length, channels = 64, 3
    taps, net = modes(channels, length), Net()
    along = 1 if form == "along time" else 2
    if form == "both ways":
        taps = np.concatenate([taps, np.zeros((channels, 1)), modes(channels, length - 1, 1)[:, ::-1]], axis=1)
    u = net.input(["b", length, channels])
    x = net.op("Unsqueeze", u if along == 1 else net.op("Transpose", u, perm=[0, 2, 1]), net.ints(3))
    size, whole = net.const(np.int64(2 * length)), int(form != "full")
    x = net.op("DFT", x, size, net.const(np.int64(along)), onesided=whole)
    if form == "spectrum":
        found = np.fft.rfft(taps, 2 * length)
        k = net.const(np.stack([found.real, found.imag], axis=-1))
    else:
        k = net.const((taps.T if along == 1 else taps)[..., None])
        k = net.op("DFT", k, size, net.const(np.int64(along - 1)), onesided=whole)
    parts = [[net.op("Slice", z, net.ints(i), net.ints(i + 1), net.ints(-1)) for i in (0, 1)] for z in (x, k)]
    (xr, xi), (kr, ki) = parts
    real = net.op("Sub", net.op("Mul", xr, kr), net.op("Mul", xi, ki))
    imaginary = net.op("Add", net.op("Mul", xr, ki), net.op("Mul", xi, kr))
    y = net.op("Concat", real, imaginary, axis=-1)
    y = net.op("DFT", y, size, net.const(np.int64(along)), inverse=1, onesided=whole)
    y = net.op("Slice", y, net.ints(0, 0), net.ints(1, length), net.ints(3, along))
    y = net.op("Tanh", net.op("Squeeze", y, net.ints(3)))
    dims = ["b", length, channels] if along == 1 else ["b", channels, length]
    model = lift(net, y, dims, tmp_path, (2, length))
    assert kinds(model) == [LINEAR] * (2 if form == "both ways" else 1)
    for system in model.systems:
        assert system.states == 2 and system.replacement is not None and system.replacement.kernels == channels
