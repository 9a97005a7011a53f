"""Device laws against the published formulas, and products with them against a device-by-device simulation.

Statistical bounds are five standard errors of the estimate: a true claim fails once in 1.7 million trials, and
seeds are fixed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.cim.arch import Devices
from backends.cim.simulate.crossbar import product
from backends.cim.simulate.devices import (
    PRESETS,
    drift_exponent,
    drifted,
    product_sigma,
    programming_sigma,
    read_sigma,
)
from backends.cim.simulate.programming import written
from ssmc.target import RunSettings

from .chips import changed
from .programs import program, run


def test_programming_errors_at_published_points() -> None:
    g = np.array([0.0, 12.5, 25.0])
    assert programming_sigma("pcm", g, 25.0) == pytest.approx([0.26348, 0.952705, 1.05538])
    wan = programming_sigma("rram-wan", np.array([0.0, 20.0, 40.0]), 40.0, 1.0)
    assert wan == pytest.approx([0.348, 2.0229375, 1.103], abs=1e-9)
    day = programming_sigma("rram-wan", np.array([0.0, 40.0]), 40.0, 86400.0)
    assert day == pytest.approx([0.701, 2.651], abs=1e-9)
    assert programming_sigma("rram-milo", np.array([50.0, 225.0, 600.0]), 225.0) == pytest.approx(
        [4.326971, 2.733246, 0.0]
    )


def test_drift_and_read_noise_at_published_points() -> None:
    g = np.array([25.0, 5.0])
    nu = drift_exponent(g, 25.0, np.zeros(2))
    assert nu == pytest.approx([0.049, -0.0155 * np.log(0.2) + 0.0244])
    assert drifted(g, nu, 3600.0) == pytest.approx(g * (181.0) ** -nu)
    spread = drift_exponent(g, 25.0, np.ones(2)) - nu
    assert spread == pytest.approx([0.008, -0.0125 * np.log(0.2) - 0.0059])
    devices = Devices(read_noise="pcm", age_seconds=20.0)
    q = np.array([0.0088, min(0.0088 / 0.2**0.65, 0.2)])
    assert read_sigma(devices, g, 25.0) == pytest.approx(g * q * np.sqrt(np.log((20 + 250e-9) / 500e-9)))


def test_devices_take_the_nearest_level() -> None:
    box = changed(crossbar={"levels": 16, "g_min": 1.0, "g_max": 40.0}).crossbar
    relative = np.random.default_rng(0).uniform(-1, 1, (500, 1))
    plus, minus = written(relative, box, Devices(), np.zeros((2, 1, 500, 1)))[:, 0]
    grid = np.linspace(1, 40, 16)
    wanted = 1 + np.abs(relative) * 39
    nearest = grid[np.abs(wanted - grid).argmin(1)][:, None]
    assert plus == pytest.approx(np.where(relative > 0, nearest, 1.0))
    assert minus == pytest.approx(np.where(relative < 0, nearest, 1.0))


def drawn(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.normal(size=(2, 1, *shape))


@pytest.mark.parametrize("law", ["pcm", "rram-wan"])
def test_programmed_pairs_have_the_law_s_spread(law: str) -> None:
    arch = changed()
    box, n = arch.crossbar, 40_000
    devices = Devices(levels=False, programming=law)  # type: ignore[arg-type]
    for weight in (0.7, -0.4):
        relative = np.full((n, 1), weight)
        plus, minus = written(relative, box, devices, drawn(np.random.default_rng(1), relative.shape))[:, 0]
        means = (plus - minus) / (box.g_max - box.g_min)
        g = box.g_min + abs(weight) * (box.g_max - box.g_min)
        sigmas = programming_sigma(law, np.array([g, box.g_min]), box.g_max)
        # the idle device is clipped at zero where its error is as large as itself
        idle = np.maximum(box.g_min + sigmas[1] * np.random.default_rng(2).normal(size=10**6), 0)
        variance = (sigmas[0] ** 2 + idle.var()) / (box.g_max - box.g_min) ** 2
        assert means.var() == pytest.approx(variance, rel=5 * np.sqrt(3 / n))
        shift = np.sign(weight) * (idle.mean() - box.g_min) / (box.g_max - box.g_min)
        assert means.mean() + shift == pytest.approx(weight, abs=5 * np.sqrt(variance / n) + 1e-4)


def crossbar(weights: np.ndarray, devices: dict[str, Any], **box: Any) -> Any:
    """A program whose steps are products with `weights` (16, 4), and its architecture."""
    arch = changed(
        crossbar={"rows": 16, "cols": 8, **box}, devices={"decay_sigma": 0.0, "product_bits": 0.0, **devices}
    )
    rows, cols = weights.shape
    text = f"""
