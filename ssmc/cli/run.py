"""`ssmc run`: a program on its target's simulator."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ssmc.cli.options import input_option, json_option, noise_option, quantity, seed_option
from ssmc.cli.output import json_text, print_json, print_table

if TYPE_CHECKING:
    from ssmc.target import LayerStats, RunResult


@click.command("run")
@click.argument("program", metavar="P.ssmx")
@input_option
@click.option("--output", metavar="Y.npz", help="Where the outputs go, under their names.")
@click.option("--stats", metavar="S.json", help="Where cycles, time and energy go, by layer too.")
@click.option("--trace", metavar="T.json", help="Where a Chrome trace goes (opens in Perfetto).")
@noise_option
@seed_option
@click.option("--block", type=click.IntRange(min=1), help="Steps executed at once; 1 is step by step. Same results.")
@click.option("--layers", is_flag=True, help="Show what every layer costs.")
@json_option
def run_command(
    program: str,
    input_path: str,
    output: str | None,
    stats: str | None,
    trace: str | None,
    noise: str | None,
    seed: int,
    block: int | None,
    layers: bool,
    as_json: bool,
) -> None:
    """Run a program on its target's simulator."""
    from ssmc import arrays, files
    from ssmc.driver import load_program
    from ssmc.report import plain, stats_json

    for path in (output, stats, trace):
        if path:
            files.writable(path)
    executable = load_program(program)
    result = executable.run(arrays.read(input_path), seed=seed, noise=noise, block=block, trace=trace is not None)
    told = stats_json(result.stats)
    if output:
        files.write_arrays(output, result.outputs)
    if stats:
        files.write(stats, json_text(told))
    if trace:
        files.write(trace, json.dumps({"traceEvents": plain(result.trace)}))
    if as_json:
        print_json(told)
    else:
        _tell(result, layers)


def _tell(result: RunResult, layers: bool) -> None:
    stats = result.stats
    click.echo(f"{stats.target} ({stats.arch}): {stats.batch} sequences of {stats.steps} steps")
    click.echo(
        f"  {_count(stats.cycles)} cycles, {quantity(stats.seconds, 's')}, {quantity(stats.energy_joules, 'J')}, "
        f"{stats.macs} multiply-accumulates, {stats.instructions} instructions"
    )
    if layers:
        _tell_layers(stats.layers)
    for name, array in result.outputs.items():
        click.echo(f"  {name}: {array.dtype} {tuple(array.shape)}")


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
