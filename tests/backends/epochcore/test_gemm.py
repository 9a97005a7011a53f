"""Cycles of matrix products against a walk over every element of every fold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore.clock.gemm import CYCLES, output_stationary, weight_stationary
from benchmarks.scalesim import SHAPES, closed_forms

# What SCALE-Sim 3.0.0 reported for (M, K, N, rows, columns), weight and output stationary.
RECORDED = [
    ((7, 5, 6, 4, 4), 67, 43),
    ((33, 9, 17, 8, 4), 509, 474),
    ((129, 65, 33, 32, 16), 1862, 1664),
    ((256, 128, 256, 128, 128), 1275, 1527),
]


def last_cycle_with_weights_in_place(m: int, k: int, n: int, rows: int, cols: int) -> int:
    """Fold by fold, as hardware would: the element (r, c) meets row t of the input at cycle t + r + c."""
    clock = 0
    for _ in range(0, k, rows):
        for _ in range(0, n, cols):
            shifted_in = clock + rows
            corner = max(shifted_in + t + r + c for t in (0, m - 1) for r in (0, rows - 1) for c in (0, cols - 1))
            clock = corner + 1
    return clock - 1


def last_cycle_with_results_in_place(m: int, k: int, n: int, rows: int, cols: int) -> int:
    """The element (r, c) meets term t of its sum at cycle t + r + c."""
    clock = 0
    for _ in range(0, m, rows):
        for _ in range(0, n, cols):
            clock = 1 + max(clock + t + r + c for t in (0, k - 1) for r in (0, rows - 1) for c in (0, cols - 1))
    return clock - 1


WALKS: dict[str, Callable[[int, int, int, int, int], int]] = {
    "weight_stationary": last_cycle_with_weights_in_place,
    "output_stationary": last_cycle_with_results_in_place,
}


@settings(max_examples=200)
@given(*(st.integers(1, 300) for _ in range(3)), st.integers(1, 64), st.integers(1, 64))
def test_closed_forms_are_what_the_folds_take(m: int, k: int, n: int, rows: int, cols: int) -> None:
    for dataflow, cycles in CYCLES.items():
        assert cycles(m, k, n, rows, cols) == WALKS[dataflow](m, k, n, rows, cols)


@pytest.mark.parametrize(("shape", "weights", "results"), RECORDED)
def test_what_scale_sim_printed(shape: tuple[int, int, int, int, int], weights: int, results: int) -> None:
    assert (weight_stationary(*shape), output_stationary(*shape)) == (weights, results)


def test_the_comparison_covers_folds_in_every_direction() -> None:
    assert any(k > rows and n > cols and m > rows for m, k, n, rows, cols in SHAPES)
    assert all(set(closed_forms(shape)) == set(CYCLES) for shape in SHAPES)
