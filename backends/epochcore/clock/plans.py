"""Pieces of a program, straight code or a chunk of a loop, as `handover` places them: instructions and jobs in arrays.

Chunks of a loop are alike but for the time at which they run, so that one plan mostly serves all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.clock.array import ARRAY
from backends.epochcore.clock.cost import Cost
from backends.epochcore.clock.handover import Handover
from backends.epochcore.clock.pricing import STREAMS, Prices, waiting
from backends.epochcore.program.columns import Columns
from backends.epochcore.program.dispatch import Array, Piece, Spans, lower
from backends.epochcore.program.tokens import engine_of
from isa import Instruction, Program

Ints = NDArray[np.int64]
Lain = list[tuple[int, int, str]]
ON_ARRAY = ("preload", "compute")
REGISTERS = ("one", *(f"n{number}" for number in range(8)))
OTHER, PRELOAD, PASS, LOADING, STORING, TRANSFER, FETCH, SYNC, RATE, NOTHING = range(10)


@dataclass(frozen=True, eq=False)
class Plan:
    """What a piece runs. By op that is no waiting for tokens: its instruction, job, cost, engine, place among the
    `locs`, and engine's number among `ON_ARRAY` (-1: none of them). `paid`: by loc and cost, how often; with waiting.
    """

    instructions: Ints
    jobs: Ints
    costs: Sequence[Cost]
    engines: Sequence[str]
    locs: tuple[int | None, ...]
    layer: Ints
    engine: Ints
    paid: tuple[tuple[int | None, Cost, int], ...]
    issued: int


@dataclass(frozen=True, eq=False)
class _Body:
    """What plans of a piece have in common, whatever is held and lies where before it: the first parts of a plan, and
    ops whose jobs depend on that, with their places and instructions: those of the array (`met`, with their steps)
    before the first pass that takes over a preload of the piece, and `fetches`. `held` is what the array holds after
    the others, if there is any such pass; then what waits for tokens."""

    instructions: Ints
    jobs: Ints
    layer: Ints
    engine: Ints
    met: list[tuple[int, int, tuple[int, int]]]
    fetches: list[tuple[int, int, int, tuple[int, str, int]]]
    held: Array | None
    locs: tuple[int | None, ...]
    waits: Counter[tuple[int | None, str]]


@dataclass
class _Left:
    """A plan, and what is held and lies where before and after it."""

    plan: Plan
    before: Lain
    after: Lain
    active: Instruction | None
    coming: Instruction | None
    taken: tuple[int, int]


@dataclass
class Plans:
    """The plans of a program's pieces, to be asked for in their order."""

    program: Program
    handover: Handover
    prices: Prices
    columns: Columns
    _array: Array = field(default_factory=Array)
    _known: dict[tuple[Any, ...], _Left] = field(default_factory=dict)
    _bodies: dict[tuple[int, int, tuple[int, ...]], _Body] = field(default_factory=dict)
    _jobs: dict[tuple[int, int, int, int, bool], int] = field(default_factory=dict)
    _fetched: dict[tuple[int, bool, int, bool], int] = field(default_factory=dict)

    def of(self, piece: Piece, kind: tuple[int, ...]) -> Plan:
        """The plan of a piece; those of a `kind` that start at the same instruction cost the same."""
        array, lying = self._array, self.prices.lying
        key = piece.start, piece.samples, kind, id(array.active), id(array.coming), array.taken[1]
        known = self._known.get(key)
        if known is None or known.before != lying.known:
            before = lying.known
            plan = self._made(piece, kind)
            array = self._array
            known = self._known[key] = _Left(plan, before, lying.known, array.active, array.coming, array.taken)
        lying.known = known.after
        self._array = Array(known.active, known.coming, known.taken)
        return known.plan

    def _made(self, piece: Piece, kind: tuple[int, ...]) -> Plan:
        key = piece.start, piece.samples, kind
        body = self._bodies.get(key)
        if body is None:
            body = self._bodies[key] = self._body(piece)
        jobs, code = body.jobs.copy(), self.program.sections[0].code
        for place, index, span in body.met:
            held, (start, count) = self._array.meets(code[index], span)
            jobs[place] = self._job(index, piece, (start, count), held)
        if body.held is not None:
            self._array = replace(body.held)
        fetched, move = self._fetched, self.prices.lying.move
        for place, index, shape, what in body.fetches:
            own = shape, (moves := move(*what)), piece.samples, piece.loop
            job = fetched.get(own)
            if job is None:
                job = fetched[own] = self._job(index, piece, (0, 1), None, moves=moves)
            jobs[place] = job
        costs, engines, named = self.handover.costs, self.handover.engines, body.locs
        pairs, times = np.unique(body.layer * len(costs) + jobs, return_counts=True)
        each = zip(*(values.tolist() for values in (*np.divmod(pairs, max(1, len(costs))), times)), strict=True)
        paid = [(named[place], costs[job], count) for place, job, count in each]
        paid += [(loc, waiting(name), count) for (loc, name), count in body.waits.items()]
        return Plan(
            body.instructions,
            jobs,
            [costs[job] for job in jobs.tolist()],
            [engines[job] for job in jobs.tolist()],
            named,
            body.layer,
            body.engine,
            tuple(paid),
            len(jobs) + sum(body.waits.values()),
        )

    @cached_property
    def _every(self) -> Known:
        return known_of(self.columns, self.prices)

    def _body(self, piece: Piece) -> _Body:
        code, every = self.program.sections[0].code, self._every
        way = every.way[piece.start : piece.stop]
        run = piece.start + np.flatnonzero(way < SYNC)
        ways, register = every.way[run], every.register[run]
        spans, stretch = self._spans(piece, run)
        starts, counts = (
            np.array([[span.get(name, (0, 0))[n] for name in REGISTERS] for span in spans]) for n in (0, 1)
        )
        start, count = starts[stretch, register], counts[stretch, register]
        # what is held: by the last preload, or where states go out by that of the last pass
        preload, taken = (_last(run, ways == kind) for kind in (PRELOAD, PASS))
        first = np.flatnonzero((ways == PASS) & (preload >= 0))[:1]
        known = np.arange(len(run)) >= (first[0] if len(first) else len(run))
        on_array = (ways == PRELOAD) | (ways == PASS) | (ways == LOADING) | (ways == STORING)
        met = np.flatnonzero(on_array & ~known)
        out = np.flatnonzero((ways == STORING) & known)
        passing = np.searchsorted(run, taken[out])
        held = np.where(on_array & known, preload, -1)
        held[out], count[out] = preload[passing], count[passing]
        alone = np.flatnonzero((ways == OTHER) | (on_array & known))
        jobs = np.zeros(len(run), np.int64)
        jobs[alone] = self._alike(piece, run[alone], count[alone], held[alone])
        for place in np.flatnonzero(ways == TRANSFER).tolist():
            jobs[place] = self._job(int(run[place]), piece, (int(start[place]), int(count[place])), None)
        locs, layer = _numbered(every.loc[run])
        fetches = [(n, int(run[n])) for n in np.flatnonzero(ways == FETCH).tolist()]
        waits = Counter(
            (code[at].loc, str(code[at]["engine"])) for at in (piece.start + np.flatnonzero(way == SYNC)).tolist()
        )
        after = None
        if len(first):
            last, place = int(preload[-1]), int(np.searchsorted(run, taken[-1]))
            active = int(preload[place])
            span = int(start[place]), int(count[place])
            after = Array(code[active], code[last] if last > taken[-1] else None, span)
        return _Body(
            run,
            jobs,
            layer,
            every.on[run],
            [(int(n), int(run[n]), (int(start[n]), int(count[n]))) for n in met],
            [(n, index, int(every.shape[index]), self.prices.fetched(code[index])) for n, index in fetches],
            after,
            locs,
            waits,
        )

    def _spans(self, piece: Piece, run: Ints) -> tuple[list[Spans], Ints]:
        """The registers' steps in the stretches of a piece, and the stretch of every op: `rate` begins another one."""
        if not piece.loop:
            return [piece.spans], np.zeros(len(run), np.int64)
        code, spans = self.program.sections[0].code, [piece.spans]
        rates = piece.start + np.flatnonzero(self._every.way[piece.start : piece.stop] == RATE)
        for place in rates.tolist():
            rate, now = code[place], spans[-1]
            spans.append({**now, str(rate["dst"]): lower(rate, now[str(rate["src"])])})
        return spans, np.searchsorted(rates, run)

    def _alike(self, piece: Piece, run: Ints, count: Ints, held: Ints) -> Ints:
        """The jobs of ops that are like others, by how many steps they have, and what the array holds."""
        shapes = self._every.shape
        shape, met = shapes[run], np.where(held >= 0, shapes[held], 0)
        _, number = np.unique(count, return_inverse=True)
        key = (shape * (len(shapes) + 1) + met) * len(run) + number
        _, first, which = np.unique(key, return_index=True, return_inverse=True)
        jobs, code = list[int](), self.program.sections[0].code
        for n in first.tolist():
            own = int(shape[n]), int(met[n]), int(count[n]), piece.samples, piece.loop
            job = self._jobs.get(own)
            if job is None:
                meets = code[held[n]] if held[n] >= 0 else None
                job = self._jobs[own] = self._job(int(run[n]), piece, (0, int(count[n])), meets)
            jobs.append(job)
        return np.array(jobs, np.int64)[which]

    def _job(
        self, index: int, piece: Piece, span: tuple[int, int], held: Instruction | None, *, moves: bool = True
    ) -> int:
        ins, (start, count) = self.program.sections[0].code[index], span
        cost = self.prices.of(index, ins, start, count, piece.samples, held, moves=moves)
        return self.handover.job(ins, cost, count, looped=piece.loop)


