"""Calibrated converters lose less than those that know nothing, on the packaged samples."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import samples
from ssmc.driver import compile_model, default_pipeline, load_model
from ssmc.passes import show_pipeline

SHOWN = 96  # sequences


@cache
def missed(name: str, calibrated: bool) -> tuple[float, float]:
    """Rms error of the scores through 8-bit converters, relative to those of the same weights on perfect devices; and
    the accuracy."""
    sample = samples.load(name)
    model = load_model(sample.model_path)
    pipeline = show_pipeline(default_pipeline("cim"))
    if not calibrated:
        pipeline = pipeline.replace("calibrate,", "")
    program = compile_model(model, "cim", calibration=sample.calibration, passes=pipeline, validate=False)
    inputs = {key: array[:SHOWN] for key, array in sample.test.items()}
    exact, real = (program.run(inputs, noise=noise).outputs for noise in ("ideal", "quantized"))
    want, got = (np.asarray(outputs[sample.metadata["output"]], np.float64) for outputs in (exact, real))
    if sample.metadata["readout"] == "last":
        want, got = want[:, -1], got[:, -1]
    return float(np.sqrt(np.square(got - want).mean() / np.square(want).mean())), sample.accuracy(real)


@pytest.mark.parametrize("name", samples.names())
def test_calibrated_ranges_lose_less(name: str) -> None:
    error, accuracy = missed(name, True)
    before, _ = missed(name, False)
    assert error < before
    assert accuracy > 0.9
