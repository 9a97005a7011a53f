"""Timestamps through a whole model: what cannot be a time is an error that says which event; units of time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samples
from backends.cim import BACKEND
from ssmc.diagnostics import Misfit, UserError
from ssmc.driver import compile_model
from ssmc.ir import Graph
from ssmc.target import RunSettings

from .chips import changed
from .test_cim_lower import chain


@pytest.fixture(scope="module")
def watch() -> tuple[Any, dict[str, np.ndarray]]:
    """A trained model of events, complex states, and some of its test data with timestamps."""
    sample = samples.load("events-watch")
    calibration = dict(np.load(sample.calibration_path))
    arch = sample.arch("cim", BACKEND.default_arch)
    program = compile_model(sample.model_path, "cim", arch=arch, calibration=calibration)
    return program, {name: array[:10, :40].copy() for name, array in sample.test.items()}


@pytest.mark.parametrize("noise", [None, "ideal"])
@pytest.mark.parametrize("block", [None, 1])
@pytest.mark.parametrize(("what", "told"), [(-0.25, "-0.25"), (np.nan, "nan"), (np.inf, "inf"), ("swapped", "-")])
def test_times_that_are_none(watch: Any, what: Any, told: str, block: int | None, noise: str | None) -> None:
    program, inputs = watch
    dt = inputs["dt"].copy()
    if what == "swapped":  # two events in the wrong order
        times = np.cumsum(dt[9, :, 0] + 0.1)
        times[[16, 17]] = times[[17, 16]]
        dt[9, :, 0] = np.diff(times, prepend=0.0)
    else:
        dt[9, 17, 0] = what
    with pytest.raises(UserError, match=r"'dt' is .* at \(9, 17, 0\)") as caught:
        program.run({**inputs, "dt": dt}, block=block, noise=noise)
    assert told in str(caught.value)
    given = {"event": inputs["event"].astype(float), "dt": dt.astype(float)}
    with pytest.raises(UserError, match="elapsed time of event 17 of sample 9") as caught:  # the machine's own word
        BACKEND.simulate(program.program, given, RunSettings(block=block, noise=noise))
    assert told in str(caught.value) and "sort the events" in str(caught.value) and "layer '" in str(caught.value)


def test_events_come_in_the_data_s_own_time(watch: Any) -> None:
    """Seconds: states last for tens of milliseconds at least, and the chip idles while a sequence goes on."""
    program, inputs = watch
    notes = program.run(inputs).stats.notes
    assert 0.04 < notes["smallest_tau_seconds"] < 0.05
    assert notes["real_seconds_per_sequence"] == pytest.approx(inputs["dt"].sum(1).mean(), rel=1e-6)
    assert "{time.unit_seconds=1}" in program.run(inputs).stats.arch


def test_a_chip_waits_for_events_whatever_holds_its_states(watch: Any) -> None:
    sample = samples.load("events-watch")
    arch = sample.arch("cim", BACKEND.default_arch)
    digital = compile_model(sample.model_path, "cim", arch=arch, passes="choose-banks{banks=digital},default")
    assert not any(ins.mnemonic == "charge" for part in digital.program.sections for ins in part.code)
    notes, volatile = (program.run(watch[1]).stats.notes for program in (digital, watch[0]))
    assert notes["real_seconds_per_sequence"] == volatile["real_seconds_per_sequence"]
    idle = notes["idle_watts"] * notes["real_seconds_per_sequence"]
    assert notes["real_idle_joules_per_sequence"] == pytest.approx(idle, rel=1e-12)


def test_no_time_at_all_may_pass(watch: Any) -> None:
    program, inputs = watch
    still = program.run({**inputs, "dt": np.zeros_like(inputs["dt"])}, noise="ideal").outputs
    assert all(np.isfinite(value).all() for value in still.values())


def timed() -> Graph:
    """Decays of 0.5 and 2 a unit of time."""
    return chain(np.array([-0.5, -2.0]), "volatile", asynchronous=True)


def test_a_unit_of_time_is_what_the_model_counts_in() -> None:
    """Milliseconds unless told: in seconds, time constants are a thousand times as long, and waiting as short."""
    found = []
    for unit in (0.0, 1.0):
        arch = changed(time={"unit_seconds": unit}, vector={"clock_hertz": 1e5})
        program = BACKEND.lower(timed(), arch, ideal=False)
        u, dt = np.ones((1, 6, 3)), np.full((1, 6), 1e-3)
        notes = BACKEND.simulate(program, {"u": u, "dt": dt}, RunSettings()).stats.notes
        found.append((notes["smallest_tau_seconds"], "events that waited for a busy core" in notes))
    assert found == [(pytest.approx(0.5e-3), True), (pytest.approx(0.5), False)]
    with pytest.raises(Misfit, match="longest time constant") as caught:
        BACKEND.lower(timed(), changed(time={"unit_seconds": 1.0}, volatile={"tau_max": 0.6}), ideal=False)
    assert "time.unit_seconds" in str(caught.value)


def test_units_of_a_file(tmp_path: Path) -> None:
    text = samples.arch_path("cim-large").read_text(encoding="utf-8")
    place = "  step_seconds: 1.0e-3"
    assert place in text
    (tmp_path / "seconds.yaml").write_text(text.replace(place, f"  unit_seconds: 1.0\n{place}"), encoding="utf-8")
    arch = BACKEND.load_arch(str(tmp_path / "seconds.yaml"))
    assert (arch.time.unit(timed=True), arch.time.unit(timed=False)) == (1.0, 1e-3)
    assert BACKEND.load_arch(BACKEND.arch_text(arch)) == arch
    bank = BACKEND.machine(arch, ideal=False).banks[0]
    assert bank.unit == pytest.approx(1e3)
