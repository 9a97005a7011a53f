"""Where states lie in the array, put there one by one as the manual's `preload` says."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from backends.epochcore.arch import Arch
from backends.epochcore.program.stretches import copies
from isa import Instruction

Place = tuple[int, int, int]


@dataclass(frozen=True)
class Places:
    """`rows` and `cols` of cells: elements, or gangs of them, `gang` elements high and wide; `stack` states in the
    fullest, `deep` of them of one channel; `groups` of `high` rows of cells below each other. `at` tells the cell of a
    state and its number there, `of` the state."""

    rows: int
    cols: int
    gang: int
    stack: int
    deep: int
    groups: int
    high: int
    at: dict[tuple[int, int], Place]
    of: dict[Place, tuple[int, int]]

    @property
    def used(self) -> int:
        """Rows of cells in use."""
        return self.groups * self.high

    def in_the_fullest_row(self) -> int:
        return max(Counter(row for row, _, _ in self.of).values())


def gang_of(is_complex: bool, arch: Arch) -> int:
    """Elements along each axis that hold a state."""
    return 2 if is_complex and arch.array.complex == "ganged" else 1


def places_of(held: Instruction, arch: Arch, samples: int) -> Places:
    """For what `held` preloads, with its segments and so many samples beside each other."""
    gang, groups, states = gang_of(bool(held["complex"]), arch), int(held["groups"]), int(held["rows"])
    rows, cols = arch.array.rows // gang, arch.array.cols // gang
    deep = high = 1
    while deep * (rows // groups) < states:
        deep += 1
    while high * deep < states:
        high += 1
    at, lanes = dict[tuple[int, int], Place](), Counter[tuple[int, int]]()
    for col in range(int(held["cols"]) * copies(held) * samples):
        group, across = col // cols % groups, col % cols
        for row in range(states):
            at[row, col] = group * high + row // deep, across, lanes[group, across] * deep + row % deep
        lanes[group, across] += 1
    of = {place: state for state, place in at.items()}
    return Places(rows, cols, gang, deep * max(lanes.values()), deep, groups, high, at, of)
