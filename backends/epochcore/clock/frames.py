"""What pieces of a program run, however many steps that has and wherever in the code they are: a `Frame`, which pieces
have in common whose instructions are alike in all that costs depend on, as layers that follow each other are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.clock.array import ARRAY
from backends.epochcore.clock.pricing import STREAMS, Prices
from backends.epochcore.program.columns import Columns
from backends.epochcore.program.dispatch import Piece, Spans, lower
from backends.epochcore.program.tokens import engine_of
from isa import Instruction

Ints = NDArray[np.int64]
ON_ARRAY = ("preload", "compute")
REGISTERS = ("one", *(f"n{number}" for number in range(8)))
OTHER, PRELOAD, PASS, LOADING, STORING, TRANSFER, FETCH, SYNC, RATE, NOTHING = range(10)
RATED = ("dst", "src", "stride", "offset", "windows")


@dataclass(frozen=True, eq=False)
class Fetches:
    """The places of fetches among a frame's ops, those of the first fetch of each shape, and which shape each has."""

    places: Ints
    first: Ints
    shapes: Ints


@dataclass(frozen=True, eq=False)
class Frame:
    """By op: its instruction (all of them counted from the beginning of the piece), in which stretch of the registers'
    `rates` it is, the register of its steps, and the number in `ON_ARRAY` of what it is on, or -1. `transfers` are
    streams'. `alone` are ops whose jobs depend on all that and on what the piece itself lets the array hold; `alike`
    says by which of `kinds` these are: an instruction, what is held, and an op with the same steps. Jobs of others
    depend on what is held or lies where before the piece: those of the array that are `met` before its first pass that
    takes over one of its preloads, and `fetches`. `last` is the piece's last preload, the one before that by its last
    pass, if there is one, and that pass: what the array holds after it. `waits` are instructions that do nothing else,
    where these are no ops."""

    run: Ints
    rates: Sequence[Instruction]
    stretch: Ints
    register: Ints
    on: Ints
    transfers: list[int]
    met: list[int]
    fetches: Fetches
    alone: Ints
    alike: Ints
    kinds: list[tuple[int, int, int]]
    last: tuple[int, int, int] | None
    waits: list[int]

    def steps(self, spans: Spans) -> tuple[Ints, Ints]:
        """By op the first of its steps and how many it has: each `rate` of the piece sets one more register."""
        each = [spans]
        for rate in self.rates:
            each.append({**each[-1], str(rate["dst"]): lower(rate, each[-1][str(rate["src"])])})
        found = np.array([[span.get(name, (0, 0)) for name in REGISTERS] for span in each])
        own = found[self.stretch, self.register]
        return own[:, 0], own[:, 1]


class Frames:
    """The frames of a program's pieces; waiting for `tokens` is an op, or not."""

    def __init__(self, every: Known, code: Sequence[Instruction], *, tokens: bool) -> None:
        self._every, self._code, self._tokens = every, code, tokens
        self._known: dict[tuple[Any, ...], Frame] = {}

    def of(self, piece: Piece) -> Frame:
        """The frame of a piece."""
        own = slice(piece.start, piece.stop)
        way, shape = self._every.way[own], self._every.shape[own]
        register = self._every.register[own]
        at = np.flatnonzero(way == RATE) if piece.loop else np.zeros(0, np.int64)
        rates = [self._code[piece.start + place] for place in at.tolist()]
        told = tuple(tuple(rate[name] for name in RATED) for rate in rates)
        key = way.tobytes(), shape.tobytes(), register.tobytes(), told
        frame = self._known.get(key)
        if frame is None:
            frame = self._known[key] = self._framed(own, at, rates)
        return frame

    def _framed(self, own: slice, at: Ints, rates: Sequence[Instruction]) -> Frame:
        way, shape = self._every.way[own], self._every.shape[own]
        run = np.flatnonzero((way < SYNC) | (self._tokens & (way == SYNC)))
        ways, register = way[run], self._every.register[own][run]
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
        stretch = np.searchsorted(at, run)
        alike, kinds = _alike(shape, run[alone], held[alone], steps[alone], stretch, register)
        last = None
        if len(first):
            place = int(np.searchsorted(run, taken[-1]))
            last = int(preload[-1]), int(preload[place]), place
        places = np.flatnonzero(ways == FETCH)
        _, each, which = np.unique(shape[run[places]], return_index=True, return_inverse=True)
        return Frame(
            run=run,
            rates=rates,
            stretch=stretch,
            register=register,
            on=self._every.on[own][run],
            transfers=np.flatnonzero(ways == TRANSFER).tolist(),
            met=np.flatnonzero(on_array & ~known).tolist(),
            fetches=Fetches(places, places[each], which),
            alone=alone,
            alike=alike,
            kinds=kinds,
            last=last,
            waits=[] if self._tokens else np.flatnonzero(way == SYNC).tolist(),
        )


def _alike(
    shapes: Ints, run: Ints, held: Ints, steps: Ints, stretch: Ints, register: Ints
) -> tuple[Ints, list[tuple[int, int, int]]]:
    """Which ops are alike in what they do, hold, and have steps by; by kind the first of them."""
    met = np.where(held >= 0, shapes[held], 0)
    key = (shapes[run] * (int(shapes.max(initial=0)) + 1) + met) * (len(stretch) + 1) + stretch[steps]
    _, first, which = np.unique(key * len(REGISTERS) + register[steps], return_index=True, return_inverse=True)
    return which, list(zip(run[first].tolist(), held[first].tolist(), steps[first].tolist(), strict=True))


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