.section core0
    loop rT, done
    recv v[0], words={rows}, channel=0
    mvm v[{rows}], v[0], array=0, row=0, rows={rows}, col=0, cols={cols}
    emit v[{rows}], words={cols}, channel=1
done:
    halt
.section core0.setup
    program array=0, row=0, col=0, @w, @s
    halt
"""
    scale = np.abs(weights).max(0)
    ports = {"inputs": f"u:stream:{rows}:0", "outputs": f"y:stream:{cols}:1"}
    return program(text, arch, **ports, w=weights, s=scale), arch


@pytest.mark.parametrize("law", ["proportional", "independent", "pcm"])
def test_read_noise_at_the_output_is_that_of_fresh_conductances(law: str) -> None:
    """Against drawing every device anew at every read: mean and variance of each column."""
    rng, n = np.random.default_rng(3), 4000
    weights, x = rng.normal(size=(16, 4)), rng.normal(size=16)
    noise = {"converters": False, "levels": False, "read_noise": law, "read_sigma": 0.05}
    code, arch = crossbar(weights, noise)
    y = run(code, u=np.broadcast_to(x, (2, n // 2, 16)).copy(), seed=11).outputs["y"].reshape(n, 4)
    box, scale = arch.crossbar, np.abs(weights).max(0)
    window, slow = box.g_max - box.g_min, np.zeros((n, 4))
    for sign in (1.0, -1.0):
        g = box.g_min + np.clip(sign * weights / scale, 0, 1) * window
        sigma = read_sigma(arch.devices, g, box.g_max)
        fresh = g + sigma * rng.normal(size=(n, *g.shape))
        slow += sign * np.einsum("i,nij->nj", x, fresh) * scale / window
    deviation = np.sqrt(slow.var(0) / n + y.var(0) / n)
    assert (np.abs(y.mean(0) - x @ weights) < 5 * deviation).all()
    assert y.var(0) == pytest.approx(slow.var(0), rel=5 * np.sqrt(4 / n))


def test_lumped_error_has_the_bits_it_says() -> None:
    rng, n = np.random.default_rng(4), 8000
    weights, x = rng.normal(size=(16, 4)), rng.normal(size=16)
    code, _ = crossbar(weights, {"converters": False, "levels": False, "product_bits": 4.6})
    y = run(code, u=np.broadcast_to(x, (2, n // 2, 16)).copy()).outputs["y"].reshape(n, 4)
    scale = np.abs(weights).max(0)
    largest = np.abs(x @ (weights / scale)).max()
    want = product_sigma(largest, 4.6) * scale
    assert y.std(0) == pytest.approx(want, rel=5 * np.sqrt(1 / (2 * n)))
    assert product_sigma(np.array(1.0), 4.6) == pytest.approx(2 / 2**4.6 / 12**0.5)


def test_converters_against_a_scalar_model() -> None:
    """DAC at each vector's largest input, nearest level, ADC at the largest sum there can be: one number at a time.

    Digital words behind an 8-bit ADC are float32; a wrong code would show as a whole step.
    """
    rng = np.random.default_rng(5)
    weights, u = rng.normal(size=(16, 4)), rng.normal(size=(2, 6, 16))
    code, arch = crossbar(weights, {"converters": True, "levels": True}, adc_range="maximum")
    y = run(code, u=u).outputs["y"]
    box, scale = arch.crossbar, np.abs(weights).max(0)
    steps = box.levels - 1
    relative = np.sign(weights) * np.rint(np.abs(weights / scale) * steps) / steps
    full = np.abs(relative).sum(0).max()
    for b, k in np.ndindex(2, 6):
        reach = np.abs(u[b, k]).max()
        driven = np.rint(u[b, k] / reach * 127) / 127
        for j in range(4):
            current = float(sum(driven[i] * relative[i, j] for i in range(16)))
            code_word = max(-127, min(127, round(current / full * 127)))
            assert y[b, k, j] == pytest.approx(code_word * full / 127 * reach * scale[j], abs=full / 127 * 1e-4)


def test_clipping_is_counted() -> None:
    weights = np.ones((16, 4))
    code, _ = crossbar(weights, {}, adc_range="norm", adc_norms=1.0)
    result = run(code, u=np.ones((2, 3, 16)))
    assert result.stats.notes["outputs clipped by an ADC"] == {"?": 2 * 3 * 4}
    assert np.all(result.outputs["y"] < 16)
    fits, _ = crossbar(weights, {}, adc_range="maximum")
    assert "outputs clipped by an ADC" not in run(fits, u=np.ones((2, 3, 16))).stats.notes


def test_decays_spread_as_they_should() -> None:
    sigma, n = 0.05, 4000
    arch = changed(
        volatile={"per_core": n},
        devices={"product_bits": 0.0, "decay_sigma": sigma, "converters": False, "latency_scale": 0.0},
    )
    text = f"""
