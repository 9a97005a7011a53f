"""The fast simulator against the slow one: exactly without noise, in distribution with it.

Statistical bounds are five standard errors: a true claim fails once in 1.7 million trials, and seeds are fixed.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import product as every
from typing import Any

import numpy as np
import pytest

from backends.cim.program.encoding import decode, encode, encoding_of
from backends.cim.simulate.devices import programming_sigma, read_sigma
from ssmc.diagnostics import UserError

from . import slow
from .chips import changed
from .programs import program, run

ROWS, COLS = 12, 3
ENCODINGS = [
    {"encoding": encoding, "slices": slices, "levels": levels, "input": drive}
    for encoding, (slices, levels), drive in every(
        ("pair", "offset"), ((1, 16), (3, 4), (2, 2)), ("analog", "bit-serial")
    )
    if (encoding, slices, levels) != ("offset", 2, 2) or drive == "analog"
]


def chip(devices: dict[str, Any], **box: Any) -> Any:
    return changed(
        crossbar={"rows": 16, "cols": 64, **box},
        devices={"decay_sigma": 0.0, "product_bits": 0.0, "latency_scale": 0.0, **devices},
    )


def crossbar(weights: np.ndarray, scale: np.ndarray, arch: Any) -> Any:
    rows, cols = weights.shape
    text = f"""
.section core0
    loop rT, done
    recv v[0], words={rows}, channel=0
    mvm v[{rows}], v[0], array=0, row=2, rows={rows}, col=1, cols={cols}
    emit v[{rows}], words={cols}, channel=1
done:
    halt
.section core0.setup
    program array=0, row=2, col=1, @w, @s
    halt
"""
    return program(text, arch, f"u:stream:{rows}:0", f"y:stream:{cols}:1", w=weights, s=scale)


def words_of(box: Any) -> int:
    top = box.levels**box.slices - 1
    return top if box.encoding == "pair" else top // 2


@pytest.mark.parametrize("box", ENCODINGS, ids=lambda box: "-".join(map(str, box.values())))
@pytest.mark.parametrize("g_min", [0.0, 1.0])
def test_encodings_are_exact(box: dict[str, Any], g_min: float) -> None:
    """Weights and inputs on their grids come out exactly: continuous devices and no converters; and with whole steps
    of an ADC that has enough bits."""
    rng = np.random.default_rng(1)
    arch = chip({"converters": False, "levels": False}, **box)
    weights, u = rng.normal(size=(ROWS, COLS)), rng.normal(size=(2, 5, ROWS))
    scale = np.abs(weights).max(0)
    got = run(crossbar(weights, scale, arch), u=u).outputs["y"]
    assert np.allclose(got, u @ weights, rtol=0, atol=1e-12 * np.abs(u @ weights).max())
    arch = chip({}, **box, adc_range="granular", adc_bits=16, dac_bits=6, g_min=g_min)
    end = words_of(arch.crossbar)
    whole = rng.integers(-end, end + 1, size=(ROWS, COLS)) / end
    inputs = rng.integers(-31, 32, size=(2, 5, ROWS)) / 31
    inputs[..., 0] = 1.0  # the DAC's range
    got = run(crossbar(whole, np.ones(COLS), arch), u=inputs).outputs["y"]
    assert np.allclose(got, inputs @ whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("box", ENCODINGS[::2], ids=lambda box: "-".join(map(str, box.values())))
def test_what_is_encoded_can_be_decoded(box: dict[str, Any], rounded: bool) -> None:
    code = encoding_of(chip({}, **box).crossbar)
    weights = np.linspace(-1, 1, 97)
    r = encode(weights, code, rounded=rounded)
    assert r.min() >= 0 and r.max() <= 1 + 1e-12
    assert np.abs(decode(r, code) - weights).max() <= (0.5 / code.end if rounded else 0) + 1e-12


@pytest.mark.parametrize("policy", ["maximum", "norm", "granular"])
@pytest.mark.parametrize("box", ENCODINGS, ids=lambda box: "-".join(map(str, box.values())))
@pytest.mark.parametrize("g_min", [0.0, 1.0])
def test_products_device_by_device(box: dict[str, Any], policy: str, g_min: float) -> None:
    """Every code of every converter is that of the slow simulator."""
    rng = np.random.default_rng(2)
    arch = chip({}, **box, adc_range=policy, dac_bits=5, adc_bits=6, g_min=g_min)
    weights, u = rng.normal(size=(ROWS, COLS)), rng.normal(size=(2, 4, ROWS))
    u[0, 0] = 0.0
    scale = np.abs(weights).max(0)
    got = run(crossbar(weights, scale, arch), u=u).outputs["y"]
    held = [[slow.write(w, arch.crossbar) for w in row] for row in weights / scale]
    full = adc_range(held, arch.crossbar)
    for b, k in np.ndindex(2, 4):
        want = slow.product(u[b, k].tolist(), held, scale.tolist(), arch.crossbar, full)
        assert got[b, k] == pytest.approx(want, abs=1e-5 * scale.max() * np.abs(u).max()), (b, k)


def adc_range(held: list[list[slow.Weight]], box: Any) -> Any:
    """The policies, said again: every column's conductances, in full ones."""
    window, columns = Fraction(box.g_max) - Fraction(box.g_min), []
    for j in range(len(held[0])):
        for s in range(box.slices):
            pairs = [row[j].devices for row in held]
            low = Fraction(box.g_min)
            columns.append([(pair[0][s] - (pair[1][s] if len(pair) > 1 else low)) / window for pair in pairs])
    most = max(sum(abs(g) for g in column) for column in columns)
    if box.adc_range == "norm":
        return float(min(most, box.adc_norms * max(float(sum(g * g for g in column)) ** 0.5 for column in columns)))
    if box.adc_range == "granular":
        inputs = 1 if box.input == "bit-serial" else 2 ** (box.dac_bits - 1) - 1
        reach = Fraction(2 ** (box.adc_bits - 1) - 1, (box.levels - 1) * inputs)
        while reach < most:
            reach *= 2
        return reach
    return most


