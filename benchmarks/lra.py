"""`python -m benchmarks.lra`: Long Range Arena on EpochCore and on a plain array, beside the paper's claims.

Compiles the twelve models at full size, times the programs, and compares with lower bounds and with the forms in which
a plain array of the same size would run the state-space layers. Weights at random have no accuracy: that of number
formats is measured on the trained samples. Writes docs/lra.md, its plot and, asked for, JSON.
"""

from __future__ import annotations

import gc
import json
import time
from dataclasses import asdict, dataclass, replace
from math import exp, inf, log
from pathlib import Path
from typing import Any

import click

import samples
from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch
from backends.epochcore.clock.energy import mac_prices
from backends.epochcore.clock.timing import measure
from backends.epochcore.lower.compile import compared
from benchmarks import formats as number_formats
from benchmarks.bounds import Form, bound, forms, headline, recurrent
from benchmarks.models.lra import MODELS, Model, systems_alone, whole
from ssmc import heatmap
from ssmc.diagnostics import UserError
from ssmc.ir import Graph
from ssmc.passes import Context, PassManager
from ssmc.target import Stats

DOCS = Path(__file__).parent.parent / "docs"
CLAIM_TIME, CLAIM_ENERGY = 250, 45  # arXiv 2507.21394, abstract: over a TPU-like array, on Long Range Arena
SYSTEMS_GOAL, WHOLE_GOAL = 1.05, 1.10
TIMINGS = 3


ACCURACY = """\
The trained samples on `epochcore-128`, whole test sets, in percent; **bold** is within half a point of onnxruntime.
Every format, and each width by itself: [formats.md](formats.md)."""
SHORT = """\
## What falls short

- 320 channels (Liquid-S4 Path-X) are two and a half times 128: a product over 320 words takes three passes, the last
  of them with half of the rows, which the bound counts. Of the columns nothing idles: layers, and matrices, that read
  the same stream have the rests of their columns in one pass.
- Where one loop over time turns into the next, the array waits for the first states and streams of that; most of what
  is above the bound.
- The column "mat-vec" is a closed form: the compiler has this form, too (`--explain` shows it), and leaves it untimed
  where its bound is above another form's cycles, as it is here. So are convolutions with kernels that do not end. All
  else of the plain array is compiled and timed.
"""


@dataclass(frozen=True)
class Row:
    """One model in one number format. Cycles of a batch of one; energies in joules."""

    model: str
    numbers: str
    compile_seconds: float
    timing_seconds: float
    systems_cycles: int
    systems_bound: float
    systems_limit: str
    systems_joules: float
    whole_cycles: int
    whole_bound: float
    whole_limit: str
    whole_joules: float
    recurrent_cycles: int
    recurrent_joules: float
    headline_cycles: int
    plain_form: str
    plain_cycles: int
    plain_joules: float
    plain_whole_cycles: int
    plain_whole_joules: float
    plain_compile_seconds: float
    plain_timing_seconds: float

    @property
    def systems_ratio(self) -> float:
        return self.systems_cycles / self.systems_bound

    @property
    def whole_ratio(self) -> float:
        return self.whole_cycles / self.whole_bound

    @property
    def dense_cycles(self) -> int:
        return max(0, self.whole_cycles - self.systems_cycles)

    @property
    def whole_slowdown(self) -> float:
        """End to end, of one mat-vec a step: what is not the systems takes as long on both."""
        return (self.dense_cycles + self.recurrent_cycles) / self.whole_cycles

    @property
    def whole_speedup(self) -> float:
        """End to end over the plain array: the less of what the program compiled for it takes, and of its best forms by
        themselves with the dense layers as here."""
        return min(self.plain_whole_cycles, self.dense_cycles + self.plain_cycles) / self.whole_cycles

    @property
    def dense_joules(self) -> float:
        return max(0.0, self.whole_joules - self.systems_joules)


def compiled(graph: Graph, arch: Arch, length: int, *, ideal: bool) -> tuple[Stats, float, float]:
    """Costs of the program, seconds to compile it, and to time it (the least of some runs, as these are short)."""
    start = time.perf_counter()
    manager = PassManager(f"{BACKEND.pipeline(arch, ideal=ideal)}{{steps={length}}}", validate=False)
    tiled = manager.run(graph, Context(machine=BACKEND.machine(arch, ideal=ideal), ideal=ideal))
    program = BACKEND.lower(tiled, arch, ideal=ideal)
    seconds = time.perf_counter() - start
    gc.collect()  # what other rows have left is not this row's to clear away
    timing = inf
    for _ in range(TIMINGS):
        start = time.perf_counter()
        stats, _ = measure(program, arch, 1, length)
        timing = min(timing, time.perf_counter() - start)
    return stats, seconds, timing


