"""Stuck devices, drift and its compensation, offsets of converters, wires, scaled laws: each on its own, in a program.

Statistical bounds are five standard errors: a true claim fails once in 1.7 million trials, and seeds are fixed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.cim.arch import Devices
from backends.cim.simulate.devices import PRESETS, drift_exponent, drifted, preset, programming_sigma, read_sigma
from backends.cim.simulate.noise import device_uniforms, key_of
from ssmc.diagnostics import UserError

from .programs import run
from .test_cim_slow import ENCODINGS, chip, crossbar

SIZE = 64
BOX = {"rows": SIZE + 2, "cols": 2 * SIZE + 2}


def outputs(devices: dict[str, Any], weights: Any, u: Any, box: dict[str, Any] | None = None, **options: Any) -> Any:
    arch = chip({"converters": False, "levels": False, **devices}, **{**BOX, **(box or {})})
    return run(crossbar(weights, np.ones(weights.shape[1]), arch), u=u, **options).outputs["y"][0]


def effective(devices: dict[str, Any], weights: Any, **options: Any) -> Any:
    """What the array's weights are: the product with each unit vector."""
    return outputs(devices, weights, np.eye(len(weights))[None], **options)


def test_stuck_devices_are_as_many_as_said() -> None:
    weights = np.full((SIZE, SIZE), 0.5)
    found = effective({"stuck_low": 0.1, "stuck_high": 0.05}, weights, seed=4)
    values, counts = np.unique(np.round(found, 9), return_counts=True)
    # plus device at 0.5, 0 or 1; minus device at 0 or 1
    expected = {0.5: 0.85 * 0.95, 0.0: 0.1 * 0.95, 1.0: 0.05 * 0.95, -0.5: 0.85 * 0.05, -1.0: 0.1 * 0.05}
    expected[0.0] += 0.05 * 0.05
    assert set(values) == set(expected)
    for value, count in zip(values, counts, strict=True):
        p = expected[float(value)]
        assert abs(count / weights.size - p) < 5 * np.sqrt(p * (1 - p) / weights.size), value
    assert np.array_equal(effective({"stuck_high": 1.0}, weights), np.zeros_like(weights))
    assert np.allclose(effective({}, weights), weights)


def test_uniform_numbers_of_devices() -> None:
    drawn = device_uniforms(key_of(1, "x"), 50_000)
    assert drawn.min() > 0 and drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 5 / np.sqrt(12 * len(drawn))
    assert abs(drawn.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / len(drawn))


def test_drift_is_compensated_in_all_but_its_spread() -> None:
    """Compensated, an array's conductances are in sum what they were; what is left is what devices differ in."""
    weights = np.random.default_rng(1).uniform(-1, 1, size=(SIZE, SIZE))
    day = {"drift": "pcm", "age_seconds": 86400.0}
    raw, compensated = (effective({**day, "drift_compensation": on}, weights, seed=2) for on in (False, True))
    slope = [float((weights * found).sum() / (weights**2).sum()) for found in (raw, compensated)]
    assert slope[0] < 0.75 and slope[1] == pytest.approx(1, abs=0.05)
    assert np.allclose(effective({**day, "drift_scale": 0.0}, weights), weights)
    assert np.allclose(compensated / raw, (compensated / raw)[0, 0])  # one factor for the array
    box = {"encoding": "offset"}
    raw, compensated = (effective({**day, "drift_compensation": on}, weights, seed=2, box=box) for on in (False, True))
    assert (raw - weights).mean() < -0.1 and abs((compensated - weights).mean()) < 0.05


def test_offsets_of_converters() -> None:
    """An ADC's offset adds a constant to its columns' words, a DAC's to its row's."""
    steps, weights = 16, np.random.default_rng(2).uniform(-1, 1, size=(SIZE, 8))
    u = np.zeros((1, steps, SIZE))
    quiet = {"converters": True, "levels": True}
    box = {"adc_bits": 8, "cols_per_adc": 4, "devices_per_weight": 2, "adc_range": "maximum"}
    assert not outputs(quiet, weights, u, box).any()
    arch = chip({}, **BOX)
    y = outputs({**quiet, "adc_offset": 3.0}, weights, u, box)
    assert (y == y[0]).all() and y.any()  # the same at every step
    assert len(np.unique(y[0])) <= 5  # two weights an ADC, from the second column of the array on
    full = np.abs(np.rint(weights * (arch.crossbar.levels - 1)) / (arch.crossbar.levels - 1)).sum(0).max()
    assert np.allclose(y[0] / (full / 127), np.rint(y[0] / (full / 127)), atol=1e-4)  # whole words
    fine = {**box, "adc_bits": 16}
    rows = outputs({**quiet, "dac_offset": 2.0}, weights, u, fine)[0] * 127
    assert rows.any()
    drawn = np.linalg.lstsq(weights.T, rows, rcond=None)[0]  # the smallest offsets that explain it
    assert np.abs(drawn).max() < 10 and (rows == rows[0]).sum() < len(rows)
    spread = [
        np.std(outputs({**quiet, "adc_offset": 3.0}, np.eye(SIZE), u, {**box, "cols_per_adc": 1}, seed=s)[0])
        for s in range(20)
    ]
    assert np.mean(spread) * 127 == pytest.approx(3.0, rel=5 / np.sqrt(2 * 20 * SIZE) + 0.02)


