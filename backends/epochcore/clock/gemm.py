"""Compute cycles of matrix products on an R x C systolic array, as SCALE-Sim 3.0 counts them.

M x K by K x N, inputs and weights at hand whenever they are needed. Either dataflow works through folds, one after
the other, and the count ends with the number of the last cycle, the first being 0 (hence the - 1).

* Weight stationary: an R x C tile of the weights is shifted in (R cycles), then M rows of the input pass, skewed by row
  and column: 2 R + M + C - 2 cycles a fold, ceil(K / R) ceil(N / C) folds.
* Output stationary: an element sums up one result while K inputs come from the left and K weights from above:
  K + R + C - 2 cycles a fold, ceil(M / R) ceil(N / C) folds. Shifting the results out is not counted.

Source: Samajdar et al., "A systematic methodology for characterizing scalability of DNN accelerators using SCALE-Sim",
ISPASS 2020, for the dataflows; the exact counts are those of SCALE-Sim 3.0 (`benchmarks/scalesim.py` compares).
"""

from __future__ import annotations

from collections.abc import Callable


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def weight_stationary(m: int, k: int, n: int, rows: int, cols: int) -> int:
    """Cycles with the weights held in the elements and loaded before each fold."""
    return ceil_div(k, rows) * ceil_div(n, cols) * weight_fold(m, rows, cols) - 1


def output_stationary(m: int, k: int, n: int, rows: int, cols: int) -> int:
    """Cycles with the results held in the elements."""
    return ceil_div(m, rows) * ceil_div(n, cols) * output_fold(k, rows, cols) - 1


def weight_fold(m: int, rows: int, cols: int) -> int:
    """Cycles of one fold: the weights' way in, then every row of the input and the skew of the array."""
    return rows + weight_pass(m, rows, cols)


def weight_pass(m: int, rows: int, cols: int) -> int:
    """Cycles from the first input to the last result where the weights are in place."""
    return m + rows + cols - 2


def output_fold(k: int, rows: int, cols: int) -> int:
    """Cycles from the first operand to the last product of one fold."""
    return k + rows + cols - 2


CYCLES: dict[str, Callable[[int, int, int, int, int], int]] = {
    "weight_stationary": weight_stationary,
    "output_stationary": output_stationary,
}
