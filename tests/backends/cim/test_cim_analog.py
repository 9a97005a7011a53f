"""Columns that charge state nodes and nodes that drive rows, on analog lines: the machine, by hand-written programs."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from backends.cim.simulate.devices import read_sigma
from backends.cim.simulate.noise import device_normals, key_of
from isa.assembler import assemble
from isa.disassembler import disassemble
from isa.errors import AsmError
from ssmc.diagnostics import UserError
from ssmc.target import Stats

from . import slow
from .chips import changed
from .programs import VERSION, program, run

INPUTS, NODES = 10, 6
QUIET = {"decay_sigma": 0.0, "product_bits": 0.0, "latency_scale": 0.0, "line_gain": 0.0}
BOX = {"rows": 16, "cols": 64, "coupling": "both", "adc_range": "maximum", "levels": 16}
RATES = -1.0 / np.array([2.0, 5.0, 9.0, 30.0, 3.0, 11.0])

# {drive} and {read} are where the columns' sums and the states go
TEXT = """
.section core0
    loop rT, done
    recv v[0], words=11, channel=0
    mvm {drive}, v[0], array=0, row=0, rows=6, col=1, cols=6, input_range=2.5
    mvm {drive}, v[6], array=1, row=2, rows=4, col=0, cols=6, input_range=2.5, accumulate
    charge {read}, {drive}, words=6, node=2, @r, window=40.0, dt=v[10], timed
    mvm v[40], {read}, array=2, row=0, rows=6, col=0, cols=3, input_range=20.0
    emit v[40], words=3, channel=1
done:
    halt
.section core0.setup
    program array=0, row=0, col=1, @b0, @one
    program array=1, row=2, col=0, @b1, @one
    program array=2, row=0, col=0, @c, @s
    halt
"""
COUPLED = TEXT.format(drive="a[3]", read="a[3]")
IN = TEXT.format(drive="a[0]", read="v[30]")
OUT = TEXT.format(drive="v[20]", read="a[1]")
DIGITAL = TEXT.format(drive="v[20]", read="v[30]")


def chip(devices: dict[str, Any] | None = None, **box: Any) -> Any:
    return changed(crossbar={**BOX, **box}, devices={**QUIET, **(devices or {})}, volatile={"per_core": 9})


def numbers() -> tuple[Any, Any, Any]:
    """B and C on the levels of the devices, and what full conductance of C's columns stands for."""
    rng = np.random.default_rng(1)
    scale = np.array([0.5, 1.0, 2.0])
    b, c = (np.clip(np.rint(15 * rng.normal(size=shape) / 2), -15, 15) / 15 for shape in ((10, 6), (6, 3)))
    return b, c * scale, scale


def made(text: str, arch: Any) -> Any:
    b, c, scale = numbers()
    arrays = {"b0": b[:6], "b1": b[6:], "one": np.ones(6), "c": c, "s": scale, "r": RATES}
    return program(text, arch, "u:stream:11:0", "y:stream:3:1", **arrays)


def events(batch: int = 3, steps: int = 30) -> Any:
    rng = np.random.default_rng(4)
    u = rng.normal(size=(batch, steps, 11))
    u[..., 10] = rng.exponential(size=(batch, steps))
    return u


def again(u: Any, arch: Any, fresh: Any = None, gains: Any = None) -> Any:
    """The slow simulator: one event, one device after another. (events, outputs)"""
    b, c, scale = numbers()
    box = arch.crossbar
    held_b, held_c = ([[slow.write(w, box) for w in row] for row in m] for m in (b, c / scale))
    given = {} if fresh is None else {"fresh": fresh}
    into, out = gains if gains is not None else (np.ones(NODES), np.ones(NODES))
    full = float(np.abs(c / scale).sum(0).max())
    nodes, rows = slow.Nodes(RATES.tolist()), []
    for event in u:
        charged = np.zeros(NODES)
        for part in (slice(0, 6), slice(6, INPUTS)):
            charged += slow.currents(event[part].tolist(), held_b[part], box, 2.5, **given)
        states = np.array(nodes.step((charged * into).tolist(), event[INPUTS])) * out
        rows.append(slow.read_by_nodes(states.tolist(), held_c, scale.tolist(), box, 20.0, full, **given))
    return np.array(rows)


def test_lines_carry_what_registers_would() -> None:
    """Perfect devices: the same numbers, to the bit, on lines and in registers."""
    u = events()
    want = run(made(DIGITAL, chip()), u=u, noise="ideal").outputs["y"]
    for text in (COUPLED, IN, OUT):
        for block in (None, 1, 7):
            assert np.array_equal(run(made(text, chip()), u=u, noise="ideal", block=block).outputs["y"], want)