def test_wires_lose_more_the_farther_away() -> None:
    weights = np.full((SIZE, SIZE), 1.0)
    found = effective({"wire_ohms": 1.0}, weights)
    assert (np.diff(found, axis=1) < 0).all() and (np.diff(found, axis=0) > 0).all()  # driven left, read below
    assert found.max() < 1 and found.min() > 0.7
    twice = effective({"wire_ohms": 2.0}, weights)
    assert ((1 - twice) / (1 - found) > 1.6).all() and ((1 - twice) / (1 - found) < 2).all()


@pytest.mark.parametrize("law", ["pcm", "rram-wan", "rram-milo"])
def test_programming_errors_reach_the_products(law: str) -> None:
    """CrossSim's and aihwkit's error of a static product: sum_i x_i^2 of both devices' variances, over the window's
    square, is the variance over devices, here over columns that hold the same weights."""
    n, w = 512, 0.6
    box = {"cols": 2 * n + 2, "g_min": 50.0, "g_max": 225.0}
    weights, x = np.full((SIZE, n), w), np.random.default_rng(3).normal(size=SIZE)
    y = outputs({"programming": law}, weights, x[None, None], box, seed=6)[0]
    g, window = np.array([50.0 + w * 175.0, 50.0]), 175.0
    sigma = programming_sigma(law, g, 225.0, 20.0)
    variance = (sigma**2).sum() * (x**2).sum() / window**2
    assert y.mean() == pytest.approx(w * x.sum(), abs=5 * np.sqrt(variance / n))
    assert y.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / n))
    half = outputs({"programming": law, "programming_scale": 0.5}, weights, x[None, None], box, seed=6)[0]
    linear = (half - w * x.sum()) - (y - w * x.sum()) / 2
    assert np.median(np.abs(linear)) < 1e-9  # all but devices that would fall below zero


@pytest.mark.parametrize("law", ["independent", "proportional", "uniform"])
def test_programming_errors_of_a_stated_size(law: str) -> None:
    """CrossSim's: G + s N, G (1 + s N) and an even spread, of both devices of a pair."""
    n, w, size = 512, 0.6, 0.02
    box = {"cols": 2 * n + 2, "g_min": 10.0, "g_max": 50.0}
    weights, x = np.full((SIZE, n), w), np.eye(SIZE)[:1]
    devices = {"programming": law, "programming_sigma": size}
    error = 40.0 * (outputs(devices, weights, x[None], box, seed=6)[0] - w)  # of one pair a column, uS
    g = np.array([10.0 + w * 40.0, 10.0])
    sigma = {"proportional": size * g}.get(law, np.full(2, size * 50.0 / (np.sqrt(3.0) if law == "uniform" else 1.0)))
    deviation = np.sqrt((sigma**2).sum())
    assert error.mean() == pytest.approx(0.0, abs=5 * deviation / np.sqrt(n))
    assert error.std() == pytest.approx(deviation, rel=5 / np.sqrt(2 * n))
    if law == "uniform":  # the sum of two even ones ends, and is a triangle
        assert np.abs(error).max() <= 2 * size * 50.0
        assert (error**4).mean() / deviation**4 == pytest.approx(2.4, abs=5 * 1.7 / np.sqrt(n))
    twice = outputs({**devices, "programming_scale": 2.0}, weights, x[None], box, seed=6)[0]
    np.testing.assert_allclose(40.0 * (twice - w), 2 * error, atol=1e-9)


