"""What `choose-banks` says that the chip's banks would take, against what programs for them are charged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.cim import BACKEND
from ssmc.ir import Graph
from ssmc.passes import Alternative, Context, PassManager
from ssmc.statespace import StateSpace
from ssmc.target import RunSettings

from .chips import changed
from .test_cim_feedback import graph_of

STATES, INPUTS, OUTPUTS, STEPS = 12, 5, 7, 40
BOX = {"rows": 16, "cols": 32, "per_core": 8, "coupling": "both"}


def one(kind: str) -> Graph:
    rng = np.random.default_rng(4)
    b, c, d = rng.normal(size=(STATES, INPUTS)), rng.normal(size=(OUTPUTS, STATES)), np.zeros((OUTPUTS, INPUTS))
    a = rng.uniform(0.3, 0.9, STATES) * (1.0 if kind == "real" else np.exp(1j * rng.uniform(0.1, 3, STATES)))
    return graph_of(StateSpace(a[None], b[None], c[None], d[None], halved=kind != "real"), last=False)


def compiled(
    kind: str, bank: str, calibrated: bool = True, **chip: dict[str, Any]
) -> tuple[Any, tuple[Alternative, ...]]:
    arch = changed(crossbar=BOX, volatile={"time_constants": 64}, **chip)
    u = {"u": np.random.default_rng(1).normal(size=(2, STEPS, INPUTS))} if calibrated else None
    context = Context(BACKEND.machine(arch, ideal=False), u)
    passes = f"choose-banks{{banks={bank}}},{BACKEND.pipeline(arch, ideal=False)}"
    return BACKEND.lower(PassManager(passes).run(one(kind), context), arch, ideal=False), tuple(context.alternatives)


def spent(program: Any) -> float:
    """J of a step, without what instructions take to be fetched."""
    arch = BACKEND.load_arch(program.arch)
    stats = BACKEND.simulate(program, {"u": np.ones((1, STEPS, INPUTS))}, RunSettings()).stats
    assert stats.energy_joules is not None
    fetched = stats.instructions * arch.energy.control * 1e-12
    return float((stats.energy_joules - stats.notes["idle_joules"] - fetched) / STEPS)


@pytest.mark.parametrize(("kind", "calibrated"), [("real", True), ("real", False), ("complex", True)])
def test_what_one_bank_takes_more_than_the_other_is_what_is_charged(kind: str, calibrated: bool) -> None:
    """Coupling included, which needs calibration data."""
    told = compiled(kind, "choice", calibrated)[1]
    volatile, digital = (one.joules for one in told[:2])
    assert volatile is not None and digital is not None
    met = [spent(compiled(kind, bank, calibrated)[0]) for bank in ("volatile", "digital")]
    assert met[0] - met[1] == pytest.approx(volatile - digital, rel=0.02)
    assert (told[0].spared_joules > 0) == (kind == "real" and calibrated)


@pytest.mark.parametrize("watts", [0.0, 2e-9])
def test_digital_states_that_leak_are_charged_for_it(watts: float) -> None:
    energy = {"digital_keep_watts": watts, "core_idle_watts": 0.0}
    program, told = compiled("complex", "choice", energy=energy)
    arch = BACKEND.load_arch(program.arch)
    assert told[1].kept_joules == pytest.approx(2 * STATES * watts * arch.time.step_seconds)
    assert [one.bank for one in told if one.chosen] == ["digital" if watts == 0 else "volatile"]
    program, _ = compiled("complex", "digital", energy=energy)
    stats = BACKEND.simulate(program, {"u": np.ones((1, STEPS, INPUTS))}, RunSettings()).stats
    assert stats.notes["idle_watts"] == pytest.approx(2 * STATES * watts)