@pytest.mark.parametrize("block", [None, 1, 7])
@pytest.mark.parametrize("gain", [0.0, 0.1])
def test_products_on_lines_device_by_device(block: int | None, gain: float) -> None:
    """Every word of the DACs before the nodes and of the ADCs behind them is that of the slow simulator, each node's
    gains its own."""
    arch, u = chip({"line_gain": gain}, dac_bits=5, adc_bits=6), events()
    got = run(made(COUPLED, arch), u=u, block=block, seed=3).outputs["y"]
    drawn = [device_normals(key_of(3, f"line {side}", 0), 9)[2 : 2 + NODES] for side in ("src", "dst")]
    for b in range(3):
        assert np.allclose(got[b], again(u[b], arch, gains=[1 + gain * each for each in drawn]), rtol=1e-9, atol=1e-9)
    assert not np.allclose(got, run(made(DIGITAL, arch), u=u).outputs["y"], atol=1e-3)


def test_no_converter_stands_on_a_line() -> None:
    """With a coarse converter on the other side: on lines its rounding is not there."""
    u = np.clip(events(), -2.5, 2.5)
    exact = run(made(DIGITAL, chip()), u=u, noise="ideal").outputs["y"]

    def error(text: str, **bits: int) -> float:
        arch = chip(adc_range="maximum", levels=16, **bits)
        return float(np.sqrt(np.square(run(made(text, arch), u=u).outputs["y"] - exact).mean()))

    coarse_adc, coarse_dac = {"adc_bits": 4, "dac_bits": 14}, {"adc_bits": 14, "dac_bits": 4}
    assert error(COUPLED, **coarse_dac) < 0.9 * error(IN, **coarse_dac)  # the read's DACs are gone
    assert error(COUPLED, adc_bits=14, dac_bits=14) < 1e-2 * error(COUPLED, **coarse_adc)  # the last ADC is there
    both = changed(crossbar={**BOX, "adc_bits": 4, "dac_bits": 14}, devices=QUIET, volatile={"per_core": 9})
    states = TEXT.replace("mvm v[40], {read}, array=2, row=0, rows=6, col=0, cols=3, input_range=20.0", "").replace(
        "emit v[40], words=3", "emit v[30], words=3"
    )
    got = run(made(states.format(drive="a[0]", read="v[30]"), both), u=u).outputs["y"]
    want = run(made(states.format(drive="a[0]", read="v[30]"), both), u=u, noise="ideal").outputs["y"]
    assert np.abs(got - want).max() < 2e-3  # an ADC of 4 bits would leave 0.1


def test_noise_on_lines_has_the_distribution_of_its_devices() -> None:
    """Fresh conductances at every read, of both arrays that share lines and of the one that nodes drive: mean and
    variance over many samples against the slow simulator's own draws."""
    n, again_n, rng = 6000, 800, np.random.default_rng(6)
    noise = {"read_noise": "proportional", "read_sigma": 0.1}
    arch, u = chip(noise, adc_bits=12), events(1, 5)
    got = run(made(COUPLED, arch), u=np.repeat(u, n, axis=0), seed=9).outputs["y"][:, -1]

    def fresh(g: Fraction) -> float:
        return float(g) + float(read_sigma(arch.devices, np.array(float(g)), arch.crossbar.g_max)) * rng.normal()

    slowly = np.array([again(u[0], arch, fresh)[-1] for _ in range(again_n)])
    error = np.sqrt(got.var(0) / n + slowly.var(0) / again_n)
    assert (np.abs(got.mean(0) - slowly.mean(0)) < 5 * error).all()
    assert got.var(0) == pytest.approx(slowly.var(0), rel=5 * np.sqrt(2 / n + 2 / again_n))


def test_noise_on_lines_does_not_depend_on_blocks_or_batches() -> None:
    devices = {"read_noise": "independent", "read_sigma": 0.02, "programming": "pcm", "line_gain": 0.02}
    noisy = chip({**devices, "decay_sigma": 0.05, "cycle_sigma": 0.02, "product_bits": 5.0, "wire_ohms": 1.0})
    u = events(19, 11)
    whole = run(made(COUPLED, noisy), u=u, seed=2).outputs["y"]
    for block in (1, 4):
        assert np.array_equal(run(made(COUPLED, noisy), u=u, seed=2, block=block).outputs["y"], whole)
    assert np.array_equal(run(made(COUPLED, noisy), u=u[:8], seed=2).outputs["y"], whole[:8])
    assert not np.array_equal(run(made(COUPLED, noisy), u=u, seed=3).outputs["y"], whole)


