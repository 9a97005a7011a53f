"""When everything happens: engines with in-order queues, held up by each other's buffers.

Load, store, preload, compute (the array) and vector engines each take instructions in program order, one at a
time. An instruction starts when its engine is free and the buffers that it reads have been written, those that it
writes have been read and written before; an instruction of the array also waits for its preload. The order of the
program is kept between loops over chunks only where buffers demand it: chunks overlap. A sample follows the one
before in the same way; every sample after the second takes as long as the second. Without shadow registers a
preload occupies the array.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from backends.epochcore.arch import Arch
from backends.epochcore.cost import RULES, Context, Cost
from backends.epochcore.energy import breakdown, joules
from backends.epochcore.handover import PASSES, Handover, conflicts
from backends.epochcore.machine import lower_rate
from isa import Instruction, Kind, Program
from isa.epochcore import EPOCHCORE
from ssmc.target import LayerStats, Stats

SIMULATED_SAMPLES = 2
ENGINES = ("load", "preload", "compute", "vector", "store", "drain")
ARRAY = (*PASSES, "state.load", "state.store")


@dataclass
class Layer:
    """What a layer adds up to."""

    cycles: int = 0
    macs: int = 0
    events: Counter[str] = field(default_factory=Counter)
    on_array: bool = False


@dataclass
class Timeline:
    """Engines, buffers and layers while a program is timed."""

    program: Program
    arch: Arch
    steps: int
    bytes_of: Mapping[str, int]
    trace: list[dict[str, Any]] | None
    engines: Counter[str] = field(default_factory=Counter)
    written: Counter[tuple[str, int]] = field(default_factory=Counter)
    read: Counter[tuple[str, int]] = field(default_factory=Counter)
    layers: dict[int | None, Layer] = field(default_factory=dict)
    shadow: Instruction | None = None
    active: Instruction | None = None
    end: int = 0
    issued: int = 0
    handover: Handover | None = None
    index: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.arch.array.handover_steps:
            self.handover = Handover(self.arch, conflicts(self.program, self.steps))
            self.index = {id(ins): n for n, ins in enumerate(self.program.sections[0].code)}

    def issue(self, ins: Instruction, spans: Mapping[str, tuple[int, int]]) -> None:
        """Place one instruction on the time axis."""
        if ins.mnemonic == "preload":
            self.shadow = ins
        elif ins.mnemonic in PASSES and self.shadow is not None:
            self.active, self.shadow = self.shadow, None
        steps = spans[str(ins["steps"])][1] if "steps" in ins.operands else 1
        held = (self.shadow or self.active) if ins.mnemonic == "state.load" else self.active
        cost = RULES[ins.mnemonic](ins, Context(self.arch, steps, held, self.bytes_of, self._on_chip(ins, spans)))
        if self.handover is not None:
            engine, start, finish = self.handover.place(self.index[id(ins)], ins, cost, steps)
            self._account(ins, cost, start, finish, engine)
            return
        engine = "compute" if cost.engine == "preload" and not self.arch.array.shadow else cost.engine
        reads, writes = _places(ins)
        start = self.engines[engine]
        if ins.mnemonic in PASSES:
            start = max(start, self.written["shadow", 0])
        if engine == "preload":
            # the registers are taken over when the array starts with them
            start = max(start, self.read["shadow", 0])
        for place in reads:
            start = max(start, self.written[place])
        for place in writes:
            start = max(start, self.written[place], self.read[place])
        finish = start + cost.cycles
        self.engines[engine] = finish
        for place in reads:
            self.read[place] = max(self.read[place], finish)
        for place in writes:
            self.written[place] = finish
        if ins.mnemonic == "preload":
            self.written["shadow", 0] = finish
        elif ins.mnemonic in ARRAY:
            self.read["shadow", 0] = max(self.read["shadow", 0], start)
        self._account(ins, cost, start, finish, engine)

    def _on_chip(self, ins: Instruction, spans: Mapping[str, tuple[int, int]]) -> int:
        """Steps of a transfer that do not leave the chip: the first ones of a stream between two loops."""
        if ins.mnemonic not in ("load", "store"):
            return 0
        streams: Any = self.program.meta.get("streams", ())
        number = int(ins["src" if ins.mnemonic == "load" else "dst"])
        if number >= len(streams) or ins["steps"] == "one":
            return 0
        first, count = spans[str(ins["steps"])]
        return max(0, min(count, int(streams[number].get("on_chip", 0)) - first))

    def _account(self, ins: Instruction, cost: Cost, start: int, finish: int, engine: str) -> None:
        layer = self.layers.setdefault(ins.loc, Layer())
        layer.cycles += max(0, finish - self.end)
        layer.macs += cost.macs
        layer.events.update(cost.events)
        layer.on_array |= ins.mnemonic in ARRAY
        self.end = max(self.end, finish)
        self.issued += 1
        if self.trace is not None and cost.cycles:
            source = self.program.source(ins)
            name = source.layer if source else ins.mnemonic
            micro = 1e6 / self.arch.clock_hz
            event = {"name": name, "cat": engine, "ph": "X", "ts": start * micro, "dur": cost.cycles * micro}
            tid = ENGINES.index(engine)
            self.trace.append({**event, "pid": 0, "tid": tid, "args": {"instruction": ins.mnemonic}})


def _places(ins: Instruction) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Scratchpad buffers, parameters and streams that an instruction reads and writes, by address."""
    spec = EPOCHCORE.by_mnemonic[ins.mnemonic]
    reads, writes = [], []
    for f in spec.fields:
        if f.kind is not Kind.ADDR:
            continue
        place = (f.space, int(ins[f.name]))
        if f.name in ("dst", "state"):
            writes.append(place)
        if f.name != "dst":
            reads.append(place)
    return reads, writes


