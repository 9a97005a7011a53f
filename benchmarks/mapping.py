"""`python -m benchmarks.mapping`: the published networks on the crossbar chip; writes docs/mapping.md."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import samples
from backends.cim.backend import BACKEND
from backends.cim.clock.reloading import reloading
from backends.cim.clock.statistics import smallest_tau
from backends.cim.clock.timing import schedule
from benchmarks.models.event_ssm import NETWORKS, Network, build, parameters
from ssmc.diagnostics import UserError
from ssmc.driver import compile_model
from ssmc.ir import Graph
from ssmc.passes import Context, PassManager
from ssmc.passes.placement import homes_of, hops, traffic

PAGE = Path(__file__).parent.parent / "docs" / "mapping.md"
VOLATILE = "choose-banks{banks=volatile}"  # as on the published chip
PIPELINE = (
    f"{VOLATILE},fold-constants,fold-norms,discretize,diagonalize,halve-conjugates,tile,map-weights,couple,schedule"
)
ALLOWED = 1.05
EVENTS = 64
COPIES = 4
SEEDS = 10  # sets of devices and of noise


@dataclass(frozen=True)
class Row:
    """One network with one or two devices a weight."""

    name: str
    devices: int
    parameters: int
    published: int
    apart: int  # arrays, each matrix by itself
    least: int
    used: int
    cores: int
    hops: float  # words times hops of a step, over those of cores in the order in which they were filled
    latency: float  # s, of one event
    tau: float | None  # s, the shortest
    interval: float  # s, from one event to the next
    copied: float  # s, where arrays may be there several times


def measure(name: str, network: Network, devices: int) -> Row:
    """Compile it for `cim-large` with so many devices a weight."""
    arch = BACKEND.load_arch("cim-large")
    arch = arch.model_copy(update={"crossbar": arch.crossbar.model_copy(update={"devices_per_weight": devices})})
    machine = BACKEND.machine(arch, ideal=True)
    graph = PassManager(PIPELINE, validate=False).run(build(network), Context(machine, ideal=True))
    pieces = [piece for node in graph.nodes("tile.matmul") for piece in node.op["pieces"]]
    weights = sum((p.k1 - p.k0) * (p.n1 - p.n0) for p in pieces)
    per_core = arch.crossbar.per_core
    used = {piece.unit for piece in pieces}
    program = BACKEND.lower(graph, arch, ideal=True)
    timing = schedule(program, arch, EVENTS)
    several = arch.model_copy(update={"mesh": arch.mesh.model_copy(update={"copies": COPIES})})
    copied = schedule(BACKEND.lower(graph, several, ideal=True), several, EVENTS).interval
    return Row(
        name,
        devices,
        parameters(network),
        network.parameters,
        len(pieces),
        ceil(weights / (arch.crossbar.rows * arch.weight_cols)),
        len(used),
        len({unit // per_core for unit in used}),
        _hops(graph, per_core, arch.mesh_width),
        timing.latency / arch.vector.clock_hertz,
        smallest_tau(program, arch),
        timing.interval / arch.vector.clock_hertz,
        copied / arch.vector.clock_hertz,
    )


def _hops(graph: Graph, per_core: int, width: int) -> float:
    units = {node.name: [p.unit for p in node.op["pieces"]] for node in graph.nodes("tile.matmul")}
    words = traffic(graph, homes_of(graph, units, per_core), units, per_core)
    order = {core: i for i, core in enumerate(sorted({unit // per_core for group in units.values() for unit in group}))}
    placed = sum(w * hops(a, b, width) for (a, b), w in words.items())
    rows = sum(w * hops(order[a], order[b], width) for (a, b), w in words.items())
    return placed / rows if rows else 1.0


@dataclass(frozen=True)
class Multiplexed:
    """A network on the published chip of four arrays: sweeps of a sequence, and what writing the arrays again takes,
    for the sequence or (were each event to be answered) for an event; what was in its way, if it does not fit."""

    name: str
    sweeps: int
    joules: float
    seconds: float
    misfit: str = ""


def multiplexed(name: str, network: Network) -> Multiplexed:
    """Compile it for `cim-published`, rounded weights and all."""
    arch = BACKEND.load_arch("cim-published")
    machine = BACKEND.machine(arch, ideal=False)
    try:
        passes = f"{VOLATILE},{BACKEND.pipeline(arch, ideal=False)}"
        placed = PassManager(passes, validate=False).run(build(network), Context(machine))
        program = BACKEND.lower(placed, arch, ideal=False)
    except UserError as error:
        return Multiplexed(name, 0, 0.0, 0.0, f"{error.what}: {error.why}")
    notes = reloading(program, arch)
    return Multiplexed(
        name,
        int(notes["sweeps_per_sequence"]),
        float(notes["reprogramming_joules_per_sequence"]),
        float(notes["reprogramming_seconds_per_sequence"]),
    )


@dataclass(frozen=True)
class OnChip:
    """A sample on a chip, per sequence; `banks` is where the states of its layers lie."""

    sample: str
    arch: str
    banks: str
    reference: float
    accuracy: float
    sweeps: int
    seconds: float
    joules: float
    rewriting: float  # J of it


def on_chip(name: str, arch: str) -> list[OnChip]:
    """The sample's whole test set, realistic, calibrated: banks as chosen, and all volatile where that differs."""
    sample = samples.load(name)
    found: list[OnChip] = []
    for passes in ("default", f"{VOLATILE},default"):
        chip = sample.arch("cim", arch)
        program = compile_model(sample.model_path, "cim", arch=chip, calibration=sample.calibration, passes=passes)
        assert program.compilation is not None
        banks = told_banks(Counter(row.bank for row in program.compilation.context.banks if row.chosen))
        if any(row.banks == banks for row in found):
            continue
        results = [program.run(sample.test, seed=seed) for seed in range(SEEDS)]
        stats = results[0].stats
        assert stats.seconds is not None and stats.energy_joules is not None
        row = OnChip(
            name,
            arch,
            banks,
            float(sample.metadata["onnxruntime_accuracy"]),
            sum(sample.accuracy(result.outputs) for result in results) / SEEDS,
            int(stats.notes.get("sweeps_per_sequence", 1)),
            stats.seconds / stats.batch,
            stats.energy_joules / stats.batch,
            float(stats.notes.get("reprogramming_joules_per_sequence", 0.0)),
        )
        found.append(row)
    return found


