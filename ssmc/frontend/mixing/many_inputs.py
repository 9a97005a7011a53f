"""Kernels of several inputs as one system, identified from all their taps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ssmc.frontend.mixing.fitting import Fit
from ssmc.ir.op import Array
from ssmc.statespace import identify, kernel
from ssmc.statespace.joint import JointFits

LEAST = 8  # taps that a system is looked for in
MOST = 128  # states of such a system (ours)
LARGEST = 1 << 16  # taps of all inputs and outputs that one is looked for in (ours)
WORTH = 2  # ours: how many times more numbers the taps must be than the system


def together(taps: Array, tolerance: float) -> Fit | None:
    """One system for the kernels (outputs, inputs, L) of outputs that have the same inputs; None where there is none
    that is worth it."""
    high, wide, length = taps.shape
    most = min(MOST, taps.size // (WORTH * (high + wide + 1)))  # states
    if length < LEAST or most < 1 or taps.size > LARGEST:
        return None
    size = np.abs(taps).max(axis=(1, 2))
    size = np.where(size > 0, size, 1.0)
    scaled = taps / size[:, None, None]
    if JointFits(scaled, tolerance).needed > most:  # no such system, which is told sooner than the nearest is found
        return None
    found = identify(scaled, tolerance, most)
    if not found.ok:
        return None
    system = found.part(np.zeros(1, int))
    system = replace(system, C=system.C * size[:, None], D=system.D * size[:, None])
    missed, whole = kernel(system, length)[0] - taps, np.linalg.norm(taps, axis=(1, 2))
    return Fit(
        system,
        float((np.abs(missed).max(axis=(1, 2)) / size).max()),
        float((np.linalg.norm(missed, axis=(1, 2)) / np.where(whole > 0, whole, 1.0)).max()),
        float(np.abs(missed).sum(axis=(1, 2)).max()),
    )