LARGE = {"rows": 98, "cols": 256, "g_min": 1.0, "g_max": 40.0}  # no whole number of steps below g_min


def error(box: dict[str, Any]) -> tuple[float, float]:
    """Rms error of a product through this crossbar's converters, and the weight times input that an ADC's step is."""
    rng = np.random.default_rng(8)
    weights, u = rng.normal(size=(96, 8)), rng.normal(size=(2, 100, 96))
    scale = np.abs(weights).max(0)
    arch = chip({}, **LARGE, **box)
    y = run(crossbar(weights, scale, arch), u=u).outputs["y"]
    held = [[slow.write(w, arch.crossbar) for w in row] for row in weights / scale]
    weight_of_full = 1 if arch.crossbar.encoding == "pair" else (arch.crossbar.levels - 1) / words_of(arch.crossbar)
    step = float(adc_range(held, arch.crossbar)) * weight_of_full / (2 ** (arch.crossbar.adc_bits - 1) - 1)
    return float(np.sqrt(np.square(y - u @ weights).mean())), step


@pytest.mark.parametrize("policy", ["maximum", "granular"])
def test_an_offset_costs_its_larger_range(policy: str) -> None:
    """Where the ADC is what errs, an offset errs more than a pair by as much as its ADC's step is larger."""
    single = {"slices": 1, "levels": 4097, "dac_bits": 12, "adc_bits": 8, "adc_range": policy}
    (pair, fine), (offset, coarse) = (error({**single, "encoding": name}) for name in ("pair", "offset"))
    assert coarse > 1.5 * fine
    assert offset / pair == pytest.approx(coarse / fine, rel=0.1)


@pytest.mark.parametrize("policy", ["maximum", "granular"])
def test_offsets_reach_pairs_as_converters_grow(policy: str) -> None:
    """Sliced and bit-serial: what is left at last is the rounding of weights and inputs, alike in both but for the
    offset's steps of twice a pair's."""
    sliced = {"slices": 8, "levels": 4, "input": "bit-serial", "dac_bits": 16, "adc_range": policy}
    found = [
        [error({**sliced, "encoding": name, "adc_bits": bits})[0] for bits in (8, 16)] for name in ("pair", "offset")
    ]
    (coarse_pair, fine_pair), (coarse, fine) = found
    assert fine < 0.01 * coarse
    assert fine < 3 * fine_pair and coarse < 3 * coarse_pair


