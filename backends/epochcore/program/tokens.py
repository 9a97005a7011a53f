"""Tokens between the engines: from what instructions read and write to who waits for whom.

Within straight code and within the body of a loop over chunks, an instruction that needs an earlier one of another
engine takes a token that this one gives; a need that an earlier token already covers gives none. What a round of a
loop needs from the round before is one more token: as many are given before the loop, and taken after it. Between
such pieces of code an engine waits, by `sync`, for all that another one has done, where anything there depends on it.
Tokens of a pair of engines are given and taken in one order, so that they never cross; programs stay as long as
they are in time, for whatever number of chunks and samples.

In-order engines need no tokens of their own, but for reading what an earlier instruction of the same engine has not
finished writing (`load` and `compute` start the next before the last has ended).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from backends.epochcore.program.cells import Ints, Spans, Visits
from backends.epochcore.program.ledger import Ledger
from isa import Instruction, Section, SectionBuilder
from isa.epochcore import EPOCHCORE
from isa.epochcore_fields import ENGINES

Pair = tuple[str, str]  # from engine, to engine
OVERLAPPING = ("load", "compute")
# Rounds after which what a loop's rounds need from each other is the same for all further ones.
ROUNDS = 3
NONE = frozenset[str]()
POPPED, PUSHED = ({engine: f"{what}.{engine}" for engine in ENGINES} for what in ("pop", "push"))


def engine_of(ins: Instruction) -> str | None:
    """The engine that runs an instruction; None for the sequencer's own."""
    timing = EPOCHCORE.by_mnemonic[ins.mnemonic].timing
    if timing == "sync":
        return str(ins["engine"])
    return timing if timing in ENGINES else None


@dataclass
class Piece:
    """Instructions `start` to `stop` - 1: straight code, or the body of the loop at `start` - 1."""

    start: int
    stop: int
    loop: bool
    repeated: bool
    pops: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    pushes: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    carried: Counter[Pair] = field(default_factory=Counter)
    waits: set[Pair] = field(default_factory=set)


def synchronised(section: Section, sizes: Mapping[str, int]) -> tuple[Section, tuple[int, ...]]:
    """The section with tokens, and where each of its instructions is now. `sizes` are words of the constants."""
    pieces, spans = _pieces(section), Spans.of(section, sizes)
    for piece in pieces:
        _within(piece, section, spans)
    _between(pieces, section, spans)
    return _written(section, pieces)


def _pieces(section: Section) -> list[Piece]:
    """Code between the starts and ends of loops."""
    cuts, loops, repeated = {0, len(section.code)}, set[int](), range(0)
    for index, ins in enumerate(section.code):
        if ins.mnemonic in ("samples", "chunks"):
            end = section.labels[str(ins["end"])]
            cuts |= {index, index + 1, end}
            if ins.mnemonic == "chunks":
                loops.add(index + 1)
            else:
                repeated = range(index, end)
    places = sorted(cuts)
    found = [Piece(a, b, a in loops, a in repeated) for a, b in pairwise(places)]
    return [p for p in found if any(engine_of(ins) for ins in section.code[p.start : p.stop])]


def _visited(piece: Piece, section: Section) -> tuple[Ints, Ints]:
    """The instructions of a piece that engines run, and their engines' numbers."""
    found = ((i, engine_of(section.code[i])) for i in range(piece.start, piece.stop))
    each = [(i, ENGINES.index(engine)) for i, engine in found if engine is not None]
    places, engines = np.array(each, np.int64).reshape(-1, 2).T.copy()
    return places, engines


def _within(piece: Piece, section: Section, spans: Spans) -> None:
    """Tokens within a piece; in a loop those that every later round takes."""
    from backends.epochcore.program.walk import covered  # it loads the compiler

    size, rounds = piece.stop - piece.start, ROUNDS if piece.loop else 1
    places, engine = _visited(piece, section)
    at = [1 + turn * size - piece.start + places for turn in range(rounds)]
    visits = Visits(np.tile(places, rounds), np.tile(engine, rounds), np.concatenate(at))
    latest = Ledger(spans).needs(visits)
    covered(latest, visits.engine, np.array([name not in OVERLAPPING for name in ENGINES]))
    last = latest[(rounds - 1) * len(places) :]
    for visit, other in np.argwhere(last).tolist():
        own, name = ENGINES[engine[visit]], ENGINES[other]
        before, place = divmod(int(last[visit, other]) - 1, size)
        piece.pops[int(places[visit])].add(name)
        piece.pushes[piece.start + place].add(own)
        piece.carried[name, own] += before < rounds - 1


