"""Pieces of a program, straight code or a chunk of a loop, as both clocks time them: instructions and jobs in arrays.

Chunks of a loop are alike but for the time at which they run, so that one plan mostly serves all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.clock.array import ARRAY
from backends.epochcore.clock.cost import Cost
from backends.epochcore.clock.pricing import STREAMS, Prices, waiting
from backends.epochcore.program.columns import Columns
from backends.epochcore.program.dispatch import Array, Piece, Spans, lower
from backends.epochcore.program.tokens import engine_of
from isa import Instruction, Program

Ints = NDArray[np.int64]
ON_ARRAY = ("preload", "compute")
REGISTERS = ("one", *(f"n{number}" for number in range(8)))
OTHER, PRELOAD, PASS, LOADING, STORING, TRANSFER, FETCH, SYNC, RATE, NOTHING = range(10)


@dataclass(frozen=True, eq=False)
class Plan:
    """What a piece runs. By op: its instruction, its job (of all `known` costs and their engines) and its place among
    the `locs`, from 1 on; which of them are of each engine in `ON_ARRAY`. Where engines do not wait for tokens, what
    does nothing else is no op: how often those of which loc do it."""

    instructions: Ints
    jobs: Ints
    layer: Ints
    on_array: tuple[Ints, ...]
    waits: Counter[tuple[int | None, str]]
    known: tuple[Sequence[Cost], Sequence[str]]

    @property
    def costs(self) -> list[Cost]:
        """By op."""
        return [self.known[0][job] for job in self.jobs.tolist()]

    @property
    def engines(self) -> list[str]:
        """By op."""
        return [self.known[1][job] for job in self.jobs.tolist()]

    @property
    def issued(self) -> int:
        """Instructions, with waiting."""
        return len(self.jobs) + self.waits.total()


def joined(plans: Sequence[Plan]) -> Plan:
    """Plans of a program in which engines wait for tokens, run one after the other."""
    at = np.cumsum([0, *(len(plan.jobs) for plan in plans)]).tolist()
    first = plans[0]
    return Plan(
        instructions=np.concatenate([plan.instructions for plan in plans]),
        jobs=np.concatenate([plan.jobs for plan in plans]),
        layer=np.concatenate([plan.layer for plan in plans]),
        on_array=tuple(
            np.concatenate([some + start for some, start in zip(each, at, strict=False)])
            for each in zip(*(plan.on_array for plan in plans), strict=True)
        ),
        waits=first.waits,
        known=first.known,
    )


def paid(plans: Sequence[Plan], times: Sequence[int]) -> Iterator[tuple[int | None, Cost, int]]:
    """By loc and cost, how often plans of a program that are run so many times each pay it, with waiting."""
    if not plans:
        return
    costs = plans[0].known[0]
    every = np.concatenate([plan.layer * len(costs) + plan.jobs for plan in plans])
    pairs, which = np.unique(every, return_inverse=True)
    # whole numbers, far below those that are not exact as floats
    counts = np.bincount(which, np.repeat(times, [len(plan.jobs) for plan in plans]), len(pairs)).astype(np.int64)
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        loc, job = divmod(pair, len(costs))
        yield loc - 1 if loc else None, costs[job], count
    for plan, number in zip(plans, times, strict=True):
        for (place, name), count in plan.waits.items():
            yield place, waiting(name), count * number


@dataclass(frozen=True, eq=False)
class _Fetches:
    """The places of a piece's fetches among its ops, their instructions, shapes, and what they fetch."""

    places: Ints
    indices: Ints
    shapes: Ints
    constants: Ints


@dataclass(frozen=True, eq=False)
class _Frame:
    """What a piece runs, however many steps that has. By op: its instruction, how it is met with, in which stretch of
    the registers' `rates` it is, and the register of its steps. `alone` are ops whose jobs depend on that and on what
    the piece itself lets the array hold; `alike` says by which of `kinds` these are: an instruction, what is held, and
    an op with the same steps. Jobs of others depend on what is held or lies where before the piece: those of the array
    that are `met` before its first pass that takes over one of its preloads, and `fetches`. `last` is the piece's last
    preload, the one before that by its last pass, if there is one, and that pass: what the array holds after it."""

    run: Ints
    way: Ints
    rates: Sequence[Instruction]
    stretch: Ints
    register: Ints
    layer: Ints
    on_array: tuple[Ints, ...]
    met: list[int]
    fetches: _Fetches
    alone: Ints
    alike: Ints
    kinds: list[tuple[int, int, int]]
    last: tuple[int, int, int] | None
    waits: Counter[tuple[int | None, str]]


@dataclass(frozen=True, eq=False)
class _Body:
    """What plans of a piece have in common, whatever is held and lies where before it: jobs, the steps of ops that are
    `met`, and what the array holds after it (`held`), if there is any pass that takes over a preload of the piece."""

    frame: _Frame
    jobs: Ints
    met: list[tuple[int, int]]
    held: Array | None


@dataclass
class _Left:
    """A plan, and what is held and lies where before and after it."""

    plan: Plan
    before: Ints
    after: Ints
    active: Instruction | None
    coming: Instruction | None
    taken: tuple[int, int]


