"""Conflicts in the scratchpad: words that lie in one bank wait for each other.

Word n lies in bank n modulo `banks`; a bank gives, and takes, `ports` words a cycle for each operand
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
from functools import lru_cache

import numpy as np

from backends.epochcore.arch import Arch
from ssmc.ir.op import Array

Jumps = tuple[bytes, int]


def jumping(places: Array, pitch: int) -> Jumps:
    """An operand of words at some places of a row, and the words from a row to the next, for `beats`. Where the first
    of them lies does not matter."""
    return (places - places.min()).astype(np.int64).tobytes(), pitch


def beats(operands: Sequence[Jumps], steps: int, arch: Arch) -> int:
    """Cycles in which the vector unit takes the words of `steps` rows: of each operand those that are `jumping`.

    In a cycle it takes as many whole rows as its width allows, or a part of one. It waits until the banks have given
    all of them; a word that several ask for is read once.
    """
    words, width, banks, ports = len(operands[0][0]) // 8, arch.vector.width, arch.memory.banks, arch.memory.bank_ports
    at_once = max(1, width // words)
    full, rest = divmod(steps, at_once)
    found = 0
    for rows, times in ((at_once, full), (rest, 1)):
        if rows and times:
            late = (_late(places, pitch if rows > 1 else 0, rows, width, banks, ports) for places, pitch in operands)
            found += times * sum(1 + max(waiting) for waiting in zip(*late, strict=True))
    return found


@lru_cache(maxsize=1024)
def _late(places: bytes, pitch: int, rows: int, width: int, banks: int, ports: int) -> tuple[int, ...]:
    """What the words of each cycle wait for their banks, where it takes so many rows or each of the parts of one."""
    wanted = (np.arange(rows)[:, None] * pitch + np.frombuffer(places, np.int64)).ravel()
    # rows that are taken at once are no more than the width
    part = np.arange(len(wanted)) // width if rows == 1 else np.zeros(len(wanted), np.int64)
    if not banks:
        return (0,) * (int(part[-1]) + 1)
    banks = min(banks, int(wanted.max()) + 1)  # of more there would be none for a word to be in
    words = np.sort(part * (int(wanted.max()) + 1) + wanted)
    words = words[np.concatenate([[True], words[1:] != words[:-1]])]
    part, place = np.divmod(words, int(wanted.max()) + 1)
    asked = np.bincount(part * banks + place % banks, minlength=(int(part[-1]) + 1) * banks)
    return tuple(((asked.reshape(-1, banks).max(1) - 1) // ports).tolist())
