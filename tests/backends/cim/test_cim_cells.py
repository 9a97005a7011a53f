"""What lies in arrays and registers that are written block by block, against arrays written word by word."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backends.cim.simulate.cells import Cells, Part
from backends.cim.simulate.memory import NotWritten, Registers

SHAPE = 6, 7


@st.composite
def regions(draw: st.DrawFn) -> tuple[slice, slice]:
    corners = [sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in SHAPE]
    return slice(*corners[0]), slice(*corners[1])


@given(st.lists(regions(), max_size=30), regions(), st.booleans())
def test_the_last_write_counts(written: list[tuple[slice, slice]], asked: tuple[slice, slice], scaled: bool) -> None:
    cells, weights, scales = Cells(SHAPE), np.full(SHAPE, np.nan), np.full(SHAPE, np.nan)
    for n, region in enumerate(written):
        assert cells.holds(region) == bool((~np.isnan(weights[region])).any())
        values = np.random.default_rng(n).normal(size=weights[region].shape)
        unit, scale = (np.arange(1.0, values.shape[1] + 1) + n + more for more in (0, 0.5))
        cells.write(Part(region[0].start, region[1].start, values, unit if scaled else None, scale))
        weights[region], scales[region] = values * unit if scaled else values, scale
    np.testing.assert_array_equal(cells.weights(asked), weights[asked])
    np.testing.assert_array_equal(cells.scales(asked), scales[asked])
    seen = {own for own in cells.owner().ravel().tolist() if own}  # nothing is kept that no weight is of
    assert seen == set(cells.parts) == set(cells.left)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 8)), max_size=30), st.integers(0, 28), st.integers(1, 8))
def test_registers_hold_what_was_written_last(written: list[tuple[int, int]], at: int, words: int) -> None:
    registers, plain = Registers(latched=True), np.full(40, np.nan)
    for n, (start, count) in enumerate(written):
        values = np.arange(count) + 100.0 * (n + 1)
        registers.write(start, values[None, None], None)
        plain[start : start + count] = values
    missing = np.flatnonzero(np.isnan(plain[at : at + words]))
    try:
        found = registers.read(at, words, None)
    except NotWritten as error:
        assert missing.size and str(error) == f"v[{at + missing[0]}] has not been written"
    else:
        assert not missing.size
        np.testing.assert_array_equal(found[0, 0], plain[at : at + words])
