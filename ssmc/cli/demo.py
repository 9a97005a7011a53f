"""`ssmc demo`: the packaged samples on every target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ssmc.cli.options import json_option, quantity
from ssmc.cli.output import console, print_json, print_table
from ssmc.diagnostics import UserError

if TYPE_CHECKING:
    from ssmc.demo import Row

COLUMNS = (
    "sample",
    "target",
    "test set",
    "onnxruntime",
    "ideal",
    "realistic",
    "cycles",
    "time",
    "energy",
    "code",
    "program",
)


@click.command("demo")
@click.option("--sample", "chosen", multiple=True, metavar="NAME", help="Only this one. [default: all]")
@click.option("--target", "targets", multiple=True, metavar="NAME", help="Only this one. [default: all]")
@json_option
def demo_command(chosen: tuple[str, ...], targets: tuple[str, ...], as_json: bool) -> None:
    """Compile the packaged samples for every target, run their test sets, show accuracy beside onnxruntime's.

    `ideal` is float arithmetic with perfect devices, `realistic` the target's own converters, widths and noise.
    Cycles, time and energy are those of one sequence on the simulated realistic machine.
    """
    rows = list(_rows(chosen, targets))
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        print_table("", COLUMNS, map(_cells, rows), numbers=2)


def _rows(chosen: tuple[str, ...], targets: tuple[str, ...]) -> Iterator[Row]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    import samples
    from ssmc import demo
    from ssmc.target import backend, target_names

    unknown = sorted(set(chosen) - set(samples.names()))
    if unknown:
        raise UserError(f"no sample is called '{unknown[0]}'", hint=f"there are: {', '.join(samples.names())}")
    on = [backend(name).name for name in targets or target_names()]
    names = chosen or samples.names()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(names) * (1 + demo.STAGES * len(on)))
        for name in names:
            progress.update(task, description=f"{name}: onnxruntime")
            sample = samples.load(name)
            model = demo.model_of(sample)
            reference = demo.reference_accuracy(sample, model)
            progress.advance(task)
            for target in on:
                progress.update(task, description=f"{name} on {target}")
                yield demo.measure(sample, model, target, reference, lambda: progress.advance(task))


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.sample,
        row.target,
        f"{row.sequences} x {row.steps}",
        f"{100 * row.onnxruntime_accuracy:.1f} %",
        f"{100 * row.ideal_accuracy:.1f} %",
        f"{100 * row.realistic_accuracy:.1f} %",
        "-" if row.cycles is None else f"{row.cycles:.0f}",
        quantity(row.seconds, "s"),
        quantity(row.energy_joules, "J"),
        str(row.instructions),
        quantity(row.program_bytes, "B"),
    )