def told_banks(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))


def page(rows: list[Row], small: list[Multiplexed], chips: list[OnChip]) -> str:
    """The tables as Markdown."""
    lines = [
        "# The published networks on the crossbar chip",
        "",
        "Written by `python -m benchmarks.mapping`: the four networks of arXiv 2511.13912 with random weights at full",
        "size, compiled for `cim-large` (64 x 64 arrays, 32 a core). 'Apart' is how many arrays there were with each",
        "matrix by itself, 'least' the weights over what an array holds. Traffic is words times hops, over those of",
        "cores that stand in the order in which they were filled. Latency is that of one event through the program;",
        f"events may come as often as said, and with up to {COPIES} copies of a layer's arrays as said last. Columns",
        "charge state nodes and these drive rows without conversions where the arrays around them fit a core.",
        "",
        "| network | devices a weight | parameters (published) | apart | least | used | ratio | cores "
        "| traffic | latency of an event | smallest tau | an event every | with copies |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        tau = "-" if row.tau is None else f"{1e3 * row.tau:.2f} ms"
        lines.append(
            f"| {row.name} | {row.devices} | {row.parameters} ({row.published}) | {row.apart} | {row.least} "
            f"| {row.used} | {row.used / row.least:.3f} | {row.cores} | {row.hops:.2f} "
            f"| {1e6 * row.latency:.1f} us | {tau} | {1e6 * row.interval:.2f} us | {1e6 * row.copied:.2f} us |"
        )
    return "\n".join([*lines, *_small(small), *_chips(chips)]) + "\n"


def _small(small: list[Multiplexed]) -> list[str]:
    lines = [
        "",
        "## On the published chip",
        "",
        "Four 64 x 64 arrays hold none of them: each sequence is swept several times, and all arrays are written again",
        "in between. That is the price of a sequence; a system that must answer every event before the next one comes",
        "would pay it for every event. Ten pulses of 1 us a row and 100 pJ a device are our figures, the published are",
        "not known to us; states take real time in each sweep, so that the sequence is recorded and replayed.",
        "",
        "| network | sweeps | rewriting, a sequence (or an event) | takes |",
        "|---|---|---|---|",
    ]
    for row in small:
        told = f"{row.sweeps} | {1e6 * row.joules:.1f} uJ | {1e3 * row.seconds:.1f} ms"
        lines.append(f"| {row.name} | {told if not row.misfit else f'- | {row.misfit} | -'} |")
    return lines


def _chips(chips: list[OnChip]) -> list[str]:
    lines = [
        "",
        "## The samples on the packaged chips",
        "",
        f"Whole test sets, calibrated, with each chip's own devices, mean of {SEEDS} seeds; time and energy of a",
        "sequence, rewriting included. Banks of states (or of their parts, where a layer is cut) are chosen by energy",
        "and error (`--explain` shows why); where that is not the volatile bank for all that it can hold, the next",
        "row has the same with `choose-banks{banks=volatile}`.",
        "",
        "| sample | chip | states in banks | onnxruntime | on the chip | sweeps | time | energy | of it rewriting |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in chips:
        lines.append(
            f"| {row.sample} | {row.arch} | {row.banks} | {100 * row.reference:.1f} % | {100 * row.accuracy:.1f} % "
            f"| {row.sweeps} | {1e3 * row.seconds:.3f} ms | {1e6 * row.joules:.2f} uJ | {1e6 * row.rewriting:.2f} uJ |"
        )
    return lines


def main() -> int:
    """0 where every network keeps within the goal."""
    rows = [measure(name, network, devices) for name, network in NETWORKS.items() for devices in (1, 2)]
    small = [multiplexed(name, network) for name, network in NETWORKS.items()]
    chips = [row for name in samples.names() for arch in BACKEND.architectures() for row in on_chip(name, arch)]
    text = page(rows, small, chips)
    PAGE.write_text(text, encoding="utf-8")
    print(text)
    return 0 if all(row.used <= ALLOWED * row.least and row.parameters == row.published for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