class Jobs(Protocol):
    """What the ops of a program were found to be so far: by job a cost, and the engine that it is on."""

    @property
    def costs(self) -> list[Cost]: ...

    @property
    def engines(self) -> list[str]: ...

    def job(self, ins: Instruction, cost: Cost, steps: int, *, looped: bool) -> int:
        """The number of a job."""


@dataclass
class Plans:
    """The plans of a program's pieces, to be asked for in their order; `tokens` are what engines wait for, or not."""

    program: Program
    numbered: Jobs
    prices: Prices
    columns: Columns
    tokens: bool
    _array: Array = field(default_factory=Array)
    _known: dict[tuple[Any, ...], _Left] = field(default_factory=dict)
    _frames: dict[int, _Frame] = field(default_factory=dict)
    _bodies: dict[tuple[int, int, tuple[int, ...]], _Body] = field(default_factory=dict)
    _jobs: dict[tuple[int, int, int, int, bool], int] = field(default_factory=dict)
    _fetched: dict[tuple[int, int, bool], int] = field(default_factory=dict)

    def of(self, piece: Piece, kind: tuple[int, ...]) -> Plan:
        """The plan of a piece; those of a `kind` that start at the same instruction cost the same."""
        array, lying = self._array, self.prices.lying
        key = piece.start, piece.samples, kind, id(array.active), id(array.coming), array.taken[1]
        known = self._known.get(key)
        if known is None or known.before is not lying.known:
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
        for place, span in zip(body.frame.met, body.met, strict=True):
            index = int(body.frame.run[place])
            held, (start, count) = self._array.meets(code[index], span)
            jobs[place] = self._job(index, piece, (start, count), held)
        if body.held is not None:
            self._array = replace(body.held)
        fetches = body.frame.fetches
        if len(fetches.places):
            moved = self.prices.lying.move(fetches.constants)
            kinds, first, which = np.unique(fetches.shapes * 2 + moved, return_index=True, return_inverse=True)
            each = [
                self._fetch(piece, int(fetches.indices[n]), kind) for n, kind in zip(first, kinds.tolist(), strict=True)
            ]
            jobs[fetches.places] = np.array(each, np.int64)[which]
        known = self.numbered.costs, self.numbered.engines
        return Plan(body.frame.run, jobs, body.frame.layer, body.frame.on_array, body.frame.waits, known)

    def _fetch(self, piece: Piece, index: int, kind: int) -> int:
        """The job of a fetch whose shape, twice its number, and whether it moves make its `kind`."""
        own = kind, piece.samples, piece.loop
        job = self._fetched.get(own)
        if job is None:
            job = self._fetched[own] = self._job(index, piece, (0, 1), None, moves=bool(kind % 2))
        return job

    @cached_property
    def _every(self) -> Known:
        return known_of(self.columns, self.prices)

    def _frame(self, piece: Piece) -> _Frame:
        every, code = self._every, self.program.sections[0].code
        way = every.way[piece.start : piece.stop]
        run = piece.start + np.flatnonzero((way < SYNC) | (self.tokens & (way == SYNC)))
        ways, register = every.way[run], every.register[run]
        rates = piece.start + np.flatnonzero(way == RATE) if piece.loop else run[:0]
        # what is held: by the last preload, or where states go out by that of the last pass
        preload, taken = (_last(run, ways == kind) for kind in (PRELOAD, PASS))
        first = np.flatnonzero((ways == PASS) & (preload >= 0))[:1]
        known = np.arange(len(run)) >= (first[0] if len(first) else len(run))
        on_array = (ways == PRELOAD) | (ways == PASS) | (ways == LOADING) | (ways == STORING)
        out = np.flatnonzero((ways == STORING) & known)
        held, steps = np.where(on_array & known, preload, -1), np.arange(len(run))
        steps[out] = passing = np.searchsorted(run, taken[out])
        held[out] = preload[passing]
        alone = np.flatnonzero((ways == OTHER) | (ways == SYNC) | (on_array & known))
        stretch = np.searchsorted(rates, run)
        alike, kinds = self._alike(run[alone], held[alone], steps[alone], stretch, register)
        waits = [] if self.tokens else (piece.start + np.flatnonzero(way == SYNC)).tolist()
        last = None
        if len(first):
            place = int(np.searchsorted(run, taken[-1]))
            last = int(preload[-1]), int(preload[place]), place
        mine = tuple(np.flatnonzero(every.on[run] == number) for number in range(len(ON_ARRAY)))
        met, rules = np.flatnonzero(on_array & ~known).tolist(), [code[place] for place in rates.tolist()]
        places = np.flatnonzero(ways == FETCH)
        indices = run[places]
        fetches = _Fetches(places, indices, every.shape[indices], every.fetched[:, indices])
        return _Frame(
            run=run,
            way=ways,
            rates=rules,
            stretch=stretch,
            register=register,
            layer=every.loc[run],
            on_array=mine,
            met=met,
            fetches=fetches,
            alone=alone,
            alike=alike,
            kinds=kinds,
            last=last,
            waits=Counter((code[at].loc, str(code[at]["engine"])) for at in waits),
        )

    def _alike(
        self, run: Ints, held: Ints, steps: Ints, stretch: Ints, register: Ints
    ) -> tuple[Ints, list[tuple[int, int, int]]]:
        """Which ops are alike in what they do, hold, and have steps by; by kind the first of them."""
        shapes = self._every.shape
        met = np.where(held >= 0, shapes[held], 0)
        key = (shapes[run] * (len(shapes) + 1) + met) * (len(stretch) + 1) + stretch[steps]
        _, first, which = np.unique(key * len(REGISTERS) + register[steps], return_index=True, return_inverse=True)
        return which, list(zip(run[first].tolist(), held[first].tolist(), steps[first].tolist(), strict=True))

    def _body(self, piece: Piece) -> _Body:
        frame = self._frames.get(piece.start)
        if frame is None:
            frame = self._frames[piece.start] = self._frame(piece)
        code, run = self.program.sections[0].code, frame.run
        start, count = _steps(frame, piece.spans)
        jobs = np.zeros(len(run), np.int64)
        if len(frame.alone):
            each = [self._like(piece, index, held, int(count[steps])) for index, held, steps in frame.kinds]
            jobs[frame.alone] = np.array(each, np.int64)[frame.alike]
        for place in np.flatnonzero(frame.way == TRANSFER).tolist():
            jobs[place] = self._job(int(run[place]), piece, (int(start[place]), int(count[place])), None)
        after = None
        if frame.last is not None:
            last, active, place = frame.last
            span = int(start[place]), int(count[place])
            after = Array(code[active], code[last] if last > run[place] else None, span)
        return _Body(frame, jobs, [(int(start[n]), int(count[n])) for n in frame.met], after)

    def _like(self, piece: Piece, index: int, held: int, count: int) -> int:
        """The job of an op, and of others like it."""
        shapes = self._every.shape
        own = int(shapes[index]), int(shapes[held]) if held >= 0 else 0, count, piece.samples, piece.loop
        job = self._jobs.get(own)
        if job is None:
            meets = self.program.sections[0].code[held] if held >= 0 else None
            job = self._jobs[own] = self._job(index, piece, (0, count), meets)
        return job

    def _job(
        self, index: int, piece: Piece, span: tuple[int, int], held: Instruction | None, *, moves: bool = True
    ) -> int:
        ins, (start, count) = self.program.sections[0].code[index], span
        cost = self.prices.of(index, ins, start, count, piece.samples, held, moves=moves)
        return self.numbered.job(ins, cost, count, looped=piece.loop)


