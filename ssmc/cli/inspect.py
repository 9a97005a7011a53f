"""`ssmc inspect`: what is in a model."""

from __future__ import annotations

from typing import Any

import click

from ssmc.cli.options import json_option, states
from ssmc.cli.output import print_json, print_table

SHORT = {"linear time-invariant": "LTI"}
FOREVER = 1e12  # a time constant beyond this is that of a pole at 1, but for rounding


@click.command("inspect")
@click.argument("model", metavar="MODEL.onnx")
@click.option("--state", multiple=True, metavar="IN=OUT", help="A state input and the output that feeds it.")
@json_option
def inspect_command(model: str, state: tuple[str, ...], as_json: bool) -> None:
    """The state-space systems found in a model, its other ops, and what would not compile."""
    from ssmc.driver import load_model
    from ssmc.report import inspection_json

    told = inspection_json(load_model(model, states=states(state), strict=False))
    if as_json:
        print_json(told)
        return
    _show_interface(told["interface"])
    _show_systems(told["systems"])
    ops = ", ".join(f"{name} x{count}" for name, count in told["other_ops"].items())
    click.echo(f"other ops: {ops or 'none'}")
    unsupported = told["unsupported"]
    if unsupported:
        click.echo(f"\nwould not compile, {len(unsupported)} node{'s' * (len(unsupported) != 1)}:")
        for item in unsupported:
            click.echo(f"  {item['op']} '{item['node']}': {item['reason']}")
    elif told["systems"]:
        click.echo("everything compiles")
    else:
        click.echo("would not compile: no state-space system was found")


def _show_interface(interface: dict[str, Any]) -> None:
    from ssmc.arrays import describe
    from ssmc.interface import from_json

    known = from_json(interface)
    rows = [("input", describe(port), port.role) for port in known.inputs]
    rows += [("output", describe(port), port.role) for port in known.outputs]
    form = {"sequence": "whole sequences", "step": "one step with explicit states"}.get(known.form, known.form)
    print_table(f"interface ({form})", ["", "array", "role"], rows)


def _show_systems(systems: list[dict[str, Any]]) -> None:
    rows = []
    for system in systems:
        rows.append(
            (
                system["name"],
                SHORT.get(system["kind"], system["kind"]),
                system["disguise"],
                f"{system['groups']} x {system['states']}",
                f"{system['inputs']} -> {system['outputs']}",
                "complex" if system["complex"] else "real",
                _range(system["time_constants"]),
                _number(system["proof_error"]),
                _some(system["onnx_nodes"]),
            )
        )
    columns = [
        "system",
        "kind",
        "written as",
        "groups x states",
        "in -> out",
        "",
        "time constants",
        "proof",
        "ONNX nodes",
    ]
    print_table(f"state-space systems: {len(systems)}", columns, rows)


def _range(values: Any) -> str:
    """Smallest and largest of some time constants, in steps (of the elapsed time where that is an input)."""
    ends = [f"{value:.3g}" if value < FOREVER else "forever" for value in sorted(_numbers(values))]
    return "-" if not ends else ends[0] if ends[0] == ends[-1] else f"{ends[0]} to {ends[-1]}"


def _numbers(values: Any) -> list[float]:
    if isinstance(values, list):
        return [item for value in values for item in _numbers(value)]
    return [] if values is None else [values]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _some(names: list[str]) -> str:
    """The first name, and how many more there are."""
    return "".join(names[:1]) + (f" +{len(names) - 1}" if len(names) > 1 else "")
