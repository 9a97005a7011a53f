"""Costs of a run: cycles, seconds and energy, by layer, and the trace. `queues` says when everything happens, or
`handover` where the architecture's engines hand over step by step.

A round of samples (of one, where none are run together) follows the one before in the engines' queues as one
instruction follows another. The first few are timed; every further one is taken to add as much as the last of them.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.epochcore.arch import Arch
from backends.epochcore.conflicts import conflicts
from backends.epochcore.cost import Cost
from backends.epochcore.dispatch import Op, dispatch
from backends.epochcore.energy import breakdown, joules
from backends.epochcore.handover import Handover, Run
from backends.epochcore.plan import trap
from backends.epochcore.pricing import pricing
from backends.epochcore.queues import Deadlock, Queues
from backends.epochcore.rounds import rounds_of
from isa import Program
from isa.epochcore_fields import ENGINES
from ssmc.target import LayerStats, Stats

TIMED_ROUNDS = 4
ON_ARRAY = ("preload", "compute")
TRACKS = (*ENGINES, "drain")


@dataclass(slots=True)
class Layer:
    """What a layer adds up to: cycles, those in which the array's clocks run, and how often it pays which cost."""

    cycles: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    paid: dict[int, tuple[Cost, int]] = field(default_factory=dict)

    def pay(self, cost: Cost, times: int) -> None:
        before = self.paid.get(id(cost))
        self.paid[id(cost)] = cost, times if before is None else before[1] + times

    @property
    def macs(self) -> int:
        return sum(cost.macs * times for cost, times in self.paid.values())

    @property
    def passes(self) -> int:
        """Cycles in which passes over the array take in steps, one pass after the other."""
        computed = ((cost, times) for cost, times in self.paid.values() if cost.engine == "compute")
        return sum((cost.cycles if cost.busy is None else cost.busy) * times for cost, times in computed)

    @property
    def on_array(self) -> bool:
        return any(cost.engine in ON_ARRAY for cost, _ in self.paid.values())

    def events(self) -> Counter[str]:
        found = Counter(self.phases)
        for cost, times in self.paid.values():
            for name, count in cost.events.items():
                found[name] += count * times
        return found


@dataclass
class Timeline:
    """Layers and length of a run; `issued` instructions."""

    program: Program
    arch: Arch
    steps: int
    layers: dict[int | None, Layer] = field(default_factory=dict)
    end: int = 0
    issued: int = 0


def measure(
    program: Program,
    arch: Arch,
    batch: int,
    steps: int,
    *,
    trace: bool = False,
) -> tuple[Stats, tuple[Mapping[str, Any], ...]]:
    """Cycles, seconds and energy of a run of `batch` sequences of `steps` steps, and its trace (of the first one).

    Layers' cycles are what each adds to the length of the run: they sum up to it, as energies do. Raises UserError
    where engines wait for tokens that never come.
    """
    collecting = gc.isenabled()
    gc.disable()  # of millions of ops none is in a cycle, and looking for those takes a third of the time
    try:
        return _measured(program, arch, batch, steps, trace)
    finally:
        if collecting:
            gc.enable()


def _measured(
    program: Program, arch: Arch, batch: int, steps: int, trace: bool
) -> tuple[Stats, tuple[Mapping[str, Any], ...]]:
    each = rounds_of(program).together
    full, rest = divmod(batch, each)
    timed = min(full, TIMED_ROUNDS)
    ops = list(dispatch(program, timed * each + rest, steps, shadow=arch.array.shadow))
    price = pricing(program, arch, steps)
    costs = [price(op) for op in ops]
    runs = (_handed_over if arch.array.handover_steps else _queued)(program, arch, ops, costs, steps)
    timeline, phases, end = Timeline(program, arch, steps), dict.fromkeys(ON_ARRAY, 0), 0
    layers = timeline.layers
    for op, run, cost in zip(ops, runs, costs, strict=True):
        # rounds that are not timed are like the last one that is
        times = 1 + full - timed if op.sample == (timed - 1) * each else 1
        layer = layers.get(op.ins.loc)
        if layer is None:
            layer = layers[op.ins.loc] = Layer()
        layer.pay(cost, times)
        if run.finish > end:
            layer.cycles += (run.finish - end) * times
            end = run.finish
        if op.engine in phases and op.ins.mnemonic != "sync" and run.finish > phases[op.engine]:
            layer.phases[f"{op.engine}_cycles"] += (run.finish - max(run.start, phases[op.engine])) * times
            phases[op.engine] = run.finish
        timeline.issued += times
    timeline.end = sum(layer.cycles for layer in timeline.layers.values())
    return _stats(timeline, batch), tuple(_trace(ops, runs, program, arch)) if trace else ()