def row(m: Model, ours: Arch, plain: Arch, *, ideal: bool) -> Row:
    """Everything about one model."""
    entire, seconds, timing = compiled(whole(m), ours, m.length, ideal=ideal)
    systems, _, _ = compiled(systems_alone(m), ours, m.length, ideal=ideal)
    size = 4 if ideal else 1
    floor, whole_floor = (bound(m, ours, dense=dense, weight_bytes=size) for dense in (False, True))
    best, best_joules = _best(m, plain, ideal=ideal)
    other, plain_seconds, plain_timing = compiled(whole(m), plain, m.length, ideal=ideal)
    slow = recurrent(m, plain)
    return Row(
        m.name,
        "float32" if ideal else f"{ours.numbers.weight_bits}-bit weights, {ours.numbers.state_bits}-bit states",
        seconds,
        timing,
        systems.cycles or 0,
        floor.cycles,
        floor.what,
        systems.energy_joules or 0.0,
        entire.cycles or 0,
        whole_floor.cycles,
        whole_floor.what,
        entire.energy_joules or 0.0,
        slow.cycles,
        _joules(slow, plain, ideal=ideal),
        headline(m, plain).cycles,
        best.name,
        best.cycles,
        best_joules,
        other.cycles or 0,
        other.energy_joules or 0.0,
        plain_seconds,
        plain_timing,
    )


def _best(m: Model, plain: Arch, *, ideal: bool) -> tuple[Form, float]:
    """The fastest form of the plain array: what the compiler takes for a layer, or a product that it does not know."""
    one = replace(m, layers=1, bidirectional=False)
    passes = m.layers * m.directions
    # a liquid system is no convolution, nor one matrix: its decay follows the input
    found = [] if m.liquid else [(form, _joules(form, plain, ideal=ideal)) for form in forms(m, plain)]
    for name, cycles, joules in _compiled_forms(one, plain, ideal=ideal):
        found.append((Form(name, cycles * passes, 0), joules * passes))
    return min(found, key=lambda pair: pair[0].cycles)


def _compiled_forms(one: Model, plain: Arch, *, ideal: bool) -> list[tuple[str, int, float]]:
    """Name, cycles and joules of the forms of one layer, those that were compiled and timed."""
    pipeline = f"{BACKEND.pipeline(plain, ideal=ideal)}{{steps={one.length}}}"
    context = Context(machine=BACKEND.machine(plain, ideal=ideal), ideal=ideal)
    tiled = PassManager(pipeline, validate=False).run(systems_alone(one), context)
    (found,) = compared(tiled, plain, ideal=ideal).values()
    return [(str(a.form), a.cycles, a.joules) for a in found if a.cycles is not None and a.joules is not None]


def _joules(form: Form, arch: Arch, *, ideal: bool) -> float:
    """Multiply-accumulates, a word in and out of the scratchpad for every row and column they fill, static power."""
    e, words = arch.energy, 2 * form.macs / min(arch.array.rows, arch.array.cols)
    mac, _ = mac_prices(arch, ideal=ideal)
    return form.macs * mac + words * e.scratchpad_joules + e.static_watts * form.cycles / arch.clock_hz


def mean(values: list[float]) -> float:
    """The geometric mean."""
    return exp(sum(map(log, values)) / len(values))


SYSTEMS = ("model", "cycles", "bound", "over bound", "mat-vec", "same folds", "best plain form", "speed-up", "energy")
WHOLE = (
    "model",
    "cycles",
    "bound",
    "over bound",
    "dense share",
    "mat-vec",
    "speed-up",
    "energy",
    "µJ",
    "compile s",
    "timing s",
    "plain: compile s, timing s",
)


def systems_cells(r: Row) -> list[str]:
    energy = r.recurrent_joules / r.systems_joules
    return [
        r.model,
        f"{r.systems_cycles:,}",
        f"{r.systems_bound:,.0f} ({r.systems_limit})",
        f"{r.systems_ratio:.3f}",
        f"{r.recurrent_cycles / r.systems_cycles:,.0f} x",
        f"{r.headline_cycles / r.systems_cycles:,.0f} x",
        r.plain_form,
        f"{r.plain_cycles / r.systems_cycles:,.1f} x",
        f"{energy:,.1f} x, {r.plain_joules / r.systems_joules:,.1f} x",
    ]


