"""Options that several commands share, and what they read."""

from __future__ import annotations

import math
from pathlib import Path

import click

from ssmc.diagnostics import UserError


def file_name(given: str) -> str:
    """A path as the user writes it; an empty one, as of a variable that the shell does not know, is none."""
    if not given:
        raise click.BadParameter("the name of a file is empty")
    return given


def program_file(given: str | None, default: Path) -> Path:
    """Where a program goes. Raises UserError where `given` does not end as programs do."""
    from ssmc.driver import SUFFIX

    path = Path(given) if given else default
    if given and path.suffix != SUFFIX:
        raise UserError(f"a program file ends in {SUFFIX}", where=str(path), hint=f"-o {path.stem}{SUFFIX}")
    return path


json_option = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of noise and of random probes."
)
state_option = click.option(
    "--state", multiple=True, metavar="IN=OUT", help="A state input and the output that feeds it."
)
lift_option = click.option(
    "--lift-tolerance",
    type=float,
    default=1e-6,
    show_default=True,
    help="How far a system may be from the kernel that it replaces, relative to its largest tap.",
)
rounding_option = click.option(
    "--drop-rounding",
    is_flag=True,
    help="Leave out the rounding (QuantizeLinear, Round) of all but weights; what that changes is measured and noted.",
)
input_option = click.option(
    "--input",
    "input_path",
    required=True,
    type=file_name,
    metavar="X.npz",
    help="Arrays named as the model's inputs, batch first.",
)
noise_option = click.option(
    "--noise",
    metavar="PRESET",
    help="Devices' noise (see `ssmc targets`), with changes as in 'pcm{read_scale=0,stuck_low=0.01}'.",
)


def states(pairs: tuple[str, ...]) -> dict[str, str] | None:
    """`IN=OUT` pairs. Raises UserError."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equal, output = pair.partition("=")
        if not (name and equal and output):
            raise UserError(f"--state is IN=OUT, not '{pair}'", hint="name a state input and the output that feeds it")
        if name in found:
            raise UserError(f"--state names the input '{name}' twice", hint="a state has one next value")
        found[name] = output
    return found or None


def quantity(value: float | None, unit: str) -> str:
    """A number with an SI prefix, as in `1.23 ms`; `-` where it is not known."""
    if value is None:
        return "-"
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}"
    power = max(-5, min(4, math.floor(math.log10(abs(value)) / 3)))
    prefix = {-5: "f", -4: "p", -3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T"}[power]
    return f"{value / 1000**power:.3g} {prefix}{unit}"