@pytest.mark.parametrize("box", ENCODINGS[:6:2], ids=lambda box: "-".join(map(str, box.values())))
def test_read_noise_device_by_device(box: dict[str, Any]) -> None:
    """Mean and variance of every output, through the ADC, with every device drawn anew at every read."""
    rng, n = np.random.default_rng(3), 1000
    arch = chip({"read_noise": "proportional", "read_sigma": 0.1}, **box, adc_range="maximum")
    weights, x = rng.normal(size=(ROWS, COLS)), rng.normal(size=ROWS)
    scale = np.abs(weights).max(0)
    y = run(crossbar(weights, scale, arch), u=np.broadcast_to(x, (2, 4000, ROWS)).copy(), seed=5).outputs["y"]
    y = y.reshape(-1, COLS)
    held = [[slow.write(w, arch.crossbar) for w in row] for row in weights / scale]
    full = float(adc_range(held, arch.crossbar))

    def fresh(g: Fraction) -> float:
        sigma = read_sigma(arch.devices, np.array(float(g)), arch.crossbar.g_max)
        return float(g) + float(sigma) * rng.normal()

    again = np.array([slow.product(x.tolist(), held, scale.tolist(), arch.crossbar, full, fresh) for _ in range(n)])
    error = np.sqrt(again.var(0) / n + y.var(0) / len(y))
    assert (np.abs(y.mean(0) - again.mean(0)) < 5 * error).all()
    assert y.var(0) == pytest.approx(again.var(0), rel=5 * np.sqrt(2 / n + 2 / len(y)))


@pytest.mark.parametrize("kind", ["pair", "offset"])
def test_reference_columns_device_by_device(kind: str) -> None:
    """Read noise of the reference adds to every column's; without noise a reference of devices is the perfect one."""
    rng, n = np.random.default_rng(3), 1000
    noise = {"read_noise": "independent", "read_sigma": 0.05, "converters": False, "levels": False}
    box = {"encoding": kind, "levels": 16, "adc_range": "maximum", "g_min": 4.0}
    arch = chip({**noise, "reference": True}, **box)
    weights, x = rng.normal(size=(ROWS, COLS)), rng.normal(size=ROWS)
    scale = np.abs(weights).max(0)
    u = np.broadcast_to(x, (2, 4000, ROWS)).copy()
    y = run(crossbar(weights, scale, arch), u=u, seed=5).outputs["y"].reshape(-1, COLS)
    held = [[continuous(w, arch.crossbar) for w in row] for row in weights / scale]
    sigma = 0.05 * arch.crossbar.g_max

    def fresh(g: Any) -> float:
        return float(g) + sigma * rng.normal()

    reference = [Fraction(arch.crossbar.g_min)] * ROWS
    again = np.array(
        [slow.product(x.tolist(), held, scale.tolist(), arch.crossbar, 1.0, fresh, False, reference) for _ in range(n)]
    )
    error = np.sqrt(again.var(0) / n + y.var(0) / len(y))
    assert (np.abs(y.mean(0) - again.mean(0)) < 5 * error).all()
    assert y.var(0) == pytest.approx(again.var(0), rel=5 * np.sqrt(2 / n + 2 / len(y)))
    still = [
        run(crossbar(weights, scale, chip({"reference": flag}, **box)), u=u[:, :5]).outputs["y"] for flag in (0, 1)
    ]
    assert np.array_equal(still[0], still[1])
    perfect = run(crossbar(weights, scale, chip(noise, **box)), u=u, seed=5).outputs["y"].reshape(-1, COLS)
    assert y.var(0) / perfect.var(0) == pytest.approx(2.0 if kind == "offset" else 1.0, rel=5 * np.sqrt(4 / len(y)))


def continuous(weight: float, box: Any) -> slow.Weight:
    """A weight's devices, of one slice, at any conductance."""
    window = box.g_max - box.g_min
    shares = [max(weight, 0.0), max(-weight, 0.0)] if box.encoding == "pair" else [(weight + 1.0) * words_of(box) / 15]
    return slow.Weight([[Fraction(box.g_min + share * window)] for share in shares])


