"""Which instructions meet: in the scratchpad, in the parameter memory, in the streams. Who waits for whom follows.

Instructions touch the same words again and again: what is alike in all that matters here is one `group`, and it is
groups that are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Arch
from backends.epochcore.program.columns import Columns
from backends.epochcore.program.meeting import Extents, meeting
from backends.epochcore.program.parameters import words_of
from backends.epochcore.program.touches import Loops, Touches, touches
from isa import Program

Ints = NDArray[np.int64]


class Lists(NamedTuple):
    """Lists of whole numbers, one behind the other: each is from where its number says to where the next one does."""

    at: Ints
    values: Ints

    def numbers(self, number: int) -> list[int]:
        found: list[int] = self.values[self.at[number] : self.at[number + 1]].tolist()
        return found

    @staticmethod
    def of(lists: Sequence[Sequence[int]]) -> Lists:
        at = np.cumsum([0, *map(len, lists)])
        return Lists(at.astype(np.int64), np.fromiter(chain.from_iterable(lists), np.int64))


@dataclass(frozen=True)
class Conflicts:
    """By instruction: where the loop ends that it is in, or 0; the groups that it `touches`. By group: its `members`,
    and the groups whose members its own wait for: block by block, for their results (`given`) or their reading
    (`taken`), or as a whole (`apart`)."""

    loop: list[int]
    touches: Lists
    members: Lists
    given: Lists
    taken: Lists
    apart: Lists

    @cached_property
    def results(self) -> list[list[int]]:
        """By instruction: others (or its own last run) whose results it waits for block by block, the last first."""
        return [self._partners(self.given, index)[::-1] for index in range(len(self.loop))]

    @cached_property
    def reads(self) -> list[list[int]]:
        """The same of their reading."""
        return [self._partners(self.taken, index)[::-1] for index in range(len(self.loop))]

    def whole(self, index: int) -> list[int]:
        """Those that an instruction waits for as a whole."""
        return self._partners(self.apart, index)

    def _partners(self, partners: Lists, index: int) -> list[int]:
        touched = self.touches.numbers(index)
        groups = {group for own in touched for group in partners.numbers(own)}
        return sorted({other for group in groups for other in self.members.numbers(group)})


def conflicts(program: Program, arch: Arch, steps: int, columns: Columns | None = None) -> Conflicts:
    """Who meets whom, where sequences have `steps` steps; `columns` are those of the program's code."""
    columns = Columns.of(program.sections[0].code) if columns is None else columns
    loops = Loops.of(program.sections[0], steps)
    found = touches(columns, loops, partial(_words, program, arch))
    group, first = _grouped(found)
    # an instruction may touch the words of a group in several ways
    _, pairs = np.unique(found.instruction * len(first) + group, return_index=True)
    pairs = np.sort(pairs)
    own, groups, count = found.instruction[pairs], group[pairs], len(columns.code)
    touched = Lists(np.searchsorted(own, np.arange(count + 1)).astype(np.int64), groups)
    members = _partners(groups, own, len(first))
    return Conflicts(loops.end.tolist(), touched, members, *_pairs(found.of(first)))


def _words(program: Program, arch: Arch, names: Sequence[str]) -> Ints:
    """Words of some constants in the parameter memory."""
    some = [program.data[name] for name in names]
    sizes = np.array([constant.size for constant in some]) * np.minimum([constant.itemsize for constant in some], 4)
    return np.asarray(words_of(sizes, arch.memory.word_bits))


def _grouped(found: Touches) -> tuple[Ints, Ints]:
    """The number of the group of all that is touched, in the order in which groups occur; where each does so first."""
    marks = found.loop * 2 + found.against
    keys = found.start, (found.words << 32) + found.pitch, (marks << 8) + (found.register << 1) + found.written
    order = np.lexsort(keys)
    new = np.zeros(len(order), np.bool_)
    new[:1] = True
    for key in keys:
        new[1:] |= key[order[1:]] != key[order[:-1]]
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(new) - 1
    first = order[new]  # of equal ones the order stays
    ranks = np.argsort(np.argsort(first))
    return ranks[number], np.sort(first)


def _pairs(groups: Touches) -> tuple[Lists, Lists, Lists]:
    """By group: those that it waits for block by block, for their results or their reading, and those as a whole."""
    from backends.epochcore.program.pairing import KINDS, waits  # it loads the compiler

    found = [(np.zeros(0, np.int64),) * 2]
    found += meeting(Extents(groups.start, groups.stop, groups.words, groups.pitch))
    a, b = (np.concatenate(sides) for sides in zip(*found, strict=True))
    at, lists = waits(a, b, groups.start, *groups[3:])
    count = len(groups.start)
    cut = [at[kind * count : (kind + 1) * count + 1] for kind in range(KINDS)]
    results, reads, apart = (Lists(of - of[0], lists[of[0] : of[-1]]) for of in cut)
    return results, reads, apart


def _partners(consumers: Ints, producers: Ints, count: int) -> Lists:
    """Producers by consumer."""
    # small numbers are sorted by their digits, in a fraction of the time
    order = np.argsort(consumers.astype(np.uint16) if count <= 1 << 16 else consumers, kind="stable")
    at = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(consumers, minlength=count), out=at[1:])
    return Lists(at, producers[order])
