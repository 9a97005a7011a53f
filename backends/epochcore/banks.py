"""Conflicts in the scratchpad: words that lie in one bank wait for each other.

Word n lies in bank n modulo `memory.banks`; a bank gives, and takes, `memory.bank_ports` words a cycle for each operand
of an instruction. An operand whose words follow each other has as many in every bank, so that only what jumps can
conflict: rows of a few words far apart, and words in another order. All of this is ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Arch

Array = NDArray[Any]


def waits(places: Array, pitch: int, steps: int, arch: Arch) -> int:
    """Cycles that the vector unit waits for the words at `places` of each of `steps` rows, `pitch` words apart.

    In a cycle it takes as many whole rows as its width allows, or a part of one. A word that several ask for is read
    once.
    """
    width, banks, ports = arch.vector.width, arch.memory.banks, arch.memory.bank_ports
    if not banks or not steps or not len(places):
        return 0
    rows = max(1, width // len(places))
    at_once = (np.arange(min(rows, steps))[:, None] * pitch + places).ravel()
    groups = [at_once] if len(places) <= width else np.array_split(places, range(width, len(places), width))
    late = sum((int(np.bincount(_distinct(group) % banks).max()) - 1) // ports for group in groups)
    return -(-steps // rows) * late


def _distinct(values: Array) -> Array:
    """Each value once; `numpy.unique` spends longer on loading masked arrays than a program on being timed."""
    values = np.sort(values)
    return np.asarray(values[np.concatenate([[True], values[1:] != values[:-1]])])