def test_errors_of_a_reference_meet_all_columns_alike() -> None:
    """The programming error of a reference is in every column: the covariance of two columns over many arrays."""
    arrays, sigma_of = 60, programming_sigma("pcm", np.array([4.0]), 40.0)[0]
    arch = chip(
        {"programming": "pcm", "reference": True, "converters": False, "levels": False},
        encoding="offset",
        levels=16,
        g_min=4.0,
        per_core=arrays,
    )
    reads = "\n".join(f"    mvm v[{16 + 2 * i}], v[0], array={i}, row=0, rows=16, col=0, cols=2" for i in range(arrays))
    writes = "\n".join(f"    program array={i}, row=0, col=0, @w, @s" for i in range(arrays))
    text = f"""
.section core0
    loop rT, done
    recv v[0], words=16, channel=0
{reads}
    emit v[16], words={2 * arrays}, channel=1
done:
    halt
.section core0.setup
{writes}
    halt
"""
    code = program(text, arch, "u:stream:16:0", f"y:stream:{2 * arrays}:1", w=np.zeros((16, 2)), s=np.ones(2))
    u = np.ones((1, 1, 16))
    y = np.concatenate([run(code, u=u, seed=seed).outputs["y"].reshape(-1, 2) for seed in range(40)])
    covariance = np.cov(y.T)
    unit = 15 / 7 / (arch.crossbar.g_max - arch.crossbar.g_min)  # weight of a uS
    want = 16 * (sigma_of * unit) ** 2
    spread = np.sqrt((covariance[0, 0] * covariance[1, 1] + want**2) / len(y))
    assert abs(covariance[0, 1] - want) < 5 * spread and want > 5 * spread


STATES = """
.section core0
    loop rT, done
    recv v[0], words=5, channel=0
    charge v[5], v[0], words=4, node=0, @r, window=3.0, dt=v[4], timed
    emit v[5], words=4, channel=1
done:
    halt
"""


CLEAN = {"converters": False, "decay_sigma": 0.0, "product_bits": 0.0}


def state_program(**devices: Any) -> Any:
    arch = chip({"converters": False, **devices})
    rates = -1.0 / np.array([2.0, 5.0, 9.0, 30.0])
    return program(STATES, arch, "u:stream:5:0", "x:stream:4:1", r=rates), rates


def events(rng: Any, batch: int, steps: int) -> Any:
    u = rng.normal(size=(batch, steps, 5))
    u[..., 4] = rng.exponential(size=(batch, steps))
    return u