.section core0
    loop rT, done
    recv v[0], words=1, channel=0
    gather v[1], v[0], span=1, @same
    charge v[1], v[1], words={n}, node=0, @rates
done:
    read v[1], words={n}, node=0, volatile
    emit v[1], words={n}, channel=1
    halt
"""
    constants = {"same": np.zeros(n, np.int64), "rates": np.full(n, -0.2)}
    code = program(text, arch, "u:stream:1:0", f"x:sequence:{n}:1", **constants)
    u = np.array([1.0, 0.0]).reshape(1, 2, 1)
    tau = -1 / np.log(run(code, u=u, seed=1).outputs["x"][0])
    assert tau.mean() == pytest.approx(5.0, rel=5 * sigma / np.sqrt(n))
    assert tau.std() / 5.0 == pytest.approx(sigma, rel=5 / np.sqrt(2 * n))
    again = -1 / np.log(run(code, u=u, seed=1).outputs["x"][0])
    other = -1 / np.log(run(code, u=u, seed=2).outputs["x"][0])
    assert np.array_equal(tau, again) and abs(np.corrcoef(tau, other)[0, 1]) < 5 / np.sqrt(n)


@pytest.mark.parametrize("cols", [1, 4, 11, 33, 128])
def test_panels_do_not_see_each_other(cols: int) -> None:
    rng = np.random.default_rng(6)
    x, w = rng.normal(size=(200, 37)), rng.normal(size=(37, cols))
    whole = product(x, w)
    assert np.allclose(whole, x @ w, rtol=1e-12)
    for start, stop in ((0, 1), (5, 70), (63, 65), (199, 200)):
        assert np.array_equal(product(x[start:stop], w), whole[start:stop])


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_runs_and_repeats(name: str) -> None:
    code, _ = crossbar(np.random.default_rng(7).normal(size=(16, 4)), {})
    a, b = (run(code, noise=name, seed=3).outputs["y"] for _ in range(2))
    assert np.array_equal(a, b)
    ideal = run(code, noise="ideal").outputs["y"]
    error = np.abs(a - ideal).max() / np.abs(ideal).max()
    assert error == 0 if name == "ideal" else 0 < error < 1.0
    assert RunSettings().noise is None
