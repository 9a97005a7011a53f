"""What a bank's row says of B and C around it: the energy that is charged for them, the error that is measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.cim import BACKEND
from ssmc.passes import Context, PassManager
from ssmc.passes.choices import BankChoice
from ssmc.statespace import StateSpace
from ssmc.target import RunSettings

from .chips import changed
from .test_cim_feedback import graph_of

STATES, INPUTS, OUTPUTS = 20, 9, 7


def system_of(kind: str) -> StateSpace:
    rng = np.random.default_rng(4)
    b, c, d = rng.normal(size=(STATES, INPUTS)), rng.normal(size=(OUTPUTS, STATES)), np.zeros((OUTPUTS, INPUTS))
    if kind == "real":
        a = np.diag(rng.uniform(0.3, 0.9, STATES))
    elif kind == "complex":  # poles that turn
        a = rng.normal(size=(STATES, STATES))
        a *= 0.85 / np.abs(np.linalg.eigvals(a)).max()
    else:  # an eigenbasis that is a bad one
        basis = np.linalg.qr(rng.normal(size=(STATES, STATES)))[0]
        a = basis @ (np.diag(np.linspace(0.4, 0.7, STATES)) + 0.04 * np.eye(STATES, k=1)) @ basis.T
    return StateSpace(a[None], b[None], c[None], d[None])


def compiled(kind: str, options: str, devices: dict[str, Any]) -> tuple[Any, list[BankChoice]]:
    box = {"feedback": True, "rows": 16, "cols": 32, "per_core": 64}
    arch = changed(
        crossbar=box, devices={"decay_sigma": 0.0, "latency_scale": 0.0, **devices}, volatile={"time_constants": 64}
    )
    context = Context(BACKEND.machine(arch, ideal=False))
    passes = f"diagonalize{{max_condition=1e9,tolerance=1e-3{options}}},halve-conjugates,tile,map-weights,schedule"
    graph = PassManager(passes).run(graph_of(system_of(kind), last=False), context)
    return BACKEND.lower(graph, arch, ideal=False), context.banks


def measured(program: Any) -> float:
    u = {"u": np.random.default_rng(2).normal(size=(16, 200, INPUTS))}
    real, ideal = (BACKEND.simulate(program, u, RunSettings(noise=noise)).outputs["y"] for noise in (None, "ideal"))
    return float(np.sqrt(np.mean((real - ideal) ** 2) / np.mean(ideal**2)))


@pytest.mark.parametrize(
    "devices", [{"product_bits": 6.0, "converters": False}, {"product_bits": 4.6, "converters": True}]
)
@pytest.mark.parametrize(
    ("kind", "options", "bank"),
    [
        ("real", "", "volatile"),
        ("complex", "", "volatile"),
        ("bad", "", "feedback"),
        ("bad", ",feedback=never", "volatile"),
    ],
)
def test_the_error_is_what_is_measured(kind: str, options: str, bank: str, devices: dict[str, Any]) -> None:
    program, banks = compiled(kind, options, {"levels": False, **devices})
    (row,) = [choice for choice in banks if choice.chosen]
    assert row.bank == bank
    assert measured(program) == pytest.approx(row.whole_error, rel=0.15)
    assert row.whole_error >= row.error


def test_the_energy_is_what_is_charged() -> None:
    for kind, options in (("real", ""), ("complex", ",feedback=never")):
        program, banks = compiled(kind, options, {"product_bits": 6.0})
        (row,) = [choice for choice in banks if choice.chosen]
        u = {"u": np.ones((1, 10, INPUTS))}
        stats = BACKEND.simulate(program, u, RunSettings()).stats
        arch = BACKEND.load_arch(program.arch)
        items = {layer.name: layer for layer in stats.layers}
        control = {"y.drive": 0, "y.x": 0, "y": 0}
        for section in program.sections:
            for code in section.code:
                if code.loc is not None and code.mnemonic != "program" and program.locs[code.loc].layer in control:
                    control[program.locs[code.loc].layer] += 1
        spent = sum(items[name].energy_joules for name in control if name in items) / 10
        fetched = sum(control.values()) * arch.energy.control * 1e-12
        assert row.whole_joules == pytest.approx(spent - fetched, rel=0.02)
        assert row.joules is not None and row.whole_joules is not None and row.joules < row.whole_joules


def test_a_basis_that_is_a_bad_one_shows_in_b_and_c() -> None:
    """States alone look the better in the eigenbasis; with B and C, whose large numbers cancel, they are not."""
    devices = {"product_bits": 6.0, "levels": False, "converters": False}
    _, dense = compiled("bad", "", devices)
    rows = {choice.bank: choice for choice in dense}
    assert rows["volatile"].error < rows["feedback"].error and rows["feedback"].chosen
    assert rows["volatile"].whole_error > 2 * rows["feedback"].whole_error
    _, own = compiled("bad", ",feedback=never", devices)
    (row,) = [choice for choice in own if choice.chosen]
    assert rows["volatile"].whole_error == pytest.approx(row.whole_error, rel=0.01)
    assert rows["volatile"].whole_joules == pytest.approx(row.whole_joules, rel=0.01)
