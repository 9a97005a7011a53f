"""Everything that a program's instructions touch, in arrays: in the scratchpad, in the parameter memory, of streams."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.program.accesses import Held, Words, accesses
from backends.epochcore.program.columns import Alike, Columns
from backends.epochcore.program.passes import PASSES
from backends.epochcore.program.rates import most_rows
from backends.epochcore.program.tiles import parameters_of, passing
from isa import Instruction, Section

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
# Where parameters and streams lie in the one space in which conflicts are looked for.
PARAMETERS, STREAMS = 1 << 40, 1 << 41
Touched = tuple[Alike, Words]


class Touches(NamedTuple):
    """By what is touched, in the program's order: the instruction; from where to where that lies; of what there is once
    a step the number of the register that counts these, words of a step, the `pitch` from one to the next, the end of
    the loop, and whether the instruction goes against its direction; of what there is once -1, its words, and zeros."""

    instruction: Ints
    start: Ints
    stop: Ints
    words: Ints
    pitch: Ints
    register: Ints
    written: Ints
    loop: Ints
    against: Ints

    def of(self, chosen: Ints) -> Touches:
        return Touches(*(values[chosen] for values in self))


def touches(columns: Columns, loops: Loops, words_of: Callable[[Sequence[str]], Ints]) -> Touches:
    """What is touched, in such loops; `words_of` says how many some constants have in the parameter memory."""
    sizes = _Sizes.of(columns, words_of)
    found = [*_scratchpad(columns), *_parameters(columns, sizes), *_streams(columns)]
    each: list[Touches] = []
    order: list[Ints] = []
    numbers: dict[str | None, int] = {None: -1}
    for number, (alike, words) in enumerate(found):
        at, register = alike.places, numbers.setdefault(words.register, len(numbers))
        reverse = alike.operands.get("reverse")
        zeros = np.zeros(len(at), np.int64)
        pitch, loop, against, more = zeros, zeros, zeros, zeros
        if words.register is not None:  # else neither the loop nor its direction matters
            pitch, loop, more = zeros + words.pitch, loops.end[at], loops.rows(words.register, at) - 1
            if reverse is not None:
                against = (loops.backward[at] != bool(reverse)).astype(np.int64)
        start, size = zeros + words.start, zeros + words.words
        stop = start + more * pitch + size
        each.append(Touches(at, start, stop, size, pitch, zeros + register, zeros + words.written, loop, against))
        order.append(zeros + number)
    if not each:
        return Touches(*np.zeros((len(Touches._fields), 0), np.int64))
    every = Touches(*map(np.concatenate, zip(*each, strict=True)))
    return every.of(np.lexsort((np.concatenate(order), every.instruction)))


class Loops(NamedTuple):
    """By instruction: where the loop over chunks ends that it is in, or 0, and whether this goes `backward`. From every
    one of `marks` on (in order) chunks have another `limit`, or registers other rates."""

    end: Ints
    backward: Flags
    marks: list[int]
    limits: list[int]
    rates: list[dict[str, Instruction]]

    @staticmethod
    def of(section: Section, steps: int | None) -> Loops:
        """Where sequences have so many `steps`, or as many as there are."""
        code, labels = section.code, section.labels
        end, backward = np.zeros(len(code), np.int64), np.zeros(len(code), np.bool_)
        limits, rates = {0: 1}, dict[int, Instruction]()
        for place, ins in enumerate(code):
            if ins.mnemonic == "rate":
                rates[place] = ins
            elif ins.mnemonic == "chunks":
                stop = labels[str(ins["end"])]
                end[place:stop], backward[place:] = stop, bool(ins["backward"])
                limit = int(ins["limit"])
                limits |= {place: limit if steps is None else max(1, min(limit, steps)), stop: 1}
        marks = sorted({*limits, *rates})
        known: list[dict[str, Instruction]] = []
        now, limit, limited = dict[str, Instruction](), 1, []
        for mark in marks:
            limit = limits.get(mark, limit)
            if mark in rates:
                now = {**now, str(rates[mark]["dst"]): rates[mark]}
            known.append(now)
            limited.append(limit)
        return Loops(end, backward, marks, limited, known)

    def rows(self, register: str, places: Ints) -> Ints:
        """Rows by `register` of a chunk, at each of some places in order."""
        first, last = (bisect_right(self.marks, int(place)) - 1 for place in (places[0], places[-1]))
        some = [most_rows(register, self.limits[n], self.rates[n]) for n in range(first, last + 1)]
        if len(set(some)) == 1:
            return np.full(len(places), some[0], np.int64)
        return np.array(some, np.int64)[np.searchsorted(self.marks, places, "right") - 1 - first]


class _Sizes(NamedTuple):
    """Words of what is in the parameter memory: each fetch by where it goes and its own place in the code, in order."""

    fetches: Ints
    words: Ints
    every: int

    @staticmethod
    def of(columns: Columns, words_of: Callable[[Sequence[str]], Ints]) -> _Sizes:
        count, fetches, sizes = len(columns.code), [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for fetch in columns.named("fetch"):
            fetches.append(fetch["dst"] * count + fetch.places)
            sizes.append(np.maximum(1, words_of(fetch["src"])))
        keys = np.concatenate(fetches)
        order = np.argsort(keys)
        return _Sizes(keys[order], np.concatenate(sizes)[order], count)

    def at(self, address: Ints, places: Ints) -> Ints:
        """Of the constants that lie at these addresses when instructions at these places run; 1 where there is none."""
        if not len(self.fetches):
            return np.ones_like(address)
        last = np.searchsorted(self.fetches, address * self.every + places, "right") - 1
        known = (last >= 0) & (self.fetches[last] // self.every == address)
        return np.where(known, self.words[last], 1)


def _scratchpad(columns: Columns) -> Iterator[Touched]:
    held = _Held.of(columns)
    for alike in columns.alike:
        if alike.mnemonic not in PASSES:
            yield from ((alike, words) for words in accesses(alike, Held(1, 1, False)))
            continue
        is_complex = held.is_complex[held.last[alike.places]]
        for kind in (False, True):
            some = alike.where(is_complex == kind)
            if len(some.places):
                at = held.last[some.places]
                yield from (
                    (some, words) for words in accesses(some, Held(held.rows[at], held.cols[at], kind, held.tiles[at]))
                )


class _Held(NamedTuple):
    """By instruction the last preload before it, or -1; by preload what it is of, for -1 as before any."""

    last: Ints
    rows: Ints
    cols: Ints
    tiles: Ints
    is_complex: Flags

    @staticmethod
    def of(columns: Columns) -> _Held:
        count = len(columns.code)
        last, (rows, cols, tiles) = np.full(count, -1, np.int64), np.ones((3, count + 1), np.int64)
        is_complex = np.zeros(count + 1, np.bool_)
        for alike in columns.named("preload"):
            at, what = alike.places, Held.of(alike)
            last[at], rows[at], cols[at], tiles[at], is_complex[at] = (
                at,
                what.rows,
                what.cols,
                what.tiles,
                what.is_complex,
            )
        return _Held(np.maximum.accumulate(last), rows, cols, tiles, is_complex)


def _parameters(columns: Columns, sizes: _Sizes) -> Iterator[Touched]:
    """What fetches write, and preloads and the passes after them read."""
    for fetch in columns.named("fetch"):
        size = sizes.at(fetch["dst"], fetch.places)
        yield fetch, Words(PARAMETERS + fetch["dst"], size, size, None, True)
    passes = [(alike, _Held.of(columns).last[alike.places]) for alike in columns.named(*PASSES)]
    place = np.full(len(columns.code) + 1, -1, np.int64)
    for alike in columns.named("preload"):
        for address in parameters_of(alike):
            size = sizes.at(address, alike.places)
            yield alike, Words(PARAMETERS + address, size, size, None, False)
        for several in (False, True):
            held = alike.where((alike["tiles"] > 1) == several)
            place[held.places] = np.arange(len(held.places))
            for address in passing(held, several=several) if len(held.places) else ():
                for over, last in passes:
                    number = place[last]
                    some, at = over.where(number >= 0), address[number[number >= 0]]
                    if len(at):
                        size = sizes.at(at, some.places)
                        yield some, Words(PARAMETERS + at, size, size, None, False)
            place[held.places] = -1


def _streams(columns: Columns) -> Iterator[Touched]:
    for alike in columns.named("load", "store"):
        which = alike["src" if alike.mnemonic == "load" else "dst"]
        yield alike, Words(STREAMS + which, 1, 1, None, alike.mnemonic == "store")
