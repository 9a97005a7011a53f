"""`ssmc run`: a program on its target's simulator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ssmc.cli.options import file_name, input_option, json_option, noise_option, quantity, seed_option
from ssmc.cli.output import json_text, print_json, print_table
from ssmc.diagnostics import UserError

if TYPE_CHECKING:
    from ssmc.target import LayerStats, RunResult
    from ssmc.trials import Trials


@click.command("run")
@click.argument("program", type=file_name, metavar="P.ssmx")
@input_option
@click.option("--output", type=file_name, metavar="Y.npz", help="Where the outputs go, under their names.")
@click.option("--stats", type=file_name, metavar="S.json", help="Where cycles, time and energy go, by layer too.")
@click.option(
    "--trace", type=file_name, metavar="T.json", help="Where a Chrome trace of the first sequence goes (for Perfetto)."
)
@click.option(
    "--heatmap", type=file_name, metavar="H.png", help="Where a picture goes: how busy every processing element was."
)
@noise_option
@seed_option
@click.option("--block", type=click.IntRange(min=1), help="Steps executed at once; 1 is step by step. Same results.")
@click.option("--strict", is_flag=True, help="States that leave their range are an error, not counted.")
@click.option("--trials", type=click.IntRange(min=1), help="Repeat with devices of other seeds; tell the errors.")
@click.option(
    "--labels", type=file_name, metavar="L.npz", help="With --trials: class numbers (batch,), for the accuracy."
)
@click.option("--workers", type=click.IntRange(min=1), default=1, help="Processes that share the trials. Same results.")
@click.option("--layers", is_flag=True, help="Show what every layer costs.")
@json_option
def run_command(
    program: str,
    input_path: str,
    output: str | None,
    stats: str | None,
    trace: str | None,
    heatmap: str | None,
    noise: str | None,
    seed: int,
    block: int | None,
    strict: bool,
    trials: int | None,
    labels: str | None,
    workers: int,
    layers: bool,
    as_json: bool,
) -> None:
    """Run a program on its target's simulator."""
    from ssmc import arrays, files
    from ssmc.driver import load_program
    from ssmc.heatmap import available, picture
    from ssmc.report import plain, stats_json, trials_json
    from ssmc.trials import run_trials

    if trials is None and (labels or workers > 1):
        raise UserError("--labels and --workers are for trials", hint="add --trials N")
    written = [path for path in (output, stats, trace, heatmap) if path]
    for number, path in enumerate(written):
        files.writable(path, taken=(program, input_path, labels, *written[:number]))
    if heatmap:
        available()
    executable = load_program(program)
    inputs = arrays.read(input_path)
    how: dict[str, Any] = {"seed": seed, "noise": noise, "block": block, "strict": strict}
    result = executable.run(inputs, trace=trace is not None, occupancy=heatmap is not None, **how)
    if heatmap and result.occupancy is None:
        raise UserError(
            f"target '{result.stats.target}' has no array of processing elements to show", where="--heatmap"
        )
    told = stats_json(result.stats)
    repeated = None
    if trials is not None:
        given = None if labels is None else _labels(arrays.read(labels), labels)
        repeated = run_trials(executable, inputs, trials, labels=given, workers=workers, **how)
        told["trials"] = trials_json(repeated)
    if output:
        files.write_arrays(output, result.outputs)
    if stats:
        files.write(stats, json_text(told))
    if trace:
        files.write(trace, json.dumps({"traceEvents": plain(result.trace)}))
    if heatmap:
        files.write(heatmap, picture(result))
    if as_json:
        print_json(told)
    else:
        _tell(result, layers)
        if repeated is not None:
            _tell_trials(repeated)


def _labels(stored: dict[str, Any], where: str) -> Any:
    if len(stored) != 1:
        raise UserError("labels are a single array", where=where, why=f"it holds {', '.join(sorted(stored)) or 'none'}")
    return next(iter(stored.values()))


def _tell_trials(trials: Trials) -> None:
    rows = [
        (f"error of {name}", f"{error.mean:.4g}", f"{error.spread:.2g}", f"{error.worst:.4g}")
        for name, error in trials.errors.items()
    ]
    if trials.accuracy is not None and trials.perfect_accuracy is not None:
        of = trials.accuracy
        rows.append(("accuracy", f"{100 * of.mean:.2f} %", f"{100 * of.spread:.2f} %", f"{100 * of.worst:.2f} %"))
        click.echo(f"  accuracy with perfect devices: {100 * trials.perfect_accuracy:.2f} %")
    print_table(f"{trials.count} trials", ["against perfect devices", "mean", "spread", "worst"], rows, numbers=1)


def _tell(result: RunResult, layers: bool) -> None:
    stats = result.stats
    click.echo(f"{stats.target} ({stats.arch}): {stats.batch} sequences of {stats.steps} steps")
    click.echo(
        f"  {_count(stats.cycles)} cycles, {quantity(stats.seconds, 's')}, {quantity(stats.energy_joules, 'J')}, "
        f"{stats.macs} multiply-accumulates, {stats.instructions} instructions"
    )
    if "event_joules" in stats.notes:
        click.echo(f"  {_of_an_event(stats.notes)}")
    for what, counts in stats.notes.items():
        if isinstance(counts, Mapping) and counts:
            name, energies = what.removesuffix("_joules"), what.endswith("_joules")
            parts = (f"{of} {quantity(part, 'J') if energies else part}" for of, part in counts.items())
            click.echo(f"  {f'{name} of the energy' if energies else name}: {', '.join(parts)}")
    if "warning" in stats.notes:
        click.echo(f"  warning: {stats.notes['warning']}")
    if layers:
        _tell_layers(stats.layers)
    for name, array in result.outputs.items():
        click.echo(f"  {name}: {array.dtype} {tuple(array.shape)}")


def _of_an_event(notes: Mapping[str, Any]) -> str:
    """What one event takes, on average, and what the machine takes while none comes."""
    took = f"{notes['event_macs']:.6g} multiply-accumulates, {notes['event_instructions']:.4g} instructions"
    told = f"an event: {quantity(notes['event_joules'], 'J')}, {took}; idle: {quantity(notes['idle_watts'], 'W')}"
    if "real_idle_joules_per_sequence" in notes:
        lasts, idle = notes["real_seconds_per_sequence"], notes["real_idle_joules_per_sequence"]
        told += f", {quantity(idle, 'J')} while a sequence lasts ({quantity(lasts, 's')})"
    return told


def _tell_layers(layers: tuple[LayerStats, ...]) -> None:
    rows = [
        (
            layer.name,
            layer.op,
            _count(layer.cycles),
            quantity(layer.seconds, "s"),
            quantity(layer.energy_joules, "J"),
            "-" if layer.utilization is None else f"{100 * layer.utilization:.1f} %",
        )
        for layer in layers
    ]
    print_table("", ["layer", "op", "cycles", "time", "energy", "utilization"], rows, numbers=2)


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)
