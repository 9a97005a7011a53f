"""Which instructions meet: in the scratchpad, in the parameter memory, in the streams. Who waits for whom follows.

Instructions touch the same words again and again: what is alike in all that matters here is one `group`, and it is
groups that are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Arch
from backends.epochcore.program.accesses import Held, Words, accesses
from backends.epochcore.program.meeting import Extents, meeting
from backends.epochcore.program.parameters import param_words
from backends.epochcore.program.rates import most_rows
from backends.epochcore.program.regions import PASSES
from backends.epochcore.program.tiles import parameters_of, streamed
from isa import Instruction, Program

Ints = NDArray[np.int64]
# Where parameters and streams lie in the one space in which conflicts are looked for.
PARAMETERS, STREAMS = 1 << 40, 1 << 41
Group = tuple[Words, int, bool]  # what is touched, the loop, and whether against its direction


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


def conflicts(program: Program, arch: Arch, steps: int) -> Conflicts:
    """Who meets whom, where sequences have `steps` steps."""
    code, labels = program.sections[0].code, program.sections[0].labels
    groups: dict[Group, int] = {}
    extents: list[int] = []
    touches: list[list[int]] = []
    loop, limit, stop, backward = [0] * len(code), 1, -1, False
    shadow = active = Held(1, 1, False)
    coming: Instruction | None = None
    streaming: list[int] = []  # what a pass takes its weights from while it runs
    rates: dict[str, Instruction] = {}
    sizes: dict[int, int] = {}  # words of the constants in the parameter memory, by their first ones
    for index, ins in enumerate(code):
        name = ins.mnemonic
        if index == stop:
            limit, stop = 1, -1
        if name == "chunks":
            limit, stop = max(1, min(int(ins["limit"]), steps)), labels[str(ins["end"])]
            backward = bool(ins["backward"])
        if stop >= 0:
            loop[index] = stop
        if name == "fetch":
            sizes[int(ins["dst"])] = max(1, param_words(program.data[str(ins["src"])], arch.memory.word_bits))
        if name == "rate":
            rates[str(ins["dst"])] = ins
        elif name == "preload":
            shadow, coming = Held.of(ins), ins
        elif name in PASSES:
            active, streaming = shadow, streamed(coming)
        found = [*accesses(ins, active), *_elsewhere(ins, sizes)]
        if name in PASSES:
            found += [_parameters(at, sizes) for at in streaming]
        against = bool(found) and bool(ins.operands.get("reverse", backward)) != backward
        mine: list[int] = []
        for words in found:
            stepped = words.register is not None  # else neither the loop nor its direction matters
            key = (words, loop[index], against) if stepped else (words, 0, False)
            group = groups.setdefault(key, len(groups))
            if group == len(extents):
                extents.append((most_rows(words.register or "one", limit, rates) - 1) * words.pitch + words.words)
            if group not in mine:
                mine.append(group)
        touches.append(mine)
    touched = Lists.of(touches)
    own = np.repeat(np.arange(len(touches)), np.diff(touched.at))
    members = _partners(touched.values, own, len(groups))
    return Conflicts(loop, touched, members, *_pairs(groups, extents))


def _parameters(at: int, sizes: Mapping[int, int], written: bool = False) -> Words:
    size = sizes.get(at, 1)
    return Words(PARAMETERS + at, size, size, None, written)


def _elsewhere(ins: Instruction, sizes: Mapping[int, int]) -> list[Words]:
    """Words of the parameter memory, and streams by their number."""
    name = ins.mnemonic
    if name == "fetch":
        return [_parameters(int(ins["dst"]), sizes, True)]
    if name == "preload":
        return [_parameters(at, sizes) for at in parameters_of(ins)]
    if name in ("load", "store"):
        return [Words(STREAMS + int(ins["src" if name == "load" else "dst"]), 1, 1, None, name == "store")]
    return []


def _pairs(groups: Mapping[Group, int], extents: Sequence[int]) -> tuple[Lists, Lists, Lists]:
    """By group: those that it waits for block by block, for their results or their reading, and those as a whole."""
    written = np.array([words.written for words, _, _ in groups], np.bool_)
    start, stop, words, pitch, register, loop, against = _table(groups, extents).T
    pitch = np.where(register >= 0, pitch, 0)  # without steps there is none
    itself = np.flatnonzero(written)
    found = [(itself, itself)]
    for a, b in meeting(Extents(start, stop, words, pitch)):
        inside = (start[b] - start[a]) % np.maximum(pitch[a], 1)
        met = (pitch[a] != pitch[b]) | (pitch[a] == 0) | (inside < words[a]) | (inside + words[b] > pitch[a])
        met &= written[a] | written[b]
        found.append((a[met], b[met]))
    a, b = (np.concatenate(sides) for sides in zip(*found, strict=True))
    # `a` starts first
    fits = np.maximum(words[a], start[b] - start[a] + words[b]) <= pitch[a]
    alike = (pitch[a] == pitch[b]) & (register[a] == register[b]) & (loop[a] == loop[b]) & (against[a] == against[b])
    chained = (register[a] >= 0) & alike & fits
    others = a != b
    a, b, chained = np.concatenate([a, b[others]]), np.concatenate([b, a[others]]), np.append(chained, chained[others])
    kinds = (chained & written[b], chained & ~written[b], ~chained)
    results, reads, apart = (_partners(a[kind], b[kind], len(groups)) for kind in kinds)
    return results, reads, apart


def _table(groups: Mapping[Group, int], extents: Sequence[int]) -> Ints:
    """A row of numbers for every group: start, stop, words, pitch, register, loop, against."""
    registers: dict[str | None, int] = {None: -1}
    rows = [
        (w.start, w.start + n, w.words, w.pitch, registers.setdefault(w.register, len(registers)), loop, against)
        for (w, loop, against), n in zip(groups, extents, strict=True)
    ]
    return np.array(rows, np.int64).reshape(-1, 7)


def _partners(consumers: Ints, producers: Ints, count: int) -> Lists:
    """Producers by consumer."""
    order = np.argsort(consumers, kind="stable")
    return Lists(np.searchsorted(consumers[order], np.arange(count + 1)).astype(np.int64), producers[order])
