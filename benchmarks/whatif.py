"""`python -m benchmarks.whatif`: what moves when one number of the array changes, and why; writes docs/what-if.md.

Every line says which way it expects cycles and energy to move, and the page is not written where they do not.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click

import samples
from backends.epochcore import BACKEND
from backends.epochcore.arch import load_arch
from backends.epochcore.clock.timing import measure
from benchmarks.models.lra import model as lra_model
from benchmarks.models.lra import whole
from ssmc.driver import compile_model, load_model
from ssmc.frontend import Model
from ssmc.passes import Context, PassManager
from ssmc.passes.schedule import OBJECTIVES

PAGE = Path(__file__).parent.parent / "docs" / "what-if.md"
ARCH, SAMPLE, LARGE = "epochcore-128", "s4d-digits", "S4 Pathfinder"
SAME = 0.005  # what moves by less than half a percent stays


@dataclass(frozen=True)
class Costs:
    """Of one sequence, where `batch` of them come at once."""

    cycles: float
    joules: float


@dataclass(frozen=True)
class Question:
    """`changes` of the architecture, a batch or an objective; whether cycles and joules of the small model and of the
    large one are expected to rise (+), fall (-) or stay (=), and why."""

    changes: str = ""
    moves: str = "= = = ="
    why: str = ""
    batch: int = 1
    objective: str = OBJECTIVES[0]
    plain: bool = False  # not ideal: the architecture's own number format

    @property
    def told(self) -> str:
        asked = [f"batch={self.batch}"] if self.batch > 1 else []
        asked += [f"objective={self.objective}"] if self.objective != OBJECTIVES[0] else []
        return ", ".join(f"`{part}`" for part in (self.changes, *asked) if part) or "as it is"


DEEP = "array.mac_depth=4"
IN_TURN = f"{DEEP},array.states_per_element=4"
WIDE_PORTS = "array.port_words_in=256,array.port_words_out=256"

SIZE = (
    Question(
        "array.rows=64",
        "- - + +",
        "Parameters are shifted in through all rows and results leave at the last one: what is small is faster on a "
        "small array. What is large takes more passes, and partial sums are added between them.",
    ),
    Question("array.rows=256", "+ + + -", "The other way round: 64 states and 256 words fill no more rows than that."),
    Question("array.cols=64", "- - + +", "Half of the channels in a pass, and half of a matrix's columns."),
    Question("array.cols=256", "+ + + -", "Twice as many, but the ports still bring 128 words a cycle."),
    Question(
        f"array.rows=256,array.cols=256,{WIDE_PORTS}",
        "+ + - -",
        "With ports of that width the large model takes half of the passes.",
    ),
)
ELEMENTS = (
    Question(DEEP, "+ + + =", "A state is stepped again after 4 cycles, and nothing fills the three in between."),
    Question(
        IN_TURN,
        "+ + + +",
        "Other states of the element do. Here those are the other direction's channels (`--explain`), which costs "
        "traffic: streams go to memory and back.",
    ),
    Question(IN_TURN, "+ + + =", "Directions stay apart, for that is less energy.", objective="energy"),
    Question(
        f"{DEEP},array.column_words=4",
        "+ + + +",
        "Or other channels do, in rows of their own, where a column hands on several words: the ports bring a word a "
        "column and cycle, which is four channels' in four cycles.",
    ),
    Question("array.complex=ganged", "+ = + =", "Four real elements hold a complex state and take two cycles a step."),
    Question(
        "array.complex=ganged,array.column_words=2",
        "+ = + +",
        "In which two channels of a column are stepped, one below the other.",
    ),
    Question("array.modes=[mac]", "+ + + +", "A plain array: states are scanned or chunked, in products and vectors."),
    Question(
        "array.modes=[mac]", "+ + + +", "Fewer products, and longer: the least energy it can.", objective="energy"
    ),
)
AROUND = (
    Question("array.port_words_in=64,array.port_words_out=64", "+ + + =", "Ports are what binds these models."),
    Question(WIDE_PORTS, "= = = =", "More than a word a column is of no use to 128 columns."),
    Question(
        f"array.column_words=2,{WIDE_PORTS}",
        "= = - +",
        "Unless columns hand on two, at the cost of wires: two channels of 64 states lie below each other in 128 rows.",
    ),
    Question("array.shadow=false", "+ + + =", "Parameters are shifted in while nothing is computed."),
    Question("array.handover_steps=0", "+ = + =", "Engines wait for whole instructions of each other."),
    Question("vector.width=256", "+ = + =", "GELU, gates and norms take four times as long, and no longer hide."),
    Question(
        "dram.bytes_per_second=35e9", "+ = + =", "A tenth of the bandwidth: weights come later than they are used."
    ),
    Question(
        "dram.latency_cycles=1000", "+ + + =", "Paid where nothing is under way: at the beginning, and at the end."
    ),
    Question(
        "memory.stream_words=0",
        "= = + +",
        "Streams between loops over time go to DRAM: a bidirectional model has those.",
    ),
    Question("memory.scratchpad_words=65536", "= = + +", "Chunks of time become short, and all is paid per chunk."),
)
FORMATS = (
    Question("", "= - = -", "8-bit weights, 16-bit vectors and parameters: fewer bytes, cheaper products.", plain=True),
    Question("numbers.format=bfloat16", "= - = -", "Likewise. What it does to accuracy: formats.md.", plain=True),
    Question("numbers.format=float32", "= = = =", "What `--ideal` costs, too.", plain=True),
)
BATCH = (
    Question("", "- - - -", "Filling and draining are paid once, and parameters are fetched once.", batch=4),
    Question("", "- - - -", "", batch=16),
    Question(IN_TURN, "- - - -", "Samples take turns in deep elements: the depth costs nothing.", batch=16),
)
TABLES = {
    "Rows and columns": SIZE,
    "The element": ELEMENTS,
    "Ports, engines, memories": AROUND,
    "Number formats": FORMATS,
    "Batch": BATCH,
}


MODEL = f"samples/{SAMPLE}/model.onnx"
COMMANDS = [
    f"ssmc compile {MODEL} --target epochcore --ideal -o p.ssmx",
    f"ssmc run p.ssmx --input samples/{SAMPLE}/calibration.npz",
    f"ssmc compile {MODEL} --target epochcore --ideal --arch '{ARCH}{{array.rows=64,array.cols=64}}' -o p.ssmx",
    f"ssmc run p.ssmx --input samples/{SAMPLE}/calibration.npz",
]
EXPLAINED = [
    f"ssmc compile {MODEL} --target epochcore --ideal --arch '{ARCH}{{{IN_TURN}}}' -o p.ssmx --explain "
    "--passes 'default,schedule{batch=4,steps=64,objective=edp}'"
]

HEAD = """\
# Asking what if