class Known(NamedTuple):
    """What is known of every instruction whenever it runs: how it is met with, the number of the register of its steps,
    its engine's among `ON_ARRAY`, that of all that its cost may depend on, and its place among the `locs`, from 1 on,
    or 0. By fetch what it fetches."""

    way: Ints
    register: Ints
    on: Ints
    shape: Ints
    loc: Ints
    fetched: Ints


def known_of(columns: Columns, prices: Prices) -> Known:
    """By columns."""
    way, register, on, shape = np.zeros((4, len(columns.code)), np.int64)
    fetched = np.zeros((3, len(columns.code)), np.int64)
    for alike in columns.alike:
        some, engine = alike.places, engine_of(columns.code[alike.places[0]])
        way[some] = _way(alike.mnemonic, engine)
        register[some] = REGISTERS.index(str(alike.operands.get("steps", "one")))
        on[some] = ON_ARRAY.index(engine) if engine in ON_ARRAY and way[some[0]] < SYNC else -1
        if way[some[0]] <= SYNC:
            shape[some] = prices.shapes(alike)
            if alike.mnemonic == "fetch":
                fetched[:, some] = prices.fetched(alike)
    loc = np.array([0 if ins.loc is None else ins.loc + 1 for ins in columns.code], np.int64)
    return Known(way, register, on, shape, loc, fetched)


def _way(name: str, engine: str | None) -> int:
    if engine is None:
        return RATE if name == "rate" else NOTHING
    ways = {"sync": SYNC, "fetch": FETCH, "preload": PRELOAD, "state.load": LOADING, "state.store": STORING}
    return ways.get(name, TRANSFER if name in STREAMS else PASS if name in ARRAY else OTHER)


def _last(run: Ints, chosen: NDArray[np.bool_]) -> Ints:
    """By op the last of the chosen instructions up to it, or -1."""
    return np.maximum.accumulate(np.where(chosen, run, -1))


def _steps(frame: _Frame, spans: Spans) -> tuple[Ints, Ints]:
    """By op the first of its steps and how many it has: each `rate` of the piece sets one more register."""
    each = [spans]
    for rate in frame.rates:
        each.append({**each[-1], str(rate["dst"]): lower(rate, each[-1][str(rate["src"])])})
    starts, counts = (np.array([[span.get(name, (0, 0))[n] for name in REGISTERS] for span in each]) for n in (0, 1))
    return starts[frame.stretch, frame.register], counts[frame.stretch, frame.register]
