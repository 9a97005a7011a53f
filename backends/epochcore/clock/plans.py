"""Pieces of a program, straight code or a chunk of a loop, as `handover` places them: instructions and jobs in arrays.

Chunks of a loop are alike but for the time at which they run, so that one plan mostly serves all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.clock.array import ARRAY
from backends.epochcore.clock.cost import Cost
from backends.epochcore.clock.handover import Handover
from backends.epochcore.clock.pricing import STREAMS, Prices, waiting
from backends.epochcore.program.dispatch import Array, Piece, lower
from backends.epochcore.program.tokens import engine_of
from isa import Instruction, Program

Ints = NDArray[np.int64]
Lain = list[tuple[int, int, str]]
ON_ARRAY = ("preload", "compute")
OTHER, ARRAYS, TRANSFER, FETCH, SYNC, RATE, NOTHING = range(7)


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


class _Static(NamedTuple):
    """What is known of an instruction whenever it runs: how it is met with, the register of its steps, its engine's
    number among `ON_ARRAY`, and all that its cost may depend on, as a number."""

    way: int
    register: str
    on: int
    shape: int


@dataclass(frozen=True, eq=False)
class _Body:
    """What plans of a piece have in common, whatever is held and lies where before it: the first parts of a plan, and
    `others`, the ops whose jobs depend on that, with their place, instruction, way and steps; what waits for tokens."""

    instructions: Ints
    jobs: Ints
    layer: Ints
    engine: Ints
    others: list[tuple[int, int, int, tuple[int, int]]]
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
    _array: Array = field(default_factory=Array)
    _known: dict[tuple[Any, ...], _Left] = field(default_factory=dict)
    _bodies: dict[tuple[int, int, tuple[int, ...]], _Body] = field(default_factory=dict)
    _static: dict[int, _Static] = field(default_factory=dict)
    _jobs: dict[tuple[int, int, int, bool], int] = field(default_factory=dict)

    def of(self, piece: Piece, kind: tuple[int, ...]) -> Plan:
        """The plan of a piece; those of a `kind` that start at the same instruction cost the same."""
        array, lying = self._array, self.prices.lying
        key = piece.start, piece.samples, kind, id(array.active), id(array.coming), array.taken[1]
        known = self._known.get(key)
        if known is None or known.before != lying.known:
            before = lying.known
            plan = self._made(piece, kind)
            known = self._known[key] = _Left(plan, before, lying.known, array.active, array.coming, array.taken)
        lying.known = known.after
        self._array = Array(known.active, known.coming, known.taken)
        return known.plan

    def _made(self, piece: Piece, kind: tuple[int, ...]) -> Plan:
        key = piece.start, piece.samples, kind
        body = self._bodies.get(key)
        if body is None:
            body = self._bodies[key] = self._body(piece)
        jobs = body.jobs.copy()
        for place, index, way, span in body.others:
            jobs[place] = self._job(index, way, piece, span)
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

    def _body(self, piece: Piece) -> _Body:
        code, spans, samples, jobs_of = self.program.sections[0].code, piece.spans, piece.samples, self._jobs
        instructions, jobs, own, on = (list[int]() for _ in range(4))
        others: list[tuple[int, int, int, tuple[int, int]]] = []
        locs: dict[int | None, int] = {}
        waits = Counter[tuple[int | None, str]]()
        for index in range(piece.start, piece.stop):
            ins = code[index]
            way, register, engine, shape = self._static.get(index) or self._of(index, ins)
            if way >= SYNC:
                if way == RATE and piece.loop:
                    spans = {**spans, str(ins["dst"]): lower(ins, spans[str(ins["src"])])}
                elif way == SYNC:
                    waits[ins.loc, str(ins["engine"])] += 1
                continue
            span, job = spans[register], 0
            if way == OTHER:
                key = shape, span[1], samples, piece.loop
                known = jobs_of.get(key)
                job = jobs_of[key] = self._job(index, way, piece, span) if known is None else known
            else:
                others.append((len(jobs), index, way, span))
            instructions.append(index)
            jobs.append(job)
            on.append(engine)
            own.append(locs.setdefault(ins.loc, len(locs)))
        arrays = [np.array(values, np.int64) for values in (instructions, jobs, own, on)]
        return _Body(arrays[0], arrays[1], arrays[2], arrays[3], others, tuple(locs), waits)

    def _of(self, index: int, ins: Instruction) -> _Static:
        name, engine = ins.mnemonic, engine_of(ins)
        ways = {"sync": SYNC, "fetch": FETCH, "rate": RATE}
        way = ways.get(name, TRANSFER if name in STREAMS else ARRAYS if name in ARRAY else OTHER)
        if engine is None and way != RATE:
            way = NOTHING
        register = str(ins.operands.get("steps", "one"))
        on = ON_ARRAY.index(engine) if engine in ON_ARRAY else -1
        found = self._static[index] = _Static(way, register, on, self.prices.shape(ins) if way < SYNC else 0)
        return found

    def _job(self, index: int, way: int, piece: Piece, span: tuple[int, int]) -> int:
        ins, held, (start, count) = self.program.sections[0].code[index], None, span
        if way == ARRAYS:
            held, (start, count) = self._array.meets(ins, span)
        moves = way != FETCH or self.prices.moves(ins)
        cost = self.prices.of(index, ins, start, count, piece.samples, held, moves=moves)
        return self.handover.job(ins, cost, count, looped=piece.loop)
