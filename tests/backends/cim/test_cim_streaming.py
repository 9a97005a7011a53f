"""What runs at once does not matter: blocks of time bound the memory, slices of the batch change nothing."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from backends.cim import backend
from backends.cim.backend import BACKEND
from backends.cim.simulate import kernels
from backends.cim.simulate.noise import SAMPLES
from benchmarks.events import EVERYTHING, TOKENS, program
from isa import Program
from ssmc.target import RunSettings


@pytest.fixture(scope="module")
def code() -> Program:
    return program(EVERYTHING, layers=2)


def inputs(sequences: int, events: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    shape = (sequences, events, 1)
    return {"token": rng.integers(0, TOKENS, size=shape).astype(float), "dt": rng.exponential(size=shape)}


def test_memory_does_not_grow_with_the_events(code: Program) -> None:
    """Beside the inputs, which the caller holds: four times the events take as much."""
    peaks = []
    for events in (256, 1024):
        given = inputs(64, events)
        tracemalloc.start()
        BACKEND.simulate(code, given, RunSettings())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.02 * peaks[0], peaks


def test_slices_of_the_batch_do_not_matter(code: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs(21, 9)
    whole = BACKEND.simulate(code, given, RunSettings(seed=3, taps=True))
    monkeypatch.setattr(backend, "SAMPLES_AT_ONCE", SAMPLES)
    sliced = BACKEND.simulate(code, given, RunSettings(seed=3, taps=True))
    assert np.array_equal(whole.outputs["logits"], sliced.outputs["logits"])
    assert whole.stats.notes == sliced.stats.notes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("given", [0.0, 1.5])
def test_converters_round_as_numpy_does(dtype: type, given: float) -> None:
    rng, largest = np.random.default_rng(2), dtype(127)
    x = rng.normal(size=(7, 33)).astype(dtype)
    x[2], x[4, 5] = 0.0, np.nan
    reach = np.where(x == 0, dtype(1), np.abs(x)).max(1, keepdims=True) if not given else np.full((7, 1), given, dtype)
    word = np.rint(x / reach * largest)
    clipped = int(np.count_nonzero(np.abs(word) > largest))
    found, ends = x.copy(), np.empty(7, dtype)
    bits, mask = kernels.bits_of(found), kernels.magnitude_bits(found)
    assert kernels.to_words(found, bits, mask, dtype(given), largest, ends, kernels.bits_of(ends)) == clipped
    assert np.array_equal(found, np.clip(word, -largest, largest), equal_nan=True)
    assert np.array_equal(ends, reach[:, 0], equal_nan=True)
    to_word, offset = rng.uniform(20, 90, size=33).astype(dtype), rng.normal(size=33).astype(dtype)
    for shift in (None, offset):
        word = np.rint(x * to_word if shift is None else x * to_word + shift)
        codes = x.copy()
        assert kernels.to_codes(codes, to_word, shift, largest) == np.count_nonzero(np.abs(word) > largest) > 0
        assert np.array_equal(codes, np.clip(word, -largest, largest), equal_nan=True)
