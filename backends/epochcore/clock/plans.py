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
from backends.epochcore.program.dispatch import Array, Piece, Spans, lower
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
    _static: dict[int, _Static] = field(default_factory=dict)
    _jobs: dict[tuple[int, int, int, bool], int] = field(default_factory=dict)

    def of(self, piece: Piece, kind: tuple[int, ...]) -> Plan:
        """The plan of a piece; those of a `kind` that start at the same instruction cost the same."""
        array, lying = self._array, self.prices.lying
        key = piece.start, piece.samples, kind, id(array.active), id(array.coming), array.taken[1]
        known = self._known.get(key)
        if known is None or known.before != lying.known:
            before = lying.known
            plan = self._made(piece)
            known = self._known[key] = _Left(plan, before, lying.known, array.active, array.coming, array.taken)
        lying.known = known.after
        self._array = Array(known.active, known.coming, known.taken)
        return known.plan

    def _made(self, piece: Piece) -> Plan:
        code, spans, samples, jobs_of = self.program.sections[0].code, piece.spans, piece.samples, self._jobs
        instructions, jobs, own, on = (list[int]() for _ in range(4))
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
            if way == OTHER:
                key = shape, spans[register][1], samples, piece.loop
                job = jobs_of.get(key)
                if job is None:
                    job = jobs_of[key] = self._job(index, ins, way, register, piece, spans)
            else:
                job = self._job(index, ins, way, register, piece, spans)
            instructions.append(index)
            jobs.append(job)
            on.append(engine)
            own.append(locs.setdefault(ins.loc, len(locs)))
        costs, engines = self.handover.costs, self.handover.engines
        layers, numbers = np.array(own, np.int64), np.array(jobs, np.int64)
        pairs, times = np.unique(layers * len(costs) + numbers, return_counts=True)
        named = tuple(locs)
        each = zip(*(values.tolist() for values in (*np.divmod(pairs, max(1, len(costs))), times)), strict=True)
        paid = [(named[place], costs[job], count) for place, job, count in each]
        paid += [(loc, waiting(name), count) for (loc, name), count in waits.items()]
        return Plan(
            np.array(instructions, np.int64),
            numbers,
            [costs[job] for job in jobs],
            [engines[job] for job in jobs],
            named,
            layers,
            np.array(on, np.int64),
            tuple(paid),
            len(jobs) + sum(waits.values()),
        )

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

    def _job(self, index: int, ins: Instruction, way: int, register: str, piece: Piece, spans: Spans) -> int:
        held, (start, count) = None, spans[register]
        if way == ARRAYS:
            held, (start, count) = self._array.meets(ins, spans[register])
        moves = way != FETCH or self.prices.moves(ins)
        cost = self.prices.of(index, ins, start, count, piece.samples, held, moves=moves)
        return self.handover.job(ins, cost, count, looped=piece.loop)