Written by `python -m benchmarks.whatif`. An architecture is a file (`samples/arch`) whose every number may be
changed, in a copy or in braces; the compiler then schedules for that machine, and the simulator tells cycles and
energy:

```console
{commands}
```

`--passes 'default,schedule{{batch=N}}'` schedules for sequences that come N at a time (a file with a batch of its
own says so itself), `schedule{{objective=energy}}` for the least energy, `edp` for the least product of energy and
time; the default is cycles, of what is within 1 % of the fewest the least product. `--explain` shows what was
weighed:

```console
{explained}
```

The tables: one change each, beside `epochcore-128` as it is. "Digits" is the trained sample s4d-digits
({small.cycles:,.0f} cycles a sequence), "Pathfinder" the S4 of the Long Range Arena at full size
({large.cycles:,.0f} cycles), both ideal, a sequence at a time; with a batch, costs are those of one sequence of it.
That cycles and energy rise, fall or stay (within half a percent) as the reason says was checked when this was
written.
"""

ASSUMED = """\
## What the model assumes

- A preload shifts parameters through all rows of the array and a result leaves at the last row, also where few are
  used, as in SCALE-Sim; nothing is powered down by parts. Arrays that are large for a model are slow for it.
- An element's `mac_depth` changes no clock: whoever asks for deeper elements sets `clock_hz`, too.
- Energies are per operation and word, whatever the size of the array or the memory: a larger scratchpad costs no
  more a word, longer wires cost nothing (more of them do: `column_word_joules`), the static power grows with no rows or
  columns. Of an element's formats they know fixed point (one price, for the widths in the file: change both), float32,
  which ideal programs are counted in, and 16-bit floating point. Set `energy` where more matters.
- A memory has its ports (`banks`, `bank_ports`) and DRAM one bandwidth and one latency; there are no rows, no
  refresh and no other users.