def _walk(
    program: Program, steps: int, start: int, end: int
) -> Iterator[tuple[Instruction, dict[str, tuple[int, int]]]]:
    """Instructions in the order in which they are issued for one sample, with the registers' spans."""
    section = program.sections[0]
    spans = {"one": (0, 1), "n0": (0, 0)}
    index = start
    while index < end:
        ins = section.code[index]
        if ins.mnemonic == "chunks":
            stop, limit = section.labels[str(ins["end"])], int(ins["limit"])
            starts = range(0, steps, limit)
            for first in reversed(starts) if ins["backward"] else starts:
                spans["n0"] = (first, min(limit, steps - first))
                for inner in section.code[index + 1 : stop]:
                    if inner.mnemonic == "rate":
                        begin, n = spans[str(inner["src"])]
                        low = lower_rate(inner, begin)
                        spans[str(inner["dst"])] = (low, lower_rate(inner, begin + n) - low)
                    else:
                        yield inner, spans
            index = stop
            continue
        if ins.mnemonic not in ("halt", "samples"):
            yield ins, spans
        index += 1


def measure(
    program: Program,
    arch: Arch,
    batch: int,
    steps: int,
    *,
    trace: bool = False,
) -> tuple[Stats, tuple[Mapping[str, Any], ...]]:
    """Cycles, seconds and energy of a run of `batch` sequences of `steps` steps, and its trace.

    Layers' cycles are what each adds to the length of the run: they sum up to it, as energies do.
    """
    if trace:
        names = ((tid, {"name": engine}) for tid, engine in enumerate(ENGINES))
        events = [{"name": "thread_name", "ph": "M", "pid": 0, "tid": tid, "args": name} for tid, name in names]
        timeline = _time(program, arch, batch, steps, events)
    else:
        events, timeline = [], _time(program, arch, batch, steps, None)
    return _stats(timeline, batch), tuple(events)


def _time(program: Program, arch: Arch, batch: int, steps: int, events: list[dict[str, Any]] | None) -> Timeline:
    """A run on the time axis: two samples, and what further ones add."""
    section = program.sections[0]
    bytes_of = {name: array.size * min(array.itemsize, 4) for name, array in program.data.items()}
    timeline = Timeline(program, arch, steps, bytes_of, events)
    first, last = _sample_body(program)
    for ins, spans in _walk(program, steps, 0, first):
        timeline.issue(ins, spans)
    for sample in range(min(batch, SIMULATED_SAMPLES)):
        before = {loc: Layer(x.cycles, x.macs, Counter(x.events), x.on_array) for loc, x in timeline.layers.items()}
        end, issued = timeline.end, timeline.issued
        for ins, spans in _walk(program, steps, first, last):
            timeline.issue(ins, spans)
        if sample == SIMULATED_SAMPLES - 1:
            _repeat(timeline, before, end, issued, batch - SIMULATED_SAMPLES)
        timeline.trace = None if sample == 0 else timeline.trace
    for ins, spans in _walk(program, steps, last, len(section.code)):
        timeline.issue(ins, spans)
    return timeline


def _sample_body(program: Program) -> tuple[int, int]:
    """The code between `samples` and its label; all of it where there is none."""
    section = program.sections[0]
    for index, ins in enumerate(section.code):
        if ins.mnemonic == "samples":
            return index + 1, section.labels[str(ins["end"])]
    return 0, len(section.code)


def _repeat(timeline: Timeline, before: Mapping[int | None, Layer], end: int, issued: int, more: int) -> None:
    """What the last sample added, `more` times over."""
    for loc, layer in timeline.layers.items():
        old = before.get(loc, Layer())
        layer.cycles += more * (layer.cycles - old.cycles)
        layer.macs += more * (layer.macs - old.macs)
        for key in layer.events:
            layer.events[key] += more * (layer.events[key] - old.events[key])
    shift = more * (timeline.end - end)
    timeline.end += shift
    for engine in timeline.engines:
        timeline.engines[engine] += shift
    timeline.issued += more * (timeline.issued - issued)


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