def whole_cells(r: Row) -> list[str]:
    return [
        r.model,
        f"{r.whole_cycles:,}",
        f"{r.whole_bound:,.0f} ({r.whole_limit})",
        f"{r.whole_ratio:.3f}",
        f"{100 * r.dense_cycles / r.whole_cycles:.0f} %",
        f"{r.whole_slowdown:,.0f} x",
        f"{r.whole_speedup:,.1f} x",
        f"{(r.dense_joules + r.recurrent_joules) / r.whole_joules:,.1f} x, "
        f"{r.plain_whole_joules / r.whole_joules:,.1f} x",
        f"{1e6 * r.whole_joules:,.0f}",
        f"{r.compile_seconds:.2f}",
        f"{r.timing_seconds:.3f}",
        f"{r.plain_compile_seconds:.2f}, {r.plain_timing_seconds:.3f}",
    ]


def area(ours: Arch) -> float:
    """Multipliers of an element over those of a plain one: 8 for a complex state (a x: 4, b u: 2, Re c x: 2), and
    what wires for more than a word a column take."""
    wires = (ours.array.column_words - 1) * ours.array.column_word_area
    return (8.0 if ours.array.complex == "native" else 2.0) + wires


def page(rows: list[Row], accuracy: list[str], ours: Arch, plain: Arch) -> str:
    """docs/lra.md; `accuracy` is what is told of number formats."""
    lines = [
        "# Long Range Arena on EpochCore",
        "",
        f"Written by `python -m benchmarks.lra`: `{ours.name}` beside `{plain.name}`, batch 1, full size, weights at",
        "random. Cycles are those of compiled programs in the timing model of the simulator, also for the plain",
        "array's forms (a layer by itself, times layers and directions); bounds, one mat-vec a step and a kernel as",
        "long as the sequence are closed forms (`benchmarks/bounds.py`). Seconds are those of compiling and of timing",
        f"the whole model (the least of {TIMINGS} timings), last for the plain array; the clock's machine code is",
        "there already, as it is from the first program on that a machine compiles.",
        "",
        "![cycles over the bound](lra.png)",
    ]
    for numbers in dict.fromkeys(r.numbers for r in rows):
        some = [r for r in rows if r.numbers == numbers]
        lines += ["", f"## {numbers}", "", "State-space layers alone:", "", *_table(SYSTEMS, map(systems_cells, some))]
        lines += ["", "End to end:", "", *_table(WHOLE, map(whole_cells, some)), "", *told(some, ours)]
    lines += ["", "## Accuracy by number format", "", ACCURACY, "", *accuracy]
    return "\n".join([*lines, "", SHORT])


def _table(head: tuple[str, ...], rows: Any) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows)]


def told(rows: list[Row], ours: Arch) -> list[str]:
    """Where these numbers and the paper's claims differ, and why."""
    slow = mean([r.recurrent_cycles / r.systems_cycles for r in rows])
    same = mean([r.headline_cycles / r.systems_cycles for r in rows])
    best = mean([r.plain_cycles / r.systems_cycles for r in rows])
    end, end_slow = (mean([getattr(r, name) for r in rows]) for name in ("whole_speedup", "whole_slowdown"))
    energy = mean([r.recurrent_joules / r.systems_joules for r in rows])
    energy_best = mean([r.plain_joules / r.systems_joules for r in rows])
    energy_end = mean([r.plain_whole_joules / r.whole_joules for r in rows])
    near = sum(r.systems_ratio <= SYSTEMS_GOAL for r in rows)
    near_whole = sum(r.whole_ratio <= WHOLE_GOAL for r in rows)
    fill = ours.array.rows + ours.array.cols - 1
    return [
        f"- Against one mat-vec a step the layers are {slow:,.0f} times faster (geometric mean; paper: ~{CLAIM_TIME}).",
        f"  Of that {same:,.0f} is the fill and drain, {fill} cycles, that the plain array pays at every step where",
        "  it folds as we do: so we read the paper's number. The rest is that a dense block of a channel's real states",
        "  fills rows and columns in which a diagonal complex system has one element a state.",
        f"- Against the plain array's best form they are {best:,.1f} times faster, end to end {end:,.1f} times",
        f"  (against one mat-vec a step {end_slow:,.0f} times): dense layers take as long on both, and most of the",
        "  time here. The paper compares with no such form. End to end the plain array is given the less of what the",
        "  program compiled for it takes, and of its best forms by themselves with the dense layers as here.",
        f"- Energy: {energy:,.1f} times less than one mat-vec a step (paper: ~{CLAIM_ENERGY}), and {energy_best:,.1f}",
        "  times less than the best form: static power over a longer time, and the scratchpad where that is a scan.",
        f"  End to end the program compiled for the plain array takes {energy_end:,.1f} times the energy.",
        f"- Area proxy: {area(ours):.3g} multipliers an element where the plain array has one (the paper: about twice",
        "  the area); the paper does not say how it holds complex numbers, ours steps a complex state in one cycle.",
        f"- State-space layers within {SYSTEMS_GOAL} of the bound: {near} of {len(rows)} models; end to end within",
        f"  {WHOLE_GOAL}: {near_whole} of {len(rows)}.",
    ]