def test_a_preset_of_devices_with_conductances_of_their_own() -> None:
    """Milo's law is for 50 to 225 uS: there it is applied, whatever the chip's other devices conduct."""
    rng = np.random.default_rng(8)
    weights, u = rng.uniform(-1, 1, (SIZE, 9)), rng.normal(size=(2, 5, SIZE))
    given = {"u": u, "seed": 3, "noise": "rram-milo"}
    one, other = (
        run(crossbar(weights, np.ones(9), chip({}, **BOX, **window)), **given).outputs["y"]
        for window in ({"g_min": 1.0, "g_max": 40.0}, {"g_min": 50.0, "g_max": 225.0})
    )
    assert np.array_equal(one, other)
    own = {"levels": False, "programming": "rram-milo"}
    inside = crossbar(weights, np.ones(9), chip(own, **BOX, g_min=50.0, g_max=225.0))
    assert np.array_equal(run(inside, u=u, seed=3).outputs["y"], one)
    error = np.sqrt(np.mean((one - u @ weights) ** 2) / np.mean((u @ weights) ** 2))
    assert 0.01 < error < 0.2
    with pytest.raises(UserError, match="g_max"):
        preset("rram-milo{g_max=40}", Devices())


def test_pcm_read_noise_and_drift_reach_the_products() -> None:
    """aihwkit's PCM: read noise has the variance sum_i x_i^2 sigma_i^2 (both devices); drift scales by (t/t0)^-nu."""
    n, w, age = 20_000, 0.6, 3600.0
    weights, x = np.full((SIZE, 1), w), np.random.default_rng(4).normal(size=SIZE)
    u = np.broadcast_to(x, (1, n, SIZE)).copy()
    y = outputs({"read_noise": "pcm", "age_seconds": age}, weights, u, seed=7)[:, 0]
    arch = chip({})
    low, high = arch.crossbar.g_min, arch.crossbar.g_max
    g = np.array([low + w * (high - low), low])
    sigma = read_sigma(Devices(read_noise="pcm", age_seconds=age), g, high)
    variance = (sigma**2).sum() * (x**2).sum() / (high - low) ** 2
    assert y.mean() == pytest.approx(w * x.sum(), abs=5 * np.sqrt(variance / n))
    assert y.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / n))
    many = np.full((SIZE, SIZE), w)
    found = effective({"drift": "pcm", "age_seconds": age}, many, seed=8)
    nu = drift_exponent(g, high, np.random.default_rng(0).normal(size=(10**5, 2)))
    wanted = drifted(g, nu, age) @ np.array([1.0, -1.0]) / (high - low)
    assert found.mean() == pytest.approx(wanted.mean(), abs=5 * wanted.std() / np.sqrt(found.size))
    assert found.std() == pytest.approx(wanted.std(), rel=5 / np.sqrt(2 * found.size) * 1.5)


EVERYTHING = {
    "converters": True,
    "levels": True,
    "programming": "rram-wan",
    "drift": "pcm",
    "drift_compensation": True,
    "read_noise": "pcm",
    "product_bits": 6.0,
    "stuck_low": 0.01,
    "stuck_high": 0.01,
    "dac_offset": 0.3,
    "adc_offset": 0.3,
    "wire_ohms": 0.5,
}


@pytest.mark.parametrize("box", ENCODINGS, ids=lambda box: "-".join(map(str, box.values())))
@pytest.mark.parametrize("devices", [EVERYTHING, {"converters": True, "levels": True, "product_bits": 5.0}])
def test_blocks_and_batches_change_nothing(box: dict[str, Any], devices: dict[str, Any]) -> None:
    rng = np.random.default_rng(5)
    weights, u = rng.normal(size=(12, 3)), rng.normal(size=(19, 21, 12))
    code = crossbar(weights, np.abs(weights).max(0), chip(devices, **box))
    whole = run(code, u=u, seed=2).outputs["y"]
    for block in (1, 5, 16):
        assert np.array_equal(run(code, u=u, seed=2, block=block).outputs["y"], whole)
    assert np.array_equal(run(code, u=u[:3], seed=2).outputs["y"], whole[:3])
    assert np.abs(run(code, u=u, seed=3).outputs["y"] - whole).max() > 0


def test_settings_by_text() -> None:
    own = Devices(product_bits=3.0)
    assert preset("pcm", own) == PRESETS["pcm"] and preset("arch", own) == own
    assert preset("arch{product_bits=5, stuck_low=0.1}", own) == Devices(product_bits=5.0, stuck_low=0.1)
    assert not preset("quantized{levels=false}", own).levels
    for wrong in ("loud", "pcm{loud=1}", "pcm{read_scale}", "pcm{read_scale=-1}", "pcm{levels=perhaps}", "pcm}", "{}"):
        with pytest.raises(UserError):
            preset(wrong, own)
