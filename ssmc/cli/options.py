"""Options that several commands share, and what they read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ssmc.diagnostics import UserError, near_or_all

if TYPE_CHECKING:
    from ssmc.passes import Observer

F = TypeVar("F", bound=Callable[..., Any])


def file_name(given: str) -> str:
    """A path as the user writes it; an empty one, as of a variable that the shell does not know, is none."""
    if not given:
        raise click.BadParameter("the name of a file is empty")
    return given


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
    help="What a system may miss the kernel by that it stands for, relative to its largest tap.",
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


def compiling(command: F) -> F:
    """Everything that says how to compile."""
    for option in reversed(
        (
            click.argument("model", type=file_name, metavar="MODEL.onnx"),
            click.option("--target", required=True, metavar="NAME", help="What to compile for (see `ssmc targets`)."),
            click.option(
                "--arch",
                type=file_name,
                metavar="NAME|FILE.yaml",
                help="Architecture, with changes as in 'cim-large{crossbar.adc_bits=6}'; default: the target's own.",
            ),
            click.option(
                "--passes",
                metavar="PIPELINE",
                help="As in 'share-decays{levels=6},default'; `default` is the target's own pipeline.",
            ),
            click.option("--calibrate", type=file_name, metavar="X.npz", help="Typical inputs, for ranges and losses."),
            click.option("--ideal", is_flag=True, help="Float arithmetic, perfect devices and converters."),
            state_option,
            lift_option,
            rounding_option,
            click.option("--print-ir-after", multiple=True, metavar="PASS|all", help="Print the graph on stderr."),
        )
    ):
        command = option(command)
    return command


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


def observers(print_ir_after: tuple[str, ...], ran: list[str]) -> tuple[Observer, ...]:
    """What watches the passes; their names are added to `ran`. Raises UserError for a pass that there is not."""
    if not print_ir_after:
        return ()
    from ssmc.passes import available, print_after

    known = [info.name for info in available()]
    for name in print_ir_after:
        if name != "all" and name not in known:
            raise UserError(f"there is no pass '{name}'", hint=near_or_all(name, known))
    return print_after(None if "all" in print_ir_after else set(print_ir_after)), lambda step: ran.append(
        step.pass_.name
    )


def check_printed(print_ir_after: tuple[str, ...], ran: list[str]) -> None:
    """Raise UserError where a graph was to be printed after a pass that is not among those that `ran`."""
    for name in print_ir_after:
        if name not in ("all", *ran):
            hint = f"it runs: {', '.join(dict.fromkeys(ran))}"
            raise UserError(f"the pipeline does not run the pass '{name}'", hint=hint)


def quantity(value: float | None, unit: str) -> str:
    """A number with an SI prefix, as in `1.23 ms`; `-` where it is not known."""
    if value is None:
        return "-"
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}"
    power = max(-5, min(4, math.floor(math.log10(abs(value)) / 3)))
    prefix = {-5: "f", -4: "p", -3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T"}[power]
    return f"{value / 1000**power:.3g} {prefix}{unit}"