class Known(NamedTuple):
    """What is known of every instruction whenever it runs: how it is met with, the number of the register of its steps,
    its engine's among `ON_ARRAY`, that of all that its cost may depend on, and its place among the `locs`, or -1."""

    way: Ints
    register: Ints
    on: Ints
    shape: Ints
    loc: Ints


def known_of(columns: Columns, prices: Prices) -> Known:
    """By columns."""
    way, register, on, shape = np.zeros((4, len(columns.code)), np.int64)
    for alike in columns.alike:
        some, engine = alike.places, engine_of(columns.code[alike.places[0]])
        way[some] = _way(alike.mnemonic, engine)
        register[some] = REGISTERS.index(str(alike.operands.get("steps", "one")))
        on[some] = ON_ARRAY.index(engine) if engine in ON_ARRAY else -1
        if way[some[0]] < SYNC:
            shape[some] = prices.shapes(alike, columns.code)
    loc = np.array([-1 if ins.loc is None else ins.loc for ins in columns.code], np.int64)
    return Known(way, register, on, shape, loc)


def _way(name: str, engine: str | None) -> int:
    if engine is None:
        return RATE if name == "rate" else NOTHING
    ways = {"sync": SYNC, "fetch": FETCH, "preload": PRELOAD, "state.load": LOADING, "state.store": STORING}
    return ways.get(name, TRANSFER if name in STREAMS else PASS if name in ARRAY else OTHER)


def _last(run: Ints, chosen: NDArray[np.bool_]) -> Ints:
    """By op the last of the chosen instructions up to it, or -1."""
    return np.maximum.accumulate(np.where(chosen, run, -1))


def _numbered(locs: Ints) -> tuple[tuple[int | None, ...], Ints]:
    """Those that occur, and by op which of them it has."""
    some, which = np.unique(locs, return_inverse=True)
    return tuple(None if loc < 0 else loc for loc in some.tolist()), which
