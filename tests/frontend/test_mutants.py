"""Whatever still compiles after a change to a valid model gives what onnxruntime gives, at any size and scale."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssmc import arrays
from ssmc.diagnostics import UserError
from ssmc.driver import compile_model
from ssmc.frontend import Model, load_model, reference
from ssmc.ir import interpret
from tests.frontend.mutants import mutant
from tests.frontend.net import save
from tests.frontend.test_damaged_models import VALID

pytestmark = pytest.mark.invalid_files
SIZES = [(1, 1, 1.0), (2, 7, 1.0), (3, 16, 20.0)]  # batch, steps and scale of the data
EACH = 6  # mutants of each model
NEAR = 1e-4  # what two float32 results of mutants, which may be ill-conditioned, are apart


def given(model: Model, batch: int, steps: int, scale: float, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    sizes = {"batch": batch, "time": steps}
    ports = [port for port in model.interface.inputs if port.role != "state"]
    shapes = {port.name: [sizes.get(str(size), size) for size in port.expected()] for port in ports}
    return {name: (scale * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(VALID))
def test_mutants_mean_what_onnxruntime_says(name: str, tmp_path: Path) -> None:
    lifted = 0
    for seed in range(EACH):
        try:
            model = load_model(save(mutant(VALID[name], seed), tmp_path))
        except UserError:
            continue
        lifted += 1
        program = compile_model(model, "epochcore" if seed % 2 else "cim", ideal=True)
        for batch, steps, scale in SIZES:
            data = given(model, batch, steps, scale, seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # numbers that overflow, as the reference's do
                try:
                    expected = reference(model, data)
                except UserError:
                    continue  # the file itself does not run at this size
                found = program.run(data).outputs
                exact = arrays.unfit(interpret(model.graph, arrays.fit(data, model.interface)), model.interface)
            for output, array in expected.items():
                size = np.abs(array).max(initial=1e-30)
                if np.isfinite(array).all() and np.isfinite(exact[output]).all():
                    theirs = np.abs(array - exact[output]).max(initial=0.0) / size
                    assert theirs < 1e-2 and np.abs(found[output] - array).max(initial=0.0) <= (NEAR + theirs) * size
    assert lifted