@pytest.mark.parametrize("law", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("block", [None, 1, 7])
def test_states_event_by_event(law: float, block: int | None) -> None:
    code, rates = state_program(write_saturation=law)
    u = events(np.random.default_rng(4), 3, 40)
    got = run(code, u=u, block=block).outputs["x"]
    for b in range(3):
        want = slow.states(u[b, :, :4].tolist(), u[b, :, 4].tolist(), rates.tolist(), lambda k, n: 1.0, law, 3.0)
        assert np.allclose(got[b], want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("law", [0.0, 1.0])
@pytest.mark.parametrize("block", [None, 1, 7])
def test_states_decay_while_events_wait(law: float, block: int | None) -> None:
    """A clock so slow that events come faster than the core takes them: it is busy for `S` with each, in absolute time
    here, in waiting times there."""
    timed = changed(devices={**CLEAN, "write_saturation": law, "latency_scale": 1.0}, vector={"clock_hertz": 3e4})
    rates = -1.0 / np.array([2.0, 5.0, 9.0, 30.0])
    code = program(STATES, timed, "u:stream:5:0", "x:stream:4:1", r=rates)
    u = events(np.random.default_rng(4), 3, 60)
    u[0, :5, 4], u[1, 7:9, 4] = 0.0, 40.0
    result = run(code, u=u, block=block)
    cycles = 1e3 / 3e4  # ms, which the model counts in
    lanes = -(-4 // timed.vector.lanes)
    charged = timed.volatile.charge_cycles + timed.volatile.read_cycles + lanes
    busy = (1 + charged + -(-4 // timed.mesh.words_per_flit)) * cycles  # recv, charge, emit
    assert result.stats.notes["event_interval_seconds"] == pytest.approx(busy * 1e-3)
    for b in range(3):
        parts = u[b, :, :4].tolist(), u[b, :, 4].tolist(), rates.tolist(), lambda k, n: 1.0, law, 3.0
        want = slow.states(*parts, busy=busy, held=charged * cycles)
        assert np.allclose(result.outputs["x"][b], want, rtol=1e-10, atol=1e-12)
        assert not np.allclose(result.outputs["x"][b], slow.states(*parts), rtol=1e-3)
    waited = sum(result.stats.notes["events that waited for a busy core"].values())
    assert 0 < waited < u[..., 4].size
    again = run(code, u=u, noise="quantized{converters=false,levels=false}")
    assert "events that waited for a busy core" not in again.stats.notes


def test_a_state_decays_until_it_is_read() -> None:
    """After the loop, too: from the last pulse to the `read`."""
    timed = changed(devices={**CLEAN, "latency_scale": 1.0}, vector={"clock_hertz": 1e4})
    text = STATES.replace(
        "    halt", "    read v[9], words=4, node=0, volatile\n    emit v[9], words=4, channel=2\n    halt"
    )
    rates = -1.0 / np.array([2.0, 5.0, 9.0, 30.0])
    code = program(text, timed, "u:stream:5:0", "x:stream:4:1 last:sequence:4:2", r=rates)
    u = events(np.random.default_rng(4), 2, 9)
    got = run(code, u=u).outputs
    emitted, read = -(-4 // timed.mesh.words_per_flit), -(-4 // timed.vector.lanes)
    later = np.exp(rates * (emitted + read) * 1e3 / 1e4)  # since the charge was read
    assert np.allclose(got["last"], got["x"][:, -1] * later, rtol=1e-12)


def test_saturation_bounds_the_states() -> None:
    code, _ = state_program(write_saturation=1.0)
    u = np.abs(events(np.random.default_rng(5), 2, 200)) * 3
    free, _ = state_program()
    assert np.abs(run(code, u=u).outputs["x"]).max() <= 3.0 < np.abs(run(free, u=u).outputs["x"]).max()


def test_decays_that_vary_from_event_to_event() -> None:
    """Mean and variance of the last state over many samples, against the slow simulator's own draws."""
    sigma, n, rng = 0.3, 6000, np.random.default_rng(6)
    code, rates = state_program(cycle_sigma=sigma)
    one = events(rng, 1, 6)
    got = run(code, u=np.repeat(one, n, axis=0), seed=9).outputs["x"][:, -1]
    u, dt = one[0, :, :4].tolist(), one[0, :, 4].tolist()
    again = np.array(
        [slow.states(u, dt, rates.tolist(), lambda k, m: 1 + sigma * rng.normal(), 0.0, 3.0)[-1] for _ in range(n // 3)]
    )
    error = np.sqrt(got.var(0) / n + again.var(0) / len(again))
    assert (np.abs(got.mean(0) - again.mean(0)) < 5 * error).all()
    kurtosis = ((again - again.mean(0)) ** 4).mean(0) / again.var(0) ** 2
    assert (np.abs(got.var(0) / again.var(0) - 1) < 5 * np.sqrt((kurtosis - 1) * (1 / n + 1 / len(again)))).all()


def test_the_common_mode_leaves_the_window_first() -> None:
    """Inputs of both signs in turn: the state stays small while both devices of its pair fill up."""
    code, rates = state_program()
    u = np.ones((1, 40, 5))
    u[:, 1::2, :4] = -1.0
    result = run(code, u=u)
    assert np.abs(result.outputs["x"]).max() < 3.0
    level, count = np.zeros((2, 4)), 0
    for k in range(40):
        level = level * np.exp(rates)
        level[k % 2] += 1.0
        count += int((level.max(0) > 3.0).sum())
    assert result.stats.notes["states outside their window"] == {"?": count} and count > 0
    with pytest.raises(UserError, match="left their window") as caught:
        run(code, u=u, strict=True)
    assert "(charge)" in str(caught.value) and "--strict" in str(caught.value)
    run(code, u=u[:, :4], strict=True)


def test_a_saturating_write_needs_a_window() -> None:
    arch = chip({"converters": False, "write_saturation": 1.0})
    code = program(STATES.replace(", window=3.0", ""), arch, "u:stream:5:0", "x:stream:4:1", r=-np.ones(4))
    with pytest.raises(UserError, match="window of the state devices is not known"):
        run(code, u=np.ones((1, 2, 5)))
