"""`ssmc inspect`: what is in a model."""

from __future__ import annotations

from math import inf
from typing import Any

import click

from ssmc.cli.options import file_name, json_option, lift_option, rounding_option, state_option, states
from ssmc.cli.output import print_json, print_table

SHORT = {"linear time-invariant": "LTI"}
NOTHING = 1e-9  # a frequency below this is none, but for rounding
ANY = 2.0**32  # a code beyond this has no bound
FOREVER = 1e12  # a time constant beyond this is that of a pole at 1, but for rounding


@click.command("inspect")
@click.argument("model", type=file_name, metavar="MODEL.onnx")
@state_option
@lift_option
@rounding_option
@json_option
def inspect_command(
    model: str, state: tuple[str, ...], lift_tolerance: float, drop_rounding: bool, as_json: bool
) -> None:
    """The state-space systems found in a model, its other ops, and what would not compile."""
    from ssmc.driver import load_model
    from ssmc.frontend.model import feeds_forward, mixes_time
    from ssmc.report import inspection_json

    lifted = load_model(
        model, states=states(state), tolerance=lift_tolerance, drop_rounding=drop_rounding, strict=False
    )
    told = inspection_json(lifted)
    if as_json:
        print_json(told)
        return
    _show_interface(told["interface"])
    _show_systems(told["systems"])
    ops = ", ".join(f"{name} x{count}" for name, count in told["other_ops"].items())
    click.echo(f"other ops: {ops or 'none'}")
    _show_proofs(told["proofs"])
    for note in told["notes"]:
        click.echo(f"note: {note}")
    unsupported = told["unsupported"]
    if unsupported:
        click.echo(f"\nwould not compile, {len(unsupported)} node{'s' * (len(unsupported) != 1)}:")
        for item in unsupported:
            click.echo(f"  {item['op']} '{item['node']}': {item['reason']}")
    elif mixes_time(lifted.graph) or feeds_forward(lifted.graph):
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
        fir = system["kind"] == "fir"
        size = (
            f"{system['groups']} x {system['states'] + 1} taps" if fir else f"{system['groups']} x {system['states']}"
        )
        rows.append(
            (
                system["name"],
                _kind(system),
                system["disguise"],
                size,
                f"{system['inputs']} -> {system['outputs']}",
                _range(system["time_constants"]),
                _range(system["frequencies"]),
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
        "time constants",
        "frequencies",
        "error",
        "ONNX nodes",
    ]
    print_table(f"state-space systems: {len(systems)}", columns, rows)
    if any(system["time_constants"] for system in systems):
        clock = " (of the elapsed time)" if any(system["kind"] == "asynchronous" for system in systems) else ""
        click.echo(f"time constants in steps, frequencies in cycles a step{clock}")
    for system in systems:
        if system["kernel"]:
            click.echo(f"{system['name']}: {_kernel(system['kernel'])}")
        for grid in system["grids"]:
            click.echo(f"{system['name']}: {_grid(grid)}")


def _grid(told: dict[str, Any]) -> str:
    """Where a step rounds, and to which values."""
    low, high = told["codes"]
    codes = (
        f"{high - low + 1:.0f} codes ({low:.0f} to {high:.0f})" if abs(low) < ANY and abs(high) < ANY else "any code"
    )
    zero = "" if told["zeros"] == [0.0, 0.0] else f" less {_range(told['zeros'])}"
    way = "nearest, half to even" if told["rounding"] == "nearest" else told["rounding"]
    return f"the {told['place']} is rounded at every step to {_range(told['scales'])} times {codes}{zero} ({way})"


def _kernel(told: dict[str, Any]) -> str:
    """What became of kernels, and how near it is."""
    text = f"{told['kernels']} kernels of {told['taps']} taps {told['how']}"
    if not told["residual"]:
        return text
    off = f"at most {told['residual']:.1e} of the largest tap off"
    return f"{text}; {off}, |y - y'| <= {told['l1']:.1e} max|u| for every u"


def _show_proofs(proofs: list[dict[str, Any]]) -> None:
    """The worst error of the whole model against each of what it was compared with, and at which sizes."""
    worst: dict[str, float] = {}
    for proof in proofs:
        worst[proof["against"]] = max(worst.get(proof["against"], 0.0), proof["error"])
    if worst:
        sizes = dict.fromkeys(f"{proof['batch']} x {proof['length']}" for proof in proofs)
        told = ", ".join(f"{error:.1e} from {against}" for against, error in worst.items())
        click.echo(f"the whole is off by {told} (batch x steps: {', '.join(sizes)})")


def _kind(system: dict[str, Any]) -> str:
    kind = SHORT.get(system["kind"], system["kind"])
    if system["kind"] in ("fir", "integrate and fire"):
        return str(kind)
    return f"{kind} {'complex' if system['complex'] else 'real'}"


def _range(values: Any) -> str:
    """Smallest and largest of some time constants or frequencies."""
    ends = [_size(value) for value in sorted(_numbers(values))]
    return "-" if not ends else ends[0] if ends[0] == ends[-1] else f"{ends[0]} to {ends[-1]}"


def _size(value: float) -> str:
    if abs(value) >= FOREVER:
        return "forever"
    return "0" if abs(value) < NOTHING else f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"


def _numbers(values: Any) -> list[float]:
    """All numbers of nested lists; what is no number in JSON is the infinite time of a pole at 1."""
    if isinstance(values, list):
        return [item for value in values for item in ([inf] if value is None else _numbers(value))]
    return [] if values is None else [values]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _some(names: list[str]) -> str:
    """The first name, and how many more there are."""
    return "".join(names[:1]) + (f" +{len(names) - 1}" if len(names) > 1 else "")