- The host is not there: inputs lie in DRAM at the beginning, outputs at the end.
- With `handover_steps` engines hand over step by step (ours); with 0 they wait for tokens of whole instructions.
- Weights count as they are: zeros are multiplied, too, and data moves no energy.
"""


def arch_name(question: Question) -> str:
    """As `--arch` takes it."""
    return f"{ARCH}{{{question.changes}}}" if question.changes else ARCH


@cache
def _sample() -> Model:
    return load_model(samples.load(SAMPLE).model_path)


def small(question: Question) -> Costs:
    """The trained sample, as `ssmc compile` and `ssmc run` give it."""
    asked = f"default,schedule{{steps={_steps()},batch={question.batch},objective={question.objective}}}"
    made = compile_model(
        _sample(), "epochcore", arch=arch_name(question), passes=asked, ideal=not question.plain, validate=False
    )
    stats, _ = measure(made.program, load_arch(arch_name(question)), question.batch, _steps())
    return Costs((stats.cycles or 0) / question.batch, (stats.energy_joules or 0.0) / question.batch)


def _steps() -> int:
    return int(next(iter(samples.load(SAMPLE).test.values())).shape[1])


def large(question: Question) -> Costs:
    """A model of Long Range Arena at full size, weights at random."""
    m, arch, ideal = lra_model(LARGE), load_arch(arch_name(question)), not question.plain
    asked = f"{{steps={m.length},batch={question.batch},objective={question.objective}}}"
    manager = PassManager(BACKEND.pipeline(arch, ideal=ideal) + asked, validate=False)
    tiled = manager.run(whole(m), Context(machine=BACKEND.machine(arch, ideal=ideal), ideal=ideal))
    stats, _ = measure(BACKEND.lower(tiled, arch, ideal=ideal), arch, question.batch, m.length)
    return Costs((stats.cycles or 0) / question.batch, (stats.energy_joules or 0.0) / question.batch)


def moved(costs: Costs, base: Costs) -> str:
    """How cycles and joules differ from those of the architecture as it is."""
    ratios = costs.cycles / base.cycles, costs.joules / base.joules
    return " ".join("+" if r > 1 + SAME else "-" if r < 1 - SAME else "=" for r in ratios)


def line(question: Question, bases: tuple[Costs, Costs]) -> str:
    """A row of a table. Raises ClickException where something does not move as expected."""
    found = small(question), large(question)
    seen = " ".join(moved(costs, base) for costs, base in zip(found, bases, strict=True))
    if seen != question.moves:
        raise click.ClickException(f"{question.told}: expected {question.moves}, found {seen}")
    cells = [question.told]
    for costs, base in zip(found, bases, strict=True):
        ratios = costs.cycles / base.cycles, costs.joules / base.joules
        cells += [f"{costs.cycles:,.0f}", *(f"{ratio:.2f}" for ratio in ratios)]
    return f"| {' | '.join([*cells, question.why])} |"


def transcript(commands: list[str]) -> str:
    """What the commands print, run where `samples` is."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "samples").symlink_to(Path(samples.__file__).parent)
        start, environment = "from ssmc.cli.main import main; main()", {**os.environ, "COLUMNS": "118"}
        for command in commands:
            given = [sys.executable, "-c", start, *shlex.split(command)[1:]]
            ran = subprocess.run(given, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            if ran.returncode:
                raise click.ClickException(f"{command}: {ran.stderr}")
            lines += [f"$ {command}", *(text.rstrip() for text in ran.stdout.splitlines())]
    return "\n".join(lines)


def page() -> str:
    """docs/what-if.md."""
    bases = small(Question()), large(Question())
    lines = [
        HEAD.format(small=bases[0], large=bases[1], commands=transcript(COMMANDS), explained=transcript(EXPLAINED))
    ]
    for title, questions in TABLES.items():
        lines += [f"## {title}", ""]
        lines += ["| what if | digits: cycles | x | energy x | Pathfinder: cycles | x | energy x | why |"]
        lines += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |", *(line(q, bases) for q in questions), ""]
    return "\n".join([*lines, ASSUMED])


@click.command()
def main() -> None:
    """Ask everything, and write docs/what-if.md."""
    PAGE.write_text(page(), encoding="utf-8")
    click.echo(f"{PAGE}: written")


if __name__ == "__main__":
    main()