WRONG = {
    "never driven": ("charge a[3], a[3]", "charge a[3], a[2]", "does not carry what columns give"),
    "driven by nodes": ("mvm v[40], a[3]", "charge v[40], a[3], words=6, node=0, @r\n mvm v[40], a[3]", "state nodes"),
    "driven by columns": ("charge a[3], a[3]", "charge v[30], a[3]", "driven by columns"),
    "from rows to columns": ("mvm v[40], a[3]", "mvm a[0], a[3]", "both on lines"),
    "several vectors": ("accumulate", "accumulate, vectors=2", "one vector an event"),
    "nothing to add to": ("mvm a[3], v[0]", "mvm v[20], v[0]", "nothing has driven it"),
    "beyond the last": ("a[3]", "a[4]", "outside of the core's 9"),
    "from the event before": (
        "    recv v[0]",
        "    mvm v[40], a[3], array=2, row=0, rows=6, col=0, cols=3\n recv v[0]",
        "",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_line_carries_only_what_drives_it_in_the_same_event(what: str) -> None:
    old, new, told = WRONG[what]
    with pytest.raises(UserError, match=told or "nothing has driven it since the event began") as caught:
        run(made(COUPLED.replace(old, new), chip()), u=events())
    assert "core0, instruction" in str(caught.value)


@pytest.mark.parametrize(("coupling", "text"), [("none", IN), ("none", OUT), ("in", OUT), ("out", IN), ("in", COUPLED)])
def test_a_chip_without_lines_has_none(coupling: str, text: str) -> None:
    with pytest.raises(UserError, match=f"crossbar.coupling is '{coupling}'"):
        run(made(text, chip(coupling=coupling)), u=events())


def test_what_has_no_digital_scale_must_not_need_one() -> None:
    u = events()
    b, c, scale = numbers()
    arrays = {"b0": b[:6], "b1": b[6:], "one": np.ones(6), "two": np.full(6, 2.0), "c": c, "s": scale, "r": RATES}
    arrays["steps"] = np.array([1.0, 1.0, 1.0, 2.0, 1.0, 1.0])
    for unequal, told in (
        (COUPLED.replace("@b1, @one", "@b1, @two"), "join on line a\\[3\\] stand for different sums"),
        (COUPLED.replace("2.5, accumulate", "3.0, accumulate"), "join on line a\\[3\\] stand for different sums"),
        (COUPLED.replace("@b0, @one", "@b0, @steps").replace("@b1, @one", "@b1, @steps"), "charge nodes stand for"),
    ):
        code = program(unequal, chip(), "u:stream:11:0", "y:stream:3:1", **arrays)
        with pytest.raises(UserError, match=told):
            run(code, u=u)
        run(code, u=u, noise="ideal")
    code = made(COUPLED.replace(", input_range=2.5", "").replace(", input_range=20.0", ""), chip())
    want = run(code, u=u, noise="ideal").outputs["y"]
    got = run(code, u=u, noise="quantized").outputs["y"]  # as programs for perfect devices do, which carry no ranges
    assert 0 < np.abs(got - want).max() < 0.1 * np.abs(want).max()


def test_lines_serve_one_layer_after_the_other() -> None:
    """The same lines with other units, in every block anew."""
    second = """
    mvm a[0], v[0], array=0, row=0, rows=6, col=1, cols=6, input_range=4.0
    charge v[50], a[0], words=6, node=0, @r
    emit v[40]"""
    code = made(COUPLED.replace("node=2", "node=6").replace("\n    emit v[40]", second), changed_nodes())
    plain = made(COUPLED.replace("node=2", "node=6"), changed_nodes())
    u = events()
    for block in (None, 1, 4):
        assert np.array_equal(run(code, u=u, block=block).outputs["y"], run(plain, u=u).outputs["y"])


def changed_nodes() -> Any:
    return changed(crossbar=BOX, devices=QUIET, volatile={"per_core": 16})


def test_rows_beyond_their_full_drive_are_counted() -> None:
    u = events()
    u[0, 3, :INPUTS] = 2.5
    code = made(COUPLED.replace("input_range=20.0", "input_range=1.0"), chip())
    assert run(code, u=u).stats.notes["rows beyond their full drive"]["?"] > 0
    assert "rows beyond their full drive" not in run(made(COUPLED, chip()), u=u).stats.notes


@pytest.mark.parametrize("mnemonic", ["copy v[0], a[0], words=3", "binary v[0], a[0], v[3], words=3, add"])
def test_an_analog_value_is_no_operand_of_a_digital_instruction(mnemonic: str) -> None:
    with pytest.raises(AsmError, match="'a' is the wrong memory for this operand"):
        assemble(f".isa cim {VERSION}\n.section core0\n    {mnemonic}\n")


def test_lines_in_text() -> None:
    code = made(COUPLED, chip())
    text = disassemble(code)
    assert "charge  a[3], a[3], words=6, node=2" in text and "mvm     v[40], a[3]" in text
    assert assemble(text, data=dict(code.data)) == code


def test_conversions_that_lines_spare() -> None:
    u = events(2, 7)
    digital, both = (run(made(text, chip()), u=u).stats for text in (DIGITAL, COUPLED))
    energy, events_ = chip().energy, 14

    def spent(stats: Stats, what: str) -> float:
        return float(stats.notes["breakdown_joules"][what])

    assert both.notes["conversions spared"] == {"ADC": 12 * events_, "DAC": 6 * events_}
    saved = events_ * (12 * (energy.adc + energy.vector_word) + 6 * energy.dac) * 1e-12
    assert both.notes["conversions_spared_joules"] == pytest.approx(saved)
    assert spent(digital, "adc") - spent(both, "adc") == pytest.approx(12 * events_ * energy.adc * 1e-12)
    assert spent(digital, "dac") - spent(both, "dac") == pytest.approx(6 * events_ * energy.dac * 1e-12)
    assert both.notes["event_latency_seconds"] < digital.notes["event_latency_seconds"]
    assert digital.energy_joules > both.energy_joules and digital.macs == both.macs
