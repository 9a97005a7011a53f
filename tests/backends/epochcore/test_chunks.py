"""Into how many chunks sequences are cut: by cost, so that room in the scratchpad does no harm."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, load_arch
from backends.epochcore.clock.timing import measure
from backends.epochcore.lower.objective import NEAR
from benchmarks.models.lra import Model, whole
from isa import Program
from ssmc.ir import Graph, interpret
from ssmc.passes import Context, PassManager
from ssmc.target import RunSettings
from tests.backends.epochcore.test_costs import with_changes

SMALL = load_arch("epochcore-small")
STEPS = 200
SHAPES = {
    "both ways": {"liquid": False, "layers": 2, "channels": 64, "order": 16, "bidirectional": True},
    "one way": {"liquid": False, "layers": 2, "channels": 24, "order": 8, "bidirectional": False},
    "liquid": {"liquid": True, "layers": 1, "channels": 24, "order": 8, "bidirectional": False},
}


@cache
def tiled(name: str) -> Graph:
    shape: dict[str, Any] = SHAPES[name]
    model = Model(task="", length=STEPS, tokens=False, **shape)
    passes = PassManager(f"{BACKEND.pipeline(SMALL, ideal=True)}{{steps={STEPS}}}", validate=False)
    return passes.run(whole(model), Context(machine=BACKEND.machine(SMALL, ideal=True), ideal=True))


def compiled(name: str, words: int) -> tuple[Program, Arch]:
    arch = with_changes(SMALL, memory__scratchpad_words=words)
    return BACKEND.lower(tiled(name), arch, ideal=True), arch


@pytest.mark.parametrize("name", SHAPES)
def test_a_larger_scratchpad_is_no_slower(name: str) -> None:
    """But for what is given up where that saves more energy."""
    found = []
    for words in (16384, 32768, 65536):
        program, arch = compiled(name, words)
        found.append(measure(program, arch, 1, STEPS)[0].cycles or 0)
    assert all(cycles <= (1 + NEAR) * min(found[:number]) for number, cycles in enumerate(found) if number)


def test_chunks_are_shorter_where_that_is_faster() -> None:
    program, arch = compiled("both ways", 65536)
    schedules: Any = program.meta["schedules"]
    told = {line["schedule"]: line for line in schedules if line["choice"] == "chunks"}
    (chosen,) = (line for line in told.values() if line["chosen"])
    limits = [int(ins["limit"]) for ins in program.sections[0].code if ins.mnemonic == "chunks"]
    assert chosen["cycles"] == measure(program, arch, 1, STEPS)[0].cycles
    assert chosen["cycles"] < 0.95 * told["as few as the scratchpad has room for"]["cycles"]
    assert max(limits) <= STEPS // 2
    x = {"x": np.random.default_rng(0).standard_normal((1, 130, 1))}
    arrays = {program.inputs[0].name: x["x"]}
    actual = BACKEND.simulate(program, arrays, RunSettings()).outputs
    for output, expected in interpret(tiled("both ways"), arrays).items():
        np.testing.assert_allclose(actual[output], expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
