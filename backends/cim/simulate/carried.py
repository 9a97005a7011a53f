"""Registers that a loop carries from step to step, and the parts of its body that must therefore go step by step.

A body runs in blocks of steps but for its parts: the instructions from the first that reads a carried word to the last
that writes it. Where that cannot be said (messages within a part, carried words in the body of an `every`) the whole
program goes one step at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from backends.cim.program.access import ACCESS, Ranges
from backends.cim.program.decode import Item, walk
from isa.cim_fields import LINES
from ssmc.ir.op import Array

MESSAGES = ("send", "recv", "collect", "emit", "keep", "fetch")


@dataclass(frozen=True)
class Part:
    """Instructions `first`..`last` of a loop's body that go step by step. `carried` are words that a step leaves for
    the next one, `given` those that come from outside of the part, `made` those that it writes."""

    first: int
    last: int
    carried: Ranges
    given: Ranges
    made: Ranges


@dataclass(frozen=True)
class Unit:
    """What runs in one go: an instruction, a body, or a part."""

    reads: Ranges
    writes: Ranges
    body: Item | None = None


@dataclass
class _Scan:
    """Which steps each word was written at last: 0 outside of any loop, -1 not yet in this round, else an id."""

    accesses: Mapping[int, tuple[Ranges, Ranges]]
    owner: Array
    ids: dict[tuple[int, int], int] = field(default_factory=dict)

    def crosses(self, body: Item, units: Iterable[Unit]) -> bool:
        """Whether a body reads a word that this round has not written, or wrote at other steps than its own."""
        stride, offset = body.integer("stride"), body.integer("offset")
        own = self.ids.setdefault((stride, offset), len(self.ids) + 1)
        for unit in units:
            if unit.body is not None:
                if self.crosses(unit.body, _units(unit.body, (), self.accesses)):
                    return True
                continue
            seen = [n for (s, o), n in self.ids.items() if stride % s == 0 and (offset - o) % s == 0]
            if any(not np.isin(self.owner[at : at + words], [0, *seen]).all() for at, words in unit.reads):
                return True
            for at, words in unit.writes:
                self.owner[at : at + words] = own
        return False


def parts_of(items: tuple[Item, ...], data: Mapping[str, Array]) -> dict[int, tuple[Part, ...]] | None:
    """The parts of each loop, by its index, that go step by step; None where the whole program has to."""
    accesses, first_line = _side_by_side({item.index: ACCESS[item.code.mnemonic](item, data) for item in walk(items)})
    size = max((at + words for reads, writes in accesses.values() for at, words in (*reads, *writes)), default=0)
    scan = _Scan(accesses, np.zeros(size, np.int64))
    found: dict[int, tuple[Part, ...]] = {}
    for item in items:
        reads, writes = accesses[item.index]
        if item.code.mnemonic == "loop":
            written = _mask(size, (each for inner in walk(item.body) for each in accesses[inner.index][1]))
            parts = found[item.index] = _parts(item, accesses, written)
            if any(inner.body or inner.code.mnemonic in MESSAGES for p in parts for inner in _inside(item, p)):
                return None
            scan.owner[written] = -1
            if scan.crosses(item, _units(item, parts, accesses)):
                return None
            scan.owner[written] = -1
            for part in parts:  # the last step's stand when the loop has ended
                scan.owner[_mask(size, part.carried)] = 0
        if any(scan.owner[at : at + words].any() for at, words in reads):
            return None
        for at, words in writes:
            scan.owner[at : at + words] = 0
    return {loop: tuple(_with_lines(part, first_line) for part in parts) for loop, parts in found.items()}


def _side_by_side(
    accesses: Mapping[int, tuple[Ranges, Ranges]],
) -> tuple[Mapping[int, tuple[Ranges, Ranges]], int]:
    """The analog lines right behind the registers, a word apart; and where they begin there."""
    every = [each for sides in accesses.values() for side in sides for each in side]
    begin = 1 + max((at + words for at, words in every if at < LINES), default=0)
    if all(at < LINES for at, _ in every):
        return accesses, begin

    def near(ranges: Ranges) -> Ranges:
        return [(at - LINES + begin if at >= LINES else at, words) for at, words in ranges]

    return {index: (near(reads), near(writes)) for index, (reads, writes) in accesses.items()}, begin


def _with_lines(part: Part, first: int) -> Part:
    """The part with lines where they really are."""

    def real(ranges: Ranges) -> Ranges:
        return [(at - first + LINES if at >= first else at, words) for at, words in ranges]

    return Part(part.first, part.last, real(part.carried), real(part.given), real(part.made))


def _inside(loop: Item, part: Part) -> tuple[Item, ...]:
    return loop.body[part.first : part.last + 1]


def _units(body: Item, parts: tuple[Part, ...], accesses: Mapping[int, tuple[Ranges, Ranges]]) -> Iterator[Unit]:
    starts, place = {part.first: part for part in parts}, 0
    while place < len(body.body):
        item = body.body[place]
        if (part := starts.get(place)) is not None:
            yield Unit(part.given, part.made)
            place = part.last
        elif item.body:
            yield Unit([], [], item)
        else:
            yield Unit(*accesses[item.index])
        place += 1


def _parts(loop: Item, accesses: Mapping[int, tuple[Ranges, Ranges]], written: Array) -> tuple[Part, ...]:
    """From each carried word's first read to its last write; what overlaps is one part."""
    size, fresh = written.size, np.zeros(written.size, bool)  # words that this round has written
    start, stop = np.full(size, len(loop.body)), np.full(size, -1)
    each = [
        tuple([r for inner in (item, *walk(item.body)) for r in accesses[inner.index][side]] for side in (0, 1))
        for item in loop.body
    ]
    for place, (reads, writes) in enumerate(each):
        late = _mask(size, reads) & written & ~fresh
        start[late] = np.minimum(start[late], place)
        own = _mask(size, writes)
        stop[own], fresh = place, fresh | own
    carried = start <= stop
    spans: list[list[int]] = []
    for first, last in sorted({(int(a), int(b)) for a, b in zip(start[carried], stop[carried], strict=True)}):
        if spans and first <= spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], last)
        else:
            spans.append([first, last])
    found = []
    for first, last in spans:
        held = carried & (start >= first) & (start <= last)
        given, made = np.zeros(size, bool), np.zeros(size, bool)
        for reads, writes in each[first : last + 1]:
            given |= _mask(size, reads) & ~made & ~held
            made |= _mask(size, writes)
        found.append(Part(first, last, _ranges(held), _ranges(given), _ranges(made)))
    return tuple(found)


def _mask(size: int, ranges: Iterable[tuple[int, int]]) -> Array:
    mask = np.zeros(size, bool)
    for at, words in ranges:
        mask[at : at + words] = True
    return mask


def _ranges(mask: Array) -> Ranges:
    """Runs of true words."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(a), int(b - a)) for a, b in edges.reshape(-1, 2)]
