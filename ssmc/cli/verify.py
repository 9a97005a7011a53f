"""`ssmc verify`: is it right?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ssmc.cli.compiling import Asked, compiling
from ssmc.cli.options import input_option, json_option, noise_option
from ssmc.cli.output import print_json, print_table

if TYPE_CHECKING:
    from ssmc.verification import Error, Verification

WORST_LAYERS = 5
NEGLIGIBLE = 1e-6  # what float32 words may differ by


@click.command("verify")
@compiling
@input_option
@noise_option
@click.option("--tolerance", type=float, help="Largest relative error that passes. [default: 1e-5 ideal, 0.25 else]")
@json_option
def verify_command(asked: Asked, input_path: str, noise: str | None, tolerance: float | None, as_json: bool) -> int:
    """Compile a model, simulate it, compare with onnxruntime. Exit status 0 where it agrees, 1 where it does not.

    Relative error is max|y - ref| / max|ref|. With --ideal the default tolerance is 1e-5, or the float32 reference's
    own error against float64 where that is larger (at most 1e-4). A note says where a file in float16, or roundings on
    the edge between two codes, allow more.
    """
    from ssmc import arrays
    from ssmc.report import verification_json
    from ssmc.verification import verify

    ran: list[str] = []
    model, inputs = asked.load(), arrays.read(input_path)
    found = verify(model, asked.target, inputs, noise=noise, tolerance=tolerance, **asked.settings(ran))
    asked.check_printed(ran)
    if as_json:
        print_json(verification_json(found))
    else:
        _tell(found)
    return 0 if found.passed else 1


def _tell(found: Verification) -> None:
    rows = [(name, *_row(error)) for name, error in found.outputs.items()]
    print_table("", ["output", "max relative error", "max abs error", "at"], rows, numbers=1)
    worst = sorted(found.layers, key=lambda layer: -layer.error.relative)
    if worst and worst[0].error.relative > NEGLIGIBLE:
        rows = [(f"{layer.name} ({layer.op})", *_row(layer.error)) for layer in worst[:WORST_LAYERS]]
        print_table("worst layers", ["layer", "max relative error", "max abs error", "at"], rows, numbers=1)
    elif worst:
        click.echo(f"{len(worst)} layers, each within {worst[0].error.relative:.1e} of its value in float64")
    if found.note:
        click.echo(f"note: {found.note}")
    click.echo(f"{'passed' if found.passed else 'FAILED'} (tolerance {found.tolerance:.2g})")


def _row(error: Error) -> tuple[str, str, str]:
    return f"{error.relative:.2e}", f"{error.absolute:.2e}", str(list(error.worst_index))
