"""Costs of a whole run: time from the schedule, energy and operations from what is executed how often."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

import numpy as np

from backends.cim.arch import Architecture
from backends.cim.clock.costs import Cost, cost
from backends.cim.clock.reloading import reloading
from backends.cim.clock.timing import Schedule, rounds, schedule
from backends.cim.program.decode import Item, cores, decode, walk
from isa import Program
from ssmc.target import LayerStats, Stats

Place = tuple[int, int]  # core, index of an instruction

# What the energy of an instruction is spent on, beside its conversions and its fetch; of the others, on vectors.
SPENT_ON = {
    "mvm": "arrays",
    **dict.fromkeys(("charge", "dstate", "sel", "rounded", "rounded.sums", "preset", "read", "spike"), "states"),
    **dict.fromkeys(("send", "emit", "keep", "fetch"), "messages"),
}
DIGITAL = ("dstate", "sel", "spike", "rounded", "rounded.sums")
EVENT = ("event_joules", "event_instructions", "event_macs")
NUDGED = 1 + 2.0**-40  # viewers cut times to whole ns, and 1.13 us is a little less than 1130: slices would overlap
CONTROL = -1  # the layer, so to say, of instructions that serve all


@dataclass
class _Layer:
    cycles: float = 0.0
    picojoules: float = 0.0
    cores: set[int] = field(default_factory=set)


def executed(
    items: tuple[Item, ...], steps: int, times: int = 1, swept: bool = False
) -> Iterator[tuple[Item, int, bool]]:
    """Every instruction with how often it runs in one sequence of `steps`, and whether that is in a sweep over them."""
    for item in items:
        yield item, times, swept
        if item.body:
            yield from executed(item.body, steps, rounds(item, steps), True)


@dataclass
class _Bill:
    """What the instructions of a run take, added up."""

    layers: dict[int, _Layer] = field(default_factory=lambda: defaultdict(_Layer))
    spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # pJ, by what it is spent on
    instructions: int = 0
    macs: int = 0
    no_adc: int = 0  # conversions that analog lines spare
    no_dac: int = 0
    event: dict[str, float] = field(default_factory=lambda: dict.fromkeys(EVENT, 0.0))  # what sweeps take of one event

    def add(self, core: int, item: Item, one: Cost, arch: Architecture, often: int) -> None:
        """An instruction of a core that runs so often in all."""
        adc, dac = one.conversions * arch.energy.adc, one.drives * arch.energy.dac
        parts = {"adc": adc, "dac": dac, "control": arch.energy.control}
        kind = SPENT_ON.get(item.code.mnemonic, "vectors")
        for name, part in (parts | {kind: one.picojoules - sum(parts.values())}).items():
            self.spent[name] += part * often
        self.no_adc += one.spared[0] * often
        self.no_dac += one.spared[1] * often
        self.instructions += often
        self.macs += one.macs * often
        layer = self.layers[CONTROL if item.loc is None else item.loc]
        layer.cycles += one.cycles * often
        layer.picojoules += one.picojoules * often
        layer.cores.add(core)

    def add_event(self, one: Cost, often: float) -> None:
        """An instruction that runs so often for one event."""
        for name, part in zip(EVENT, (1e-12 * one.picojoules, 1, one.macs), strict=True):
            self.event[name] += part * often


def _billed(program: Program, arch: Architecture, batch: int, steps: int) -> _Bill:
    """What all instructions of a run take, words that go through the mesh included."""
    bill = _Bill()
    for core, section in cores(program).items():
        for item, times, swept in executed(decode(section), steps):
            one = cost(item, arch, program.data)
            if item.code.mnemonic == "send":
                hops = max(arch.hops(core, item.integer("core")) - 1, 0)
                far = hops * item.integer("words") * arch.energy.mesh_word_hop
                one = replace(one, picojoules=one.picojoules + far)
            bill.add(core, item, one, arch, times * batch)
            if swept and steps:
                bill.add_event(one, times / steps)
    return bill


def statistics(
    program: Program,
    arch: Architecture,
    batch: int,
    steps: int,
    counts: Mapping[tuple[int | None, str], int],
    passed: Mapping[Place, float],
) -> tuple[Stats, Schedule]:
    """Stats of a run of `batch` samples one after another, and the schedule of one of them. `passed` are elapsed times
    in all, of a sample on average, by the instruction that took them."""
    timing, bill = schedule(program, arch, steps), _billed(program, arch, batch, steps)
    cycles = timing.cycles * batch
    seconds = cycles / arch.vector.clock_hertz
    bill.spent["idle"] = idle_watts(program, arch) * seconds * 1e12
    found = tuple(_layer_stats(program, arch, loc, layer, cycles) for loc, layer in sorted(bill.layers.items()))
    stats = Stats(
        target=program.target,
        arch=arch.name,
        cycles=cycles,
        seconds=seconds,
        energy_joules=sum(bill.spent.values()) * 1e-12,
        instructions=bill.instructions,
        macs=bill.macs,
        batch=batch,
        steps=steps,
        layers=found,
        notes=bill.event | _notes(program, arch, timing, bill, counts, steps, passed),
    )
    return stats, timing


def idle_watts(program: Program, arch: Architecture) -> float:
    """Of the cores that are powered, and of the digital states that they keep."""
    found = cores(program)
    if not arch.energy.digital_keep_watts:
        return len(found) * arch.energy.core_idle_watts
    items = (item for section in found.values() for item in walk(decode(section)))
    words = sum(item.integer("words") for item in items if item.code.mnemonic in DIGITAL)
    return len(found) * arch.energy.core_idle_watts + words * arch.energy.digital_keep_watts


def _layer_stats(program: Program, arch: Architecture, loc: int, layer: _Layer, cycles: int) -> LayerStats:
    """`utilization` is the part of the run during which the layer's cores work for it."""
    source = None if loc == CONTROL else program.locs[loc]
    name, op, nodes = (source.layer, source.op, tuple(source.onnx_nodes)) if source else ("control", "control", ())
    return LayerStats(
        name=name,
        onnx_nodes=nodes,
        op=op,
        cycles=ceil(layer.cycles),
        seconds=layer.cycles / arch.vector.clock_hertz,
        energy_joules=layer.picojoules * 1e-12,
        utilization=layer.cycles / (cycles * len(layer.cores)) if cycles else None,
    )