def _queued(program: Program, arch: Arch, ops: Sequence[Op], costs: Sequence[Cost], steps: int) -> list[Run]:
    """Engines that wait for whole instructions, by tokens (see `queues`)."""
    queues = Queues(arch, lambda op: costs[op.number])
    try:
        queues.run(ops)
    except Deadlock as deadlock:
        raise _stuck(program, deadlock) from None
    return [Run(op.engine, queues.start[op.number], queues.finish[op.number]) for op in ops]


def _handed_over(program: Program, arch: Arch, ops: Sequence[Op], costs: Sequence[Cost], steps: int) -> list[Run]:
    """Engines that hand over step by step (see `handover`); tokens say nothing there."""
    handover, runs, end = Handover(arch, conflicts(program, steps)), [], 0
    for op, cost in zip(ops, costs, strict=True):
        if op.ins.mnemonic == "sync":
            runs.append(Run(op.engine, end, end))
            continue
        runs.append(handover.place(op.index, op.ins, cost, op.steps))
        end = max(end, runs[-1].finish)
    return runs


def _stuck(program: Program, deadlock: Deadlock) -> Exception:
    """The trap that names the waiting engines."""
    lines = []
    for op, lacking in deadlock.waiting:
        source = program.source(op.ins)
        layer = f", layer '{source.layer}'" if source else ""
        what = f"for a token from {' and '.join(lacking)}" if lacking else "for the array's registers"
        lines.append(f"{op.engine} waits {what} at instruction {op.index} ({op.ins.mnemonic}{layer})")
    first = min(op.index for op, _ in deadlock.waiting)
    return trap(
        program,
        first,
        "deadlock: engines wait for tokens that never come",
        "\n       ".join(lines),
        "give every 'pop' a 'push' of the engine that it names, earlier in the program",
    )


def _trace(ops: Sequence[Op], runs: Sequence[Run], program: Program, arch: Arch) -> list[dict[str, Any]]:
    """Chrome trace events: an engine a track, instructions as slices that end when the next one starts."""
    names = ((tid, {"name": engine}) for tid, engine in enumerate(TRACKS))
    machine = {"name": f"epochcore ({arch.name})"}
    events: list[dict[str, Any]] = [{"name": "process_name", "ph": "M", "pid": 0, "tid": 0, "args": machine}]
    events += [{"name": "thread_name", "ph": "M", "pid": 0, "tid": tid, "args": name} for tid, name in names]
    following: dict[str, int] = {}
    micro = 1e6 / arch.clock_hz
    slices = []
    first = [pair for pair in zip(ops, runs, strict=True) if pair[0].sample <= 0]
    if arch.array.handover_steps:  # engines that hand over step by step do not wait there
        first = [(op, run) for op, run in first if op.ins.mnemonic != "sync"]
    for op, run in reversed(first):
        end = min(run.finish, following.get(run.engine, run.finish))
        following[run.engine] = run.start
        if end == run.start:
            continue
        source = program.source(op.ins)
        name = source.layer if source else op.ins.mnemonic
        event = {"name": name, "cat": run.engine, "ph": "X", "ts": run.start * micro, "dur": (end - run.start) * micro}
        place = {"instruction": op.ins.mnemonic, "index": op.index, "steps": op.steps}
        slices.append({**event, "pid": 0, "tid": TRACKS.index(run.engine), "args": place})
    return events + slices[::-1]


def _stats(timeline: Timeline, batch: int) -> Stats:
    arch, program = timeline.arch, timeline.program
    elements = arch.array.rows * arch.array.cols
    rows = []
    total, every = 0.0, Counter[str]()
    for loc, layer in sorted(timeline.layers.items(), key=lambda item: -1 if item[0] is None else item[0]):
        seconds = layer.cycles / arch.clock_hz
        events = layer.events()
        energy = joules(events, seconds, arch)
        total += energy
        every.update(events)
        # a layer whose passes run beside others' adds less to the run than they last
        used = layer.macs / (max(layer.cycles, layer.passes) * elements) if layer.cycles and layer.on_array else None
        source = None if loc is None else program.locs[loc]
        name, op, nodes = (source.layer, source.op, source.onnx_nodes) if source else ("setup", "setup", ())
        rows.append(LayerStats(name, nodes, op, layer.cycles, seconds, energy, used))
    notes: dict[str, Any] = {
        "breakdown_joules": breakdown(every, timeline.end / arch.clock_hz, arch),
    }
    return Stats(
        target="epochcore",
        arch=arch.name,
        cycles=timeline.end,
        seconds=timeline.end / arch.clock_hz,
        energy_joules=total,
        instructions=timeline.issued,
        macs=sum(layer.macs for layer in timeline.layers.values()),
        batch=batch,
        steps=timeline.steps,
        layers=tuple(rows),
        notes=notes,
    )
