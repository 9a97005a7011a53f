"""One step of Mamba-2, its states and the last inputs of its filters as inputs and outputs, on both targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.models import ssd
from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference

WIDTH, LAYERS, WORDS = 32, 2, 16
MIXED = ssd.EXPAND * WIDTH + 2 * ssd.STATES


STATES = ssd.HEAD * ssd.STATES + MIXED * (ssd.TAPS - 1)  # of a layer, in words: one head, one filter
SCARCE = 52000  # words: a step of a layer takes half of them, the states of six layers would take more than all


@pytest.mark.parametrize(
    "target,arch,layers",
    [
        ("epochcore", None, LAYERS),
        ("epochcore", f"epochcore-128{{memory.scratchpad_words={SCARCE}}}", 6),
        ("cim", "cim-large{vector.words=262144}", LAYERS),
    ],
)
def test_a_step_of_mamba_2(target: str, arch: str | None, layers: int, tmp_path: Path) -> None:
    assert 6 * STATES > SCARCE
    path, rng = tmp_path / "model.onnx", np.random.default_rng(5)
    ssd.write_step(path, width=WIDTH, layers=layers, vocabulary=WORDS)
    model = load_model(path)
    assert model.states == {f"{kind}{layer}": f"{kind}{layer}_out" for layer in range(layers) for kind in "hc"}
    given = {"token": rng.integers(0, WORDS, (3, 1))}
    for layer in range(layers):
        given[f"h{layer}"] = rng.standard_normal((3, 1, ssd.HEAD, ssd.STATES)).astype(np.float32)
        given[f"c{layer}"] = rng.standard_normal((3, MIXED, ssd.TAPS - 1)).astype(np.float32)
    expected = reference(model, given)
    found = compile_model(model, target, arch=arch, ideal=True).run(given).outputs
    for name, array in expected.items():
        assert np.abs(found[name].reshape(array.shape) - array).max() <= 1e-5 * np.abs(array).max()
