"""DACs and ADCs as functions on words: their ranges, and the bits of a word."""

from __future__ import annotations

import numpy as np

from ssmc.ir.op import Array


def largest_word(bits: int) -> int:
    """The end of a converter with a sign bit: words lie in -largest..largest."""
    return int(2 ** (bits - 1) - 1)


def input_range(policy: str, calibrated: float, x: Array) -> Array:
    """(n or 1, 1) largest input that the DAC takes: calibrated for the array, else each vector's own largest."""
    if policy == "array" and calibrated:
        return np.array([[calibrated]], x.dtype)
    largest = np.abs(x).max(1, keepdims=True)
    return np.asarray(np.where(largest == 0, x.dtype.type(1), largest))


def bit_planes(words: Array, bits: int) -> list[Array]:
    """The bits of a magnitude below the sign, lowest first, each with the sign of its word: -1, 0 or 1.

    sum_p 2^p plane_p is the word.
    """
    magnitude, sign = np.abs(words).astype(np.int32), np.sign(words)
    return [sign * ((magnitude >> plane) & 1).astype(words.dtype) for plane in range(bits - 1)]


def output_range(policy: str, columns: Array, norms: float, bits: int, granule: float) -> float:
    """Largest sum that an ADC takes for inputs in -1..1 and columns (rows, columns) of relative conductance.

    `maximum`, and `calibrated` where nothing was: the largest sum there can be. `norm`: `norms` times the column with
    the largest 2-norm, no wider than the maximum. `granular`: as CrossSim's policy of this name, one step is the
    smallest difference that there is between two sums (`granule`, one step of an input at one level of a device) so
    that nothing is lost; where the ADC has too few bits for the maximum, the step doubles until it has enough (ours:
    CrossSim clips).
    """
    most = float(np.abs(columns).sum(0).max(initial=0.0))
    if policy == "norm":
        return min(most, norms * float(np.sqrt((columns**2).sum(0).max(initial=0.0))))
    if policy == "granular" and most > 0:
        reach = granule * largest_word(bits)
        return float(reach * 2.0 ** max(0.0, np.ceil(np.log2(most / reach * (1 - 1e-12)))))
    return most
