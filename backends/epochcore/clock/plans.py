"""Pieces of a program, straight code or a chunk of a loop, as `handover` places them: instructions and jobs in arrays.

Chunks of a loop are alike but for the time at which they run, so that one plan mostly serves all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.clock.cost import Cost
from backends.epochcore.clock.handover import Handover
from backends.epochcore.clock.pricing import Prices
from backends.epochcore.program.dispatch import Array, Piece, walk
from backends.epochcore.program.tokens import engine_of
from isa import Instruction, Program

Ints = NDArray[np.int64]
Lain = dict[int, tuple[str, int]]


@dataclass(frozen=True, eq=False)
class Plan:
    """What a piece runs. By op that is no waiting for tokens: its instruction, job, cost, engine, place among the
    `locs`, and engine's number among those whose clocks are counted (-1: none of them). `paid`: by loc and cost, how
    often, with waiting."""

    instructions: Ints
    jobs: Ints
    costs: Sequence[Cost]
    engines: Sequence[str]
    locs: tuple[int | None, ...]
    layer: Ints
    engine: Ints
    paid: tuple[tuple[int | None, Cost, int], ...]
    issued: int


@dataclass
class _Left:
    """A plan, and what is held and lies where afterwards."""

    plan: Plan
    before: Lain
    after: Lain
    active: Instruction | None
    coming: Instruction | None
    taken: tuple[int, int]


@dataclass
class Plans:
    """The plans of a program's pieces, to be asked for in their order; `on_array` are the engines whose clocks are
    counted."""

    program: Program
    handover: Handover
    prices: Prices
    on_array: tuple[str, ...]
    _array: Array = field(default_factory=Array)
    _known: dict[tuple[Any, ...], _Left] = field(default_factory=dict)
    _engines: dict[str, str | None] = field(default_factory=dict)

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
        code, prices, handover = self.program.sections[0].code, self.prices, self.handover
        array, loops, engines = self._array, handover.known.loop, self._engines
        instructions, jobs, own, on = (list[int]() for _ in range(4))
        locs: dict[int | None, int] = {}
        paid, costs, issued = Counter[tuple[int | None, int]](), dict[int, Cost](), 0
        for index, spans in walk(self.program, piece):
            ins = code[index]
            name = ins.mnemonic
            engine = engines[name] if name in engines else engines.setdefault(name, engine_of(ins))
            if engine is None:
                continue
            held, (start, count) = array.meets(ins, spans[str(ins.operands.get("steps", "one"))])
            moves = name != "fetch" or prices.moves(ins)
            cost = prices.of(index, ins, start, count, piece.samples, held, moves=moves)
            costs[id(cost)] = cost
            paid[ins.loc, id(cost)] += 1
            issued += 1
            if name != "sync":
                instructions.append(index)
                jobs.append(handover.job(ins, cost, count, looped=bool(loops[index])))
                own.append(locs.setdefault(ins.loc, len(locs)))
                on.append(self.on_array.index(engine) if engine in self.on_array else -1)
        return Plan(
            np.array(instructions, np.int64),
            np.array(jobs, np.int64),
            [handover.jobs[job] for job in jobs],
            [handover.engines[job] for job in jobs],
            tuple(locs),
            np.array(own, np.int64),
            np.array(on, np.int64),
            tuple((loc, costs[number], times) for (loc, number), times in paid.items()),
            issued,
        )
