"""Pieces of a program, straight code or a chunk of a loop, as both clocks time them: instructions and jobs in arrays.

Chunks of a loop are alike but for the time at which they run, so that one plan mostly serves all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.clock.cost import Cost
from backends.epochcore.clock.frames import Frame, Frames, Known, known_of
from backends.epochcore.clock.pricing import Prices, waiting
from backends.epochcore.program.columns import Columns
from backends.epochcore.program.dispatch import Array, Piece
from isa import Instruction, Program

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Plan:
    """What a piece runs. By op: its instruction, its job (of all `known` costs and their engines) and its place among
    the `locs`, from 1 on; the number in `ON_ARRAY` of the engine that it is `on`, or -1. Where engines do not wait for
    tokens, what does nothing else is no op: how often those of which loc do it."""

    instructions: Ints
    jobs: Ints
    layer: Ints
    on: Ints
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
    first = plans[0]
    return Plan(
        instructions=np.concatenate([plan.instructions for plan in plans]),
        jobs=np.concatenate([plan.jobs for plan in plans]),
        layer=np.concatenate([plan.layer for plan in plans]),
        on=np.concatenate([plan.on for plan in plans]),
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
class _Place:
    """A piece where it is in the code: its frame; by op the instruction and its place among the `locs`; constants that
    are `fetched`; and how often waiting for tokens, that is no op, is of which loc."""

    frame: Frame
    instructions: Ints
    layer: Ints
    fetched: Ints
    waits: Counter[tuple[int | None, str]]


@dataclass(frozen=True, eq=False)
class _Body:
    """What plans of a piece have in common, whatever is held and lies where before it: jobs, the steps of ops that are
    `met`, and what the array holds after it (`held`), if there is any pass that takes over a preload of the piece."""

    place: _Place
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
    _places: dict[int, _Place] = field(default_factory=dict)
    _bodies: dict[tuple[int, int, tuple[int, ...]], _Body] = field(default_factory=dict)
    _jobs: dict[tuple[int, int, int, int, bool], int] = field(default_factory=dict)
    _alone: dict[tuple[Any, ...], Ints] = field(default_factory=dict)
    _moving: dict[tuple[int, int, bool], Ints] = field(default_factory=dict)

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
        jobs, place, code = body.jobs.copy(), body.place, self._code
        for op, span in zip(place.frame.met, body.met, strict=True):
            index = int(place.instructions[op])
            held, (start, count) = self._array.meets(code[index], span)
            jobs[op] = self._job(index, piece, (start, count), held)
        if body.held is not None:
            self._array = replace(body.held)
        fetches = place.frame.fetches
        if len(fetches.places):
            moved = self.prices.lying.move(place.fetched)
            jobs[fetches.places] = self._fetches(piece, place, moved)
        known = self.numbered.costs, self.numbered.engines
        return Plan(place.instructions, jobs, place.layer, place.frame.on, place.waits, known)

    def _fetches(self, piece: Piece, place: _Place, moved: NDArray[np.bool_]) -> Ints:
        """The jobs of fetches, of which some move what they fetch."""
        fetches, moving = place.frame.fetches, np.zeros(len(moved), np.int64)
        first = place.instructions[fetches.first].tolist()
        if moved.any():
            key = id(place.frame), piece.samples, piece.loop
            known = self._moving.get(key)
            if known is None:
                each = [self._job(index, piece, (0, 1), None) for index in first]
                known = self._moving[key] = np.array(each, np.int64)[fetches.shapes]
            moving = known
        return moving if moved.all() else np.where(moved, moving, self._job(first[0], piece, (0, 1), None, moves=False))

    @cached_property
    def _every(self) -> Known:
        return known_of(self.columns, self.prices)

    @cached_property
    def _frames(self) -> Frames:
        return Frames(self._every, self._code, tokens=self.tokens)

    @property
    def _code(self) -> Sequence[Instruction]:
        return self.program.sections[0].code

    def _placed(self, piece: Piece) -> _Place:
        place = self._places.get(piece.start)
        if place is None:
            frame, every, code = self._frames.of(piece), self._every, self._code
            run = piece.start + frame.run
            waits = (code[piece.start + at] for at in frame.waits)
            place = self._places[piece.start] = _Place(
                frame,
                run,
                every.loc[run],
                every.fetched[:, run[frame.fetches.places]],
                Counter((ins.loc, str(ins["engine"])) for ins in waits),
            )
        return place

    def _body(self, piece: Piece) -> _Body:
        place, code = self._placed(piece), self._code
        frame = place.frame
        start, count = frame.steps(piece.spans)
        jobs = self._alone_of(piece, frame, count).copy()
        for op in frame.transfers:
            jobs[op] = self._job(int(place.instructions[op]), piece, (int(start[op]), int(count[op])), None)
        after = None
        if frame.last is not None:
            last, active, op = frame.last
            span, more = (int(start[op]), int(count[op])), last > frame.run[op]
            after = Array(code[piece.start + active], code[piece.start + last] if more else None, span)
        return _Body(place, jobs, [(int(start[n]), int(count[n])) for n in frame.met], after)

    def _alone_of(self, piece: Piece, frame: Frame, count: Ints) -> Ints:
        """The jobs of ops that stand alone, and zeros; pieces of one frame have them in common."""
        key = id(frame), piece.samples, piece.loop, count.tobytes()
        jobs = self._alone.get(key)
        if jobs is None:
            jobs = self._alone[key] = np.zeros(len(count), np.int64)
            each = [self._like(piece, index, held, int(count[steps])) for index, held, steps in frame.kinds]
            jobs[frame.alone] = np.array(each, np.int64)[frame.alike]
        return jobs

    def _like(self, piece: Piece, index: int, held: int, count: int) -> int:
        """The job of an op, and of others like it; places are counted from the beginning of the piece."""
        shapes, index = self._every.shape, piece.start + index
        other = piece.start + held
        own = int(shapes[index]), int(shapes[other]) if held >= 0 else 0, count, piece.samples, piece.loop
        job = self._jobs.get(own)
        if job is None:
            job = self._jobs[own] = self._job(index, piece, (0, count), self._code[other] if held >= 0 else None)
        return job

    def _job(
        self, index: int, piece: Piece, span: tuple[int, int], held: Instruction | None, *, moves: bool = True
    ) -> int:
        ins, (start, count) = self._code[index], span
        cost = self.prices.of(index, ins, start, count, piece.samples, held, moves=moves)
        return self.numbered.job(ins, cost, count, looped=piece.loop)
