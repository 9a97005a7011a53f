"""Conflicts in the scratchpad: words that lie in one bank wait for each other.

Word n lies in bank n modulo `memory.banks`; a bank gives, and takes, `memory.bank_ports` words a cycle for each operand
of an instruction (of a complex one of a pass, for each half). What is in one run has as many in every bank, so that
only what jumps can conflict. All of this is ours:

* Passes of several segments or samples take the words of as many runs at every step, which may all begin in one bank;
  they reserve the cycles for that (`clock.array.through_ports`), whatever the addresses are, to keep an even pace.
* `copy` and `gather` go from places to places: words of one bank wait for each other (`beats`).
* All other instructions of the vector unit take the rows of an operand as they lie, as many words in a cycle as it is
  wide, into a buffer in front of the lanes, where they are put in the order in which these need them (other axes,
  repeated words, samples in turn); transfers, parameters and states on their way are runs of words, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Arch

Array = NDArray[Any]


def beats(operands: Sequence[tuple[Array, int]], steps: int, arch: Arch) -> int:
    """Cycles in which the vector unit takes the words of `steps` rows: of each operand those at some places of a row,
    and the words from a row to the next.

    In a cycle it takes as many whole rows as its width allows, or a part of one. It waits until the banks have given
    all of them; a word that several ask for is read once.
    """
    words, width = len(operands[0][0]), arch.vector.width
    at_once, parts = max(1, width // words), range(width, words, width)
    full, rest = divmod(steps, at_once)
    return sum(
        times
        * sum(
            1 + max(late) for late in zip(*(_late(p, pitch, rows, parts, arch) for p, pitch in operands), strict=True)
        )
        for rows, times in ((at_once, full), (rest, 1))
        if rows and times
    )


def _late(places: Array, pitch: int, rows: int, parts: range, arch: Arch) -> list[int]:
    """What the words of each cycle wait for their banks, where it takes so many rows or each of the parts of one."""
    banks, ports = arch.memory.banks, arch.memory.bank_ports
    if not banks:
        return [0] * (len(parts) + 1)
    wanted = (np.arange(rows)[:, None] * pitch + places).ravel()
    return [(int(np.bincount(_distinct(group) % banks).max()) - 1) // ports for group in np.array_split(wanted, parts)]


def _distinct(values: Array) -> Array:
    """Each value once; `numpy.unique` spends longer on loading masked arrays than a program on being timed."""
    values = np.sort(values)
    return np.asarray(values[np.concatenate([[True], values[1:] != values[:-1]])])
