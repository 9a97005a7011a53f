"""Which push released which pop, as arrows between the slices of a trace ("flow events" of the Trace Event Format)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from backends.epochcore.arch import Arch
from backends.epochcore.program.dispatch import Op, dispatch
from backends.epochcore.program.rounds import rounds_of
from isa import Program

Event = Mapping[str, Any]


def with_arrows(trace: Sequence[Event], program: Program, arch: Arch, batch: int, steps: int) -> tuple[Event, ...]:
    """The trace of a run of `batch` sequences, and behind it an arrow for each token that one slice gives another.

    Engines that hand over step by step do not wait for whole instructions: there an arrow leaves its slice when the
    other one begins, and tokens that this did not wait for have none.
    """
    together = rounds_of(program).together
    ops = [op for op in dispatch(program, min(batch, together), steps, shadow=arch.array.shadow) if op.sample <= 0]
    shown, cycle, arrows = _shown(trace, ops), 1e6 / arch.clock_hz, list[Event]()
    seen = set[tuple[int, int]]()
    for pushed, popped in _tokens(ops):
        source, target = shown.before(pushed), shown.after(popped)
        if source is None or target is None or source["ts"] > target["ts"] or (id(source), id(target)) in seen:
            continue
        seen.add((id(source), id(target)))
        leaves = max(source["ts"], min(source["ts"] + source["dur"] - cycle, target["ts"]))
        common = {"name": "token", "cat": "token", "id": len(seen), "pid": 0}
        arrows.append({**common, "ph": "s", "ts": leaves, "tid": source["tid"]})
        arrows.append({**common, "ph": "f", "bp": "e", "ts": target["ts"], "tid": target["tid"]})
    return (*trace, *arrows)


def _tokens(ops: Iterable[Op]) -> Iterator[tuple[Op, Op]]:
    """Who gave each token, and who took it: between two engines they are taken in the order in which they are given."""
    given, taken = (defaultdict[tuple[str, str], list[Op]](list) for _ in range(2))
    for op in ops:
        for other in op.pushes:
            given[op.engine, other].append(op)
        for other in op.pops:
            taken[other, op.engine].append(op)
    for way, pushed in given.items():
        yield from zip(pushed, taken[way], strict=False)  # some may be left over at the end


class _Shown:
    """The slices of each engine's instructions, in its order; None where one has none."""

    def __init__(self) -> None:
        self.slices: defaultdict[str, list[Event | None]] = defaultdict(list)
        self.places: dict[int, int] = {}  # by the numbers of ops

    def add(self, op: Op, found: Event | None) -> None:
        self.places[op.number] = len(self.slices[op.engine])
        self.slices[op.engine].append(found)

    def before(self, op: Op) -> Event | None:
        """Its slice, or that of the last one before it: by then that had ended, too."""
        row = self.slices[op.engine]
        return next((row[n] for n in range(self.places[op.number], -1, -1) if row[n] is not None), None)

    def after(self, op: Op) -> Event | None:
        """Its slice, or that of the first one that waits behind it."""
        row = self.slices[op.engine]
        return next((row[n] for n in range(self.places[op.number], len(row)) if row[n] is not None), None)


def _shown(trace: Iterable[Event], ops: Sequence[Op]) -> _Shown:
    """Slices of an instruction are its runs in their order, if there are as many; else nobody knows which is which."""
    slices, runs = defaultdict[int, list[Event]](list), defaultdict[int, int](int)
    for event in trace:
        if event["ph"] == "X":
            slices[event["args"]["index"]].append(event)
    for found in slices.values():
        found.sort(key=lambda event: event["ts"])
    for op in ops:
        runs[op.index] += 1
    shown, next_of = _Shown(), {index: iter(found) for index, found in slices.items() if len(found) == runs[index]}
    for op in ops:
        shown.add(op, next(next_of[op.index]) if op.index in next_of else None)
    return shown
