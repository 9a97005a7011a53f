"""How to compile, as options: what `compile` and `verify` share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ssmc.cli.options import file_name, lift_option, rounding_option, seed_option, state_option, states
from ssmc.diagnostics import UserError, near_or_all

if TYPE_CHECKING:
    from ssmc.frontend import Model
    from ssmc.passes import Observer

T = TypeVar("T")

OPTIONS = (
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
    seed_option,
)


@dataclass(frozen=True)
class Asked:
    """What the user said of compiling: the `OPTIONS`, by their names."""

    model: str
    target: str
    arch: str | None
    passes: str | None
    calibrate: str | None
    ideal: bool
    state: tuple[str, ...]
    lift_tolerance: float
    drop_rounding: bool
    print_ir_after: tuple[str, ...]
    seed: int

    def load(self) -> Model:
        """The model. Raises UserError."""
        from ssmc.driver import load_model

        given = states(self.state)
        return load_model(self.model, states=given, tolerance=self.lift_tolerance, drop_rounding=self.drop_rounding)

    def settings(self, ran: list[str]) -> dict[str, Any]:
        """What `compile_model` and `verify` are to be given; the names of the passes are added to `ran` where graphs
        are printed. Raises UserError where the calibration data cannot be read, or there is no such pass."""
        from ssmc import arrays

        return {
            "arch": self.arch,
            "passes": self.passes,
            "calibration": arrays.read(self.calibrate) if self.calibrate else None,
            "ideal": self.ideal,
            "seed": self.seed,
            "observers": self._observers(ran),
        }

    def _observers(self, ran: list[str]) -> tuple[Observer, ...]:
        if not self.print_ir_after:
            return ()
        from ssmc.passes import available, print_after

        known = [info.name for info in available()]
        for name in self.print_ir_after:
            if name != "all" and name not in known:
                raise UserError(f"there is no pass '{name}'", hint=near_or_all(name, known))
        chosen = None if "all" in self.print_ir_after else set(self.print_ir_after)
        return print_after(chosen), lambda step: ran.append(step.pass_.name)

    def check_printed(self, ran: list[str]) -> None:
        """Raise UserError where a graph was to be printed after a pass that is not among those that `ran`."""
        for name in self.print_ir_after:
            if name not in ("all", *ran):
                hint = f"it runs: {', '.join(dict.fromkeys(ran))}"
                raise UserError(f"the pipeline does not run the pass '{name}'", hint=hint)


def compiling(command: Callable[..., T]) -> Callable[..., T]:
    """Give a command the `OPTIONS`, as its first argument."""

    @wraps(command)
    def with_options(**given: Any) -> T:
        return command(Asked(**{field.name: given.pop(field.name) for field in fields(Asked)}), **given)

    for option in reversed(OPTIONS):
        option(with_options)
    return with_options
