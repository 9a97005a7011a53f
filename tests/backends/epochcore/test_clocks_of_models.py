"""Both clocks on models as they are compiled from their files, on small arrays: one of every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samples
from backends.epochcore.arch import arch_text, load_arch
from ssmc.driver import compile_model
from tests.backends.epochcore.test_clocks_of_compiled import same
from tests.backends.epochcore.test_costs import with_changes
from tests.frontend.net import save
from tests.frontend.test_unseen import conv_s5

PLAIN = {"rows": 8, "cols": 16}
DEEP = {
    **PLAIN,
    "cols": 12,
    "complex": "native",
    "states_per_element": 2,
    "mac_depth": 3,
    "column_words": 2,
    "handover_steps": 3,
}
NO_STATES = {**PLAIN, "modes": ("mac", "mac.os"), "handover_steps": 4}
SLOW = load_arch("epochcore-small").model_copy(update={"clock_hz": 1e6})
ROOM = {"scratchpad_words": 1 << 16, "parameter_words": 1 << 20}
DRAM = {"bytes_per_second": 64e6, "latency_cycles": 3}


def check(path: Path, x: dict[str, np.ndarray], array: dict[str, Any], folder: Path) -> None:
    parts = (("array", array), ("memory", ROOM), ("dram", DRAM))
    arch = with_changes(SLOW, **{f"{part}__{name}": value for part, its in parts for name, value in its.items()})
    (folder / "arch.yaml").write_text(arch_text(arch), encoding="utf-8")
    made = compile_model(path, "epochcore", arch=str(folder / "arch.yaml"), ideal=True, validate=False)
    others = {p.name: np.zeros((1, *p.shape)) for p in made.program.inputs if p.name not in x}  # states of one step
    same(made.program, arch, {**x, **others}, digits=1e-6)  # float32 here, float64 there


@pytest.mark.parametrize(
    ("name", "steps", "array"),
    [
        ("realdecay-vowels", 5, PLAIN),
        ("realdecay-vowels", 5, NO_STATES),
        ("events-watch", 3, DEEP),
        ("s4d-digits", 4, DEEP),
    ],
)
def test_trained_models(name: str, steps: int, array: dict[str, Any], tmp_path: Path) -> None:
    """Real decays; events, with tables, selective systems and elapsed times; S4D."""
    sample = samples.load(name)
    x = {key: values[:1, :steps].astype(float) for key, values in sample.test.items()}
    check(sample.model_path, x, array, tmp_path)


@pytest.mark.parametrize("array", [PLAIN, NO_STATES])
def test_images_that_are_streams(array: dict[str, Any], tmp_path: Path) -> None:
    """ConvS5."""
    net, y = conv_s5()
    path = save(net.model([(y, ["n", "t", 2, 4, 4])]), tmp_path)
    x = np.random.default_rng(0).standard_normal((2, 4, 2, 4, 4))
    check(path, {port.name: x for port in net.inputs}, array, tmp_path)
