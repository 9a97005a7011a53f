"""Calibrated converters lose less than those that know nothing, on the packaged samples."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import samples
from ssmc.diagnostics import UserError
from ssmc.driver import compile_model, default_pipeline, load_model
from ssmc.passes import show_pipeline
from ssmc.target import backend

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


def test_without_data_converters_take_safe_bounds() -> None:
    """An ADC that wants a calibrated range takes the largest sum there can be: nothing is clipped, little is lost."""
    sample = samples.load("s4d-digits")
    arch = "cim-large{crossbar.adc_range=calibrated,devices.product_bits=0}"
    program = compile_model(sample.model_path, "cim", arch=arch, validate=False)
    result = program.run({key: array[:SHOWN] for key, array in sample.test.items()})
    assert "outputs clipped by an ADC" not in result.stats.notes
    assert sample.accuracy(result.outputs) > 0.9


@pytest.mark.parametrize("change", ["crossbar.encoding=offset", "crossbar.slices=2", "crossbar.input=bit-serial"])
def test_ranges_are_calibrated_where_one_conversion_gives_a_product(change: str) -> None:
    with pytest.raises(UserError, match="takes single pairs"):
        backend("cim").load_arch(f"cim-large{{crossbar.adc_range=calibrated,{change}}}")