def _between(pieces: list[Piece], section: Section, spans: Spans) -> None:
    """Where a piece waits for others; code that is repeated for every sample is walked twice."""
    before = [p for p in pieces if not p.repeated]
    again = [p for p in pieces if p.repeated]
    first = [p for p in before if not again or p.start < again[0].start]
    rest = [p for p in before if p not in first]
    ledger, passed = Ledger(spans), Counter[Pair]()
    last = Counter[int]()
    each = {piece.start: _visited(piece, section) for piece in pieces}
    for clock, piece in enumerate((*first, *again, *again, *rest), 1):
        for pair in piece.waits:
            passed[pair] = clock
        places, engine = each[piece.start]
        latest = ledger.needs(Visits(places, engine, np.full(len(places), clock)), at_once=True)
        if piece.loop:
            # what rounds of a loop need from each other also covers the loop's run before
            latest[latest == last[piece.start]] = 0
        for own, name in enumerate(ENGINES):
            for other, at in zip(ENGINES, latest[engine == own].max(0, initial=0).tolist(), strict=True):
                if at and at >= passed[other, name] and (other != name or name in OVERLAPPING):
                    piece.waits.add((other, name))
                    passed[other, name] = clock
        last[piece.start] = clock


def _written(section: Section, pieces: list[Piece]) -> tuple[Section, tuple[int, ...]]:
    """The code again, with tokens on its instructions and `sync` where pieces meet."""
    entries = {p.start - 1 if p.loop else p.start: p for p in pieces}
    exits = {p.stop: p for p in pieces if p.loop}
    tokens = {i: (p.pops.get(i, NONE), p.pushes.get(i, NONE)) for p in pieces for i in {*p.pops, *p.pushes}}
    builder, moved, open_loops = SectionBuilder(EPOCHCORE, section.name), list[int](), list[tuple[int, str]]()
    names = _Names(section)
    for index in range(len(section.code) + 1):
        while open_loops and open_loops[-1][0] == index:
            builder.label(open_loops.pop()[1])
            if index in exits:
                _leave(builder, exits.pop(index))
        for name in names.others(index):
            builder.label(name)
        if index == len(section.code):
            break
        ins = section.code[index]
        if index in entries:
            builder.loc = section.code[entries[index].start].loc
            _enter(builder, entries[index])
        moved.append(len(builder))
        changed: dict[str, Any] = {}
        if ins.mnemonic in ("samples", "chunks"):
            label = names.loop(index)
            open_loops.append((section.labels[str(ins["end"])], label))
            changed["end"] = label
        pops, pushes = tokens.get(index, (NONE, NONE))
        changed |= {POPPED[e]: True for e in pops} | {PUSHED[e]: True for e in pushes}
        builder.add(ins.changed(changed) if changed else ins)
    return builder.build(), tuple(moved)


class _Names:
    """A label for the end of every loop, its own where loops that end together share one."""

    def __init__(self, section: Section) -> None:
        self._labels, self._of = dict(section.labels), dict[int, str]()
        free = set(section.labels)
        for index, ins in enumerate(section.code):
            if ins.mnemonic in ("samples", "chunks"):
                name, count = str(ins["end"]), 1
                while name not in free:
                    name, count = f"{ins['end']}.{count}", count + 1
                    if name not in self._labels and name not in self._of.values():
                        free.add(name)
                free.discard(name)
                self._of[index] = name
        taken, self._others = set(self._of.values()), dict[int, list[str]]()
        for name, place in self._labels.items():
            if name not in taken:
                self._others.setdefault(place, []).append(name)

    def loop(self, index: int) -> str:
        return self._of[index]

    def others(self, index: int) -> Sequence[str]:
        """Labels here that no loop ends with."""
        return self._others.get(index, ())


def _enter(builder: SectionBuilder, piece: Piece) -> None:
    """Tokens that a piece waits for, then those that the first round of its loop takes."""
    due = Counter({pair: 1 for pair in piece.waits if pair[0] != pair[1]}) + piece.carried
    alone = {a for a, b in piece.waits if a == b}
    while due or alone:
        for engine in ENGINES:
            to = [b for b in ENGINES if due[engine, b]]
            if to or engine in alone:
                builder.emit("sync", engine=engine, **{f"push.{b}": True for b in to})
            for b in to:
                due[engine, b] -= 1
        due, alone = +due, set()
    for engine in ENGINES:
        of = [a for a in ENGINES if a != engine and (a, engine) in piece.waits]
        if of:
            builder.emit("sync", engine=engine, **{f"pop.{a}": True for a in of})


def _leave(builder: SectionBuilder, piece: Piece) -> None:
    """Take the tokens that the last round of a loop gave to a round that did not come."""
    due = +piece.carried
    while due:
        for engine in ENGINES:
            of = [a for a in ENGINES if due[a, engine]]
            if of:
                builder.emit("sync", engine=engine, **{f"pop.{a}": True for a in of})
            for a in of:
                due[a, engine] -= 1
        due = +due
