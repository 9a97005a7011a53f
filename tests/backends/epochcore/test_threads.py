"""What a run shares out to threads comes out the same, bit by bit, whatever their number and the block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backends.epochcore import BACKEND
from backends.epochcore.arch import load_arch
from backends.epochcore.simulate import execution, machine
from backends.epochcore.simulate import run as simulate
from benchmarks.models.lra import inputs, model, whole
from isa import Program
from ssmc.passes import Context, PassManager
from ssmc.target import RunSettings

ARCH = load_arch("epochcore-128")
STEPS = 300


def program_of(*, ideal: bool) -> tuple[Program, dict[str, np.ndarray]]:
    """Two layers of 40 channels, three blocks of columns, in both directions."""
    m = replace(model("S4 Path-X"), layers=2, channels=40, order=6)
    graph = whole(m)
    context = Context(machine=BACKEND.machine(ARCH, ideal=ideal), ideal=ideal)
    tiled = PassManager(f"{BACKEND.pipeline(ARCH, ideal=ideal)}{{steps={STEPS}}}", validate=False).run(graph, context)
    return BACKEND.lower(tiled, ARCH, ideal=ideal), inputs(m, graph, 1, STEPS)


@pytest.mark.parametrize("ideal", [True, False])
def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch, ideal: bool) -> None:
    program, x = program_of(ideal=ideal)
    alone = BACKEND.simulate(program, x, RunSettings()).outputs["y"]
    shared = list[object]()
    quietly = machine.quietly

    def counted(body: Callable[[Any], None], part: Any) -> None:
        shared.append(part)
        quietly(body, part)

    for module in (machine, execution):
        monkeypatch.setattr(module, "quietly", counted)
    monkeypatch.setattr(machine, "WORK_PER_THREAD", 1)
    monkeypatch.setattr(execution, "ROWS_WORK", 1)
    for cores, block in ((2, None), (3, 70), (5, 7)):
        monkeypatch.setattr(simulate, "cores", lambda cores=cores: cores)
        np.testing.assert_array_equal(BACKEND.simulate(program, x, RunSettings(block=block)).outputs["y"], alone)
    # integers are computed by one thread; columns of states are shared out, and steps of what does not depend on others
    assert {isinstance(part, range) for part in shared} == ({True, False} if ideal else set())