def plot(rows: list[Row], path: Path) -> None:
    """Speed-ups and distances from the bound, a group of bars a model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    first = [r for r in rows if r.numbers == rows[-1].numbers]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5))
    places = range(len(first))
    series = {
        "over one mat-vec a step": [r.recurrent_cycles / r.systems_cycles for r in first],
        "over the same folds, drained every step": [r.headline_cycles / r.systems_cycles for r in first],
        "over the best plain form": [r.plain_cycles / r.systems_cycles for r in first],
        "end to end over the best plain form": [r.whole_speedup for r in first],
    }
    for n, (label, values) in enumerate(series.items()):
        left.bar([p + 0.2 * (n - 1.5) for p in places], values, 0.2, label=label)
    left.axhline(CLAIM_TIME, color="black", linestyle=":", label="the paper's claim")
    left.set_yscale("log")
    left.set_ylabel("speed-up")
    ratios = {"state-space layers": [r.systems_ratio for r in first], "end to end": [r.whole_ratio for r in first]}
    for n, (label, values) in enumerate(ratios.items()):
        right.bar([p + 0.4 * (n - 0.5) for p in places], values, 0.4, label=label)
    for goal in (SYSTEMS_GOAL, WHOLE_GOAL):
        right.axhline(goal, color="black", linestyle=":")
    right.set_ylim(0.9, None)
    right.set_ylabel("cycles over the lower bound")
    for axes in (left, right):
        axes.set_xticks(list(places), [r.model for r in first], rotation=60, ha="right")
        axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


@click.command()
@click.option("--arch", default="epochcore-128", help="The array with states in place.")
@click.option("--plain", default="tpu-like-128", help="The array without.")
@click.option("--only", default="", help="Models whose name contains this; nothing is written to docs then.")
@click.option("--json", "as_json", is_flag=True, help="The rows as JSON on stdout.")
def main(arch: str, plain: str, only: str, as_json: bool) -> None:
    """Compile and time the models, print the tables, write docs/lra.md and docs/lra.png."""
    from rich.console import Console
    from rich.table import Table

    try:
        if not only and not as_json:
            heatmap.available()
        ours, theirs = BACKEND.load_arch(arch), BACKEND.load_arch(plain)
    except UserError as error:
        raise click.UsageError(str(error)) from None
    models = [m for m in MODELS if only.lower() in m.name.lower()]
    compiled(whole(models[0]), ours, 1, ideal=True)  # loads the clock's machine code, which a machine makes once
    rows = [row(m, ours, theirs, ideal=ideal) for ideal in (True, False) for m in models]
    if as_json:
        click.echo(json.dumps([asdict(r) for r in rows], indent=2))
        return
    console = Console(width=160)
    for numbers in dict.fromkeys(r.numbers for r in rows):
        some = [r for r in rows if r.numbers == numbers]
        for title, head, cells in (
            ("state-space layers alone", SYSTEMS, systems_cells),
            ("end to end", WHOLE, whole_cells),
        ):
            table = Table(*head, title=f"{title}, {numbers}")
            for r in some:
                table.add_row(*cells(r))
            console.print(table)
        console.print("\n".join(told(some, ours)))
    if not only:
        accuracy = number_formats.summary([number_formats.Runner(name) for name in samples.names()])
        console.print("\n".join([ACCURACY, "", *accuracy]), markup=False)
        (DOCS / "lra.md").write_text(page(rows, accuracy, ours, theirs), encoding="utf-8")
        plot(rows, DOCS / "lra.png")


if __name__ == "__main__":
    main()
