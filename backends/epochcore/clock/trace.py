"""What happened when, as Chrome trace events (the "Trace Event Format" of Chromium), which Perfetto opens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backends.epochcore.arch import Arch
from backends.epochcore.clock.handover import Run
from backends.epochcore.program.dispatch import Op
from isa import Program
from isa.epochcore_fields import ENGINES

Event = dict[str, Any]
NUDGED = 1 + 2.0**-40  # viewers cut times to whole ns, and 1.13 us is a little less than 1130: slices would overlap


def events(ops: Sequence[Op], runs: Sequence[Run], program: Program, arch: Arch) -> list[Event]:
    """Of the first sequence: an engine a track (each pipe of the vector unit one), instructions as slices that end when
    the next one on the track starts; by track, in the order of time."""
    machine = {"name": f"epochcore ({arch.name})"}
    named: list[Event] = [{"name": "process_name", "ph": "M", "pid": 0, "tid": 0, "args": machine}]
    first = [(op, run) for op, run in zip(ops, runs, strict=True) if op.sample <= 0]
    if arch.array.handover_steps:  # engines that hand over step by step do not wait there
        first = [(op, run) for op, run in first if op.ins.mnemonic != "sync"]
    slices: list[Event] = []
    for engine in (*ENGINES, "drain"):
        mine = [pair for pair in first if pair[1].engine == engine]
        for pipe, lane in enumerate(_lanes(mine, _pipes(engine, arch))):
            tid, name = len(named) - 1, f"{engine} {pipe + 1}" if pipe else engine
            named.append({"name": "thread_name", "ph": "M", "pid": 0, "tid": tid, "args": {"name": name}})
            slices += (_slice(program, arch, engine, tid, *one) for one in lane)
    return named + slices


def _slice(program: Program, arch: Arch, engine: str, tid: int, op: Op, start: int, end: int) -> Event:
    source, micro = program.source(op.ins), 1e6 / arch.clock_hz * NUDGED
    name, place = source.layer if source else op.ins.mnemonic, {"instruction": op.ins.mnemonic, "index": op.index}
    event = {"name": name, "cat": engine, "ph": "X", "ts": start * micro, "dur": (end - start) * micro}
    return {**event, "pid": 0, "tid": tid, "args": {**place, "steps": op.steps}}


def _pipes(engine: str, arch: Arch) -> int:
    return arch.vector.pipes if engine == "vector" and arch.array.handover_steps else 1


def _lanes(runs: Sequence[tuple[Op, Run]], count: int) -> list[list[tuple[Op, int, int]]]:
    """What runs at once in so many lanes, each in the order of time. Where all are busy, what began first is shown
    until then."""
    lanes: list[list[tuple[Op, int, int]]] = [[] for _ in range(count)]
    for op, run in sorted(runs, key=lambda pair: (pair[1].start, pair[0].number)):
        free = [lane for lane in lanes if not lane or lane[-1][2] <= run.start]
        lane = free[0] if free else min(lanes, key=lambda lane: lane[-1][2])
        if lane and lane[-1][2] > run.start:
            before, start, _ = lane.pop()
            if start < run.start:
                lane.append((before, start, run.start))
        if run.finish > run.start:
            lane.append((op, run.start, run.finish))
    return lanes