def smallest_tau(program: Program, arch: Architecture) -> float | None:
    """The shortest time constant of the volatile states, s; None where there are none."""
    fastest = 0.0  # of a second
    for section in program.sections:
        for code in section.code:
            if code.mnemonic == "charge":
                rates = np.abs(program.data[str(code["rates"])])
                fastest = max(fastest, float(rates.max(initial=0.0)) / arch.time.unit(timed=bool(code["timed"])))
    return 1.0 / fastest if fastest else None


def latency_warning(program: Program, arch: Architecture, timing: Schedule) -> str:
    """What to say where an event's way through the program is long against the shortest time constant, else nothing."""
    tau, latency = smallest_tau(program, arch), timing.latency / arch.vector.clock_hertz
    if tau is None or latency <= arch.timing.latency_share * tau:
        return ""
    return (
        f"an event takes {latency:.3g} s through the program, and states decay meanwhile: "
        f"the smallest time constant is {tau:.3g} s"
    )


def real_seconds(program: Program, arch: Architecture, steps: int, passed: Mapping[Place, float]) -> float | None:
    """Time of a sequence, which nothing can hurry: a sweep lasts as long as the times that its events bring, and as the
    steps of states that decay by themselves; None where there are neither."""
    seconds = []
    for number, section in cores(program).items():
        lasted = []
        for loop in decode(section):
            items = list(walk(loop.body))
            timed = [passed.get((number, item.index), 0.0) for item in items if item.timed]
            decays = any(item.code.mnemonic == "charge" and not item.timed for item in items)
            times = max(timed, default=0.0) * arch.time.unit(timed=True)
            lasted.append(max(times, steps * arch.time.step_seconds if decays else 0.0))
        seconds.append(sum(lasted))
    return max(seconds, default=0.0) or None


def _notes(
    program: Program,
    arch: Architecture,
    timing: Schedule,
    bill: _Bill,
    counts: Mapping[tuple[int | None, str], int],
    steps: int,
    passed: Mapping[Place, float],
) -> dict[str, Any]:
    clock = arch.vector.clock_hertz
    latency = timing.latency / clock
    notes: dict[str, Any] = {
        "event_latency_seconds": latency,
        "event_interval_seconds": timing.interval / clock,
        "breakdown_joules": {name: part * 1e-12 for name, part in sorted(bill.spent.items())},
        "idle_joules": bill.spent["idle"] * 1e-12,
        "idle_watts": idle_watts(program, arch),
        "programming_joules": _programming(program, arch),
    }
    notes |= reloading(program, arch)
    if bill.no_adc or bill.no_dac:
        spared = bill.no_adc * (arch.energy.adc + arch.energy.vector_word) + bill.no_dac * arch.energy.dac
        notes["conversions spared"] = {"ADC": bill.no_adc, "DAC": bill.no_dac}
        notes["conversions_spared_joules"] = spared * 1e-12
    if (real := real_seconds(program, arch, steps, passed)) is not None:
        notes |= {"real_seconds_per_sequence": real, "real_idle_joules_per_sequence": notes["idle_watts"] * real}
    tau = smallest_tau(program, arch)
    if tau is not None:
        notes["smallest_tau_seconds"] = tau
        notes["latency_over_smallest_tau"] = latency / tau
        if warning := latency_warning(program, arch, timing):
            notes["warning"] = warning
    by_layer: dict[str, Counter[str]] = defaultdict(Counter)
    for (loc, what), number in counts.items():
        by_layer[what][program.locs[loc].layer if loc is not None else "?"] += number
    return notes | {what: dict(sorted(found.items())) for what, found in sorted(by_layer.items())}


def _programming(program: Program, arch: Architecture) -> float:
    """Energy of writing all weights once, J."""
    sections = cores(program, ".setup").values()
    items = (item for section in sections for item in decode(section))
    return sum(cost(item, arch, program.data).picojoules for item in items) * 1e-12


def trace(program: Program, arch: Architecture, timing: Schedule) -> tuple[Mapping[str, Any], ...]:
    """Chrome trace events of one sequence up to its first step: a row a core, microseconds."""
    scale = 1e6 / arch.vector.clock_hertz * NUDGED
    names = ((core, {"name": f"core{core}"}) for core in sorted({busy.core for busy in timing.first}))
    events = [{"name": "process_name", "ph": "M", "pid": 0, "tid": 0, "args": {"name": f"cim ({arch.name})"}}]
    events += [{"name": "thread_name", "ph": "M", "pid": 0, "tid": core, "args": name} for core, name in names]
    for busy in timing.first:
        source = program.locs[busy.loc].layer if busy.loc is not None else ""
        events.append(
            {
                "name": busy.mnemonic,
                "cat": source or "control",
                "ph": "X",
                "ts": busy.start * scale,
                "dur": busy.cycles * scale,
                "pid": 0,
                "tid": busy.core,
                "args": {"layer": source, "instruction": busy.index},
            }
        )
    return tuple(events)
