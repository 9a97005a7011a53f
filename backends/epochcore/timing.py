"""Costs of a run: cycles, seconds and energy, by layer, and the trace. `queues` says when everything happens, or
`handover` where the architecture's engines hand over step by step.

A sample follows the one before in the engines' queues as one instruction follows another. The first few samples are
timed; every further one is taken to add as much as the last of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.epochcore.arch import Arch
from backends.epochcore.cost import Context, Cost, Rule
from backends.epochcore.cost_array import ARRAY
from backends.epochcore.cost_dram import TRANSFERS
from backends.epochcore.cost_vector import VECTOR
from backends.epochcore.dispatch import Op, dispatch
from backends.epochcore.energy import breakdown, joules
from backends.epochcore.handover import Handover, conflicts
from backends.epochcore.plan import trap
from backends.epochcore.queues import Deadlock, Queues
from backends.epochcore.rates import totals
from isa import Program
from isa.epochcore_fields import ENGINES
from ssmc.target import LayerStats, Stats

RULES: dict[str, Rule] = {
    **TRANSFERS,
    **ARRAY,
    **VECTOR,
    "sync": lambda ins, at: Cost(str(ins["engine"]), 1, 0, {}),
}
TIMED_SAMPLES = 4
ON_ARRAY = ("preload", "compute")
TRACKS = (*ENGINES, "drain")


@dataclass
class Layer:
    """What a layer adds up to."""

    cycles: int = 0
    macs: int = 0
    events: Counter[str] = field(default_factory=Counter)
    on_array: bool = False

    def add(self, cycles: int, cost: Cost, times: int) -> None:
        self.cycles += cycles * times
        self.macs += cost.macs * times
        for name, count in cost.events.items():
            self.events[name] += count * times
        self.on_array |= cost.engine in ON_ARRAY


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
    timed = min(batch, TIMED_SAMPLES)
    ops = list(dispatch(program, timed, steps, shadow=arch.array.shadow))
    price = pricing(program, arch, steps)
    costs = [price(op) for op in ops]
    runs = (_handed_over if arch.array.handover_steps else _queued)(program, arch, ops, costs, steps)
    timeline, phases = Timeline(program, arch, steps), dict.fromkeys(ON_ARRAY, 0)
    for op, run, cost in zip(ops, runs, costs, strict=True):
        # samples that are not timed are like the last one that is
        times = 1 + batch - timed if op.sample == timed - 1 else 1
        layer = timeline.layers.setdefault(op.ins.loc, Layer())
        layer.add(max(0, run.finish - timeline.end), cost, times)
        if op.engine in phases and op.ins.mnemonic != "sync":
            active = max(0, run.finish - max(run.start, phases[op.engine]))
            layer.events[f"{op.engine}_cycles"] += active * times
            phases[op.engine] = max(phases[op.engine], run.finish)
        timeline.end = max(timeline.end, run.finish)
        timeline.issued += times
    timeline.end = sum(layer.cycles for layer in timeline.layers.values())
    return _stats(timeline, batch), tuple(_trace(ops, runs, program, arch)) if trace else ()


@dataclass(frozen=True, slots=True)
class Run:
    """When an op ran, and on which track of the trace."""

    engine: str
    start: int
    finish: int


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
        runs.append(Run(*handover.place(op.index, op.ins, cost, op.steps)))
        end = max(end, runs[-1].finish)
    return runs


def pricing(program: Program, arch: Arch, steps: int) -> Callable[[Op], Cost]:
    """The cost of an op in a sequence of `steps` steps; equal ones are computed once."""
    total = totals(program, steps)
    bytes_of = {name: array.size * min(array.itemsize, 4) for name, array in program.data.items()}
    known: dict[tuple[int, int, int, int], Cost] = {}
    kept, first = _kept(program), dict[int, int]()

    def price(op: Op) -> Cost:
        if op.index in kept and first.setdefault(op.index, op.number) != op.number:
            return Cost(op.engine, 0, 0, {})
        near = _on_chip(program, op, total)
        key = (op.index, op.steps, near, id(op.held))
        if key not in known:
            known[key] = RULES[op.ins.mnemonic](op.ins, Context(arch, op.steps, op.held, bytes_of, near, program.data))
        return known[key]

    return price


def _kept(program: Program) -> frozenset[int]:
    """Fetches of what stays where it is: the next time that they run nothing moves."""
    places: dict[int, set[str]] = {}
    fetches = [(n, ins) for n, ins in enumerate(program.sections[0].code) if ins.mnemonic == "fetch"]
    for _, ins in fetches:
        places.setdefault(int(ins["dst"]), set()).add(str(ins["src"]))
    shared = any(len(names) > 1 for names in places.values())  # too few words for all: each moves at every use
    return frozenset() if shared else frozenset(n for n, _ in fetches)


def _on_chip(program: Program, op: Op, total: Mapping[str, int]) -> int:
    """Steps of a transfer that do not leave the chip: those of a stream between two loops that are written last."""
    if op.ins.mnemonic not in ("load", "store") or op.ins["steps"] == "one":
        return 0
    streams: Any = program.meta.get("streams", ())
    number = int(op.ins["src" if op.ins.mnemonic == "load" else "dst"])
    if number >= len(streams):
        return 0
    kept = int(streams[number].get("on_chip", 0))
    first = total[str(op.ins["steps"])] - kept if streams[number].get("from_end") else 0
    return max(0, min(op.start + op.steps, first + kept) - max(op.start, first))


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
    events: list[dict[str, Any]] = [
        {"name": "thread_name", "ph": "M", "pid": 0, "tid": tid, "args": name} for tid, name in names
    ]
    following: dict[str, int] = {}
    micro = 1e6 / arch.clock_hz
    slices = []
    for op, run in reversed([pair for pair in zip(ops, runs, strict=True) if pair[0].sample <= 0]):
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
    total = 0.0
    for loc, layer in sorted(timeline.layers.items(), key=lambda item: -1 if item[0] is None else item[0]):
        seconds = layer.cycles / arch.clock_hz
        energy = joules(layer.events, seconds, arch)
        total += energy
        used = layer.macs / (layer.cycles * elements) if layer.cycles and layer.on_array else None
        source = None if loc is None else program.locs[loc]
        name, op, nodes = (source.layer, source.op, source.onnx_nodes) if source else ("setup", "setup", ())
        rows.append(LayerStats(name, nodes, op, layer.cycles, seconds, energy, used))
    notes: dict[str, Any] = {"breakdown_joules": _breakdown(timeline), "instructions_issued": timeline.issued}
    return Stats(
        target="epochcore",
        arch=arch.name,
        cycles=timeline.end,
        seconds=timeline.end / arch.clock_hz,
        energy_joules=total,
        instructions=program.instruction_count,
        macs=sum(layer.macs for layer in timeline.layers.values()),
        batch=batch,
        steps=timeline.steps,
        layers=tuple(rows),
        notes=notes,
    )


def _breakdown(timeline: Timeline) -> dict[str, float]:
    events = Counter[str]()
    for layer in timeline.layers.values():
        events.update(layer.events)
    return breakdown(events, timeline.end / timeline.arch.clock_hz, timeline.arch)
