"""`ssmc compile`: a model into a program."""

from __future__ import annotations

from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssmc.cli.compiling import Asked, compiling
from ssmc.cli.options import file_name, json_option, program_file, quantity
from ssmc.cli.output import json_text, print_json, print_table
from ssmc.diagnostics import UserError

if TYPE_CHECKING:
    from ssmc.driver import Executable

EMITTED = {"asm": ".asm", "ir": ".ir", "report": ".report.json"}


@click.command("compile")
@compiling
@click.option("-o", "--output", type=file_name, metavar="P.ssmx", help="The program; default: the model's name.")
@click.option("--emit", metavar="asm,ir,report", default="", help="Also write these, beside the program.")
@click.option(
    "--explain",
    is_flag=True,
    help="Banks of states, forms of layers and schedules, with their costs; losses by layer.",
)
@json_option
def compile_command(asked: Asked, output: str | None, emit: str, explain: bool, as_json: bool) -> None:
    """Compile a model into a program for a target."""
    from ssmc import files
    from ssmc.driver import SUFFIX, compile_model
    from ssmc.report import compilation_json

    kinds = _kinds(emit)
    path = program_file(output, Path(Path(asked.model).stem + SUFFIX))
    files.writable(path, taken=[asked.model, asked.calibrate])
    ran: list[str] = []
    executable = compile_model(asked.load(), asked.target, **asked.settings(ran))
    asked.check_printed(ran)
    told = compilation_json(executable)
    texts = {path.with_suffix(EMITTED[kind]): _text(kind, executable, told) for kind in kinds}
    executable.save(path)
    for place, text in texts.items():
        files.write(place, text)
    written = [str(path), *map(str, texts)]
    if as_json:
        print_json({"program": str(path), "bytes": path.stat().st_size, "written": written, **told})
    else:
        _tell(path, told, written)
        if explain:
            _explain(told)


def _explain(told: dict[str, Any]) -> None:
    """Banks of states with their costs, and what each layer lost, as tables."""
    _explain_banks(told["alternatives"], told["banks"])
    _explain_couplings(told["couplings"])
    _explain_units(told["units"])
    if "copies" in told:
        made = told["copies"]
        title = f"copies of arrays: an event every {made['interval_seconds']:.3g} s, not {made['once_seconds']:.3g} s"
        rows = [
            (layer["layer"], str(layer["copies"]), str(layer["arrays"]), ", ".join(map(str, layer["cores"])))
            for layer in made["layers"]
        ]
        print_table(title, ["layer", "copies", "arrays", "on the cores"], rows, numbers=1)
    _explain_forms(told.get("forms", {}))
    _explain_schedules(told.get("schedules", []))
    losses = [
        (
            layer["node"],
            loss["pass_text"],
            "-" if layer["measured"] is None else f"{layer['measured']:.2g}",
            "-" if layer["bound"] is None else f"{layer['bound']:.3g}",
            layer["note"],
        )
        for loss in told["losses"]
        for layer in loss["layers"]
    ]
    title = "losses by layer: max|y - y'| / max|y| on the data, and b with max|y - y'| <= b max|u| for every input"
    if losses:
        print_table(title, ["layer", "pass", "measured", "bound", "no bound because"], losses, numbers=2)


def _explain_banks(alternatives: list[dict[str, Any]], banks: list[dict[str, Any]]) -> None:
    """What was weighed for each layer, and where its states came to lie; all banks where nothing was weighed."""
    rows = [
        (
            one["node"],
            one["bank"],
            "chosen" if one["chosen"] else "",
            _joules(one["joules"]),
            _joules(one["kept_joules"]),
            _joules(one["spared_joules"]),
            _share(one["error"]),
            "-" if one["shared_error"] is None else f"{one['shared_error']:.2g}",
            one["why"],
        )
        for one in alternatives
    ]
    if rows:
        title = (
            "banks weighed, for a step: energy with B and C, its part for keeping states, what coupling spares of it; "
            "expected error of the response, its part by shared decays"
        )
        heads = ["layer", "bank", "", "energy", "keeping", "spared", "error", "sharing", "because"]
        print_table(title, heads, rows, numbers=3)
    if not any(choice["joules"] or choice["error"] != 0 for choice in banks):
        return  # a layer's form decides what its states cost, and where they are: `_explain_forms`
    found = [
        (
            choice["node"],
            choice["bank"],
            "chosen" if choice["chosen"] else "",
            _joules(choice["joules"]),
            _share(choice["error"]),
            _joules(choice["whole_joules"]),
            _share(choice["whole_error"]),
            choice["objection"],
        )
        for choice in banks
        if choice["chosen"] or not rows
    ]
    title = (
        "state banks: energy of a step and expected error (spread of decays, products fed back) of the states alone, "
        "and with B and C around them (arrays, converters), as they came to lie"
    )
    heads = ["layer", "bank", "", "energy", "error", "with B, C", "error", "cannot hold them because"]
    if found:
        print_table(title, heads, found, numbers=3)


def _joules(joules: float | None) -> str:
    return quantity(joules, "J") if joules else "-"


def _share(error: float | None) -> str:
    return "no bound" if error is None else f"{error:.2g}"


def _explain_couplings(couplings: list[dict[str, Any]]) -> None:
    """Where states meet arrays without conversions, and why elsewhere not."""
    rows = [
        (
            choice["node"],
            f"{choice['side']}: {choice['product']}" if choice["product"] else choice["side"],
            "coupled" if choice["chosen"] else "",
            quantity(choice["joules"], "J") if choice["joules"] else "-",
            *("-" if choice[way] is None else f"{choice[way]:.2g}" for way in ("converted", "coupled")),
            choice["objection"],
        )
        for choice in couplings
    ]
    if rows:
        title = "states and arrays: energy of a step's conversions, expected error of the sums with and without them"
        headings = ["layer", "side", "", "conversions", "error", "coupled", "cannot be coupled because"]
        print_table(title, headings, rows, numbers=3)


def _explain_units(units: list[dict[str, Any]]) -> None:
    """What a count of each layer's states is worth, and what tells it."""
    rows = [
        (
            choice["node"],
            choice["source"],
            f"{choice['least']:.2g} to {choice['most']:.2g}",
            "-" if choice["room"] is None else f"{choice['room']:.3g}",
            f"2^{log2(choice['finest']):.0f} to 2^{log2(choice['coarsest']):.0f}",
        )
        for choice in units
    ]
    if rows:
        title = "fixed-point states: how far they are expected to go, how often that fits, what a count is worth"
        print_table(title, ["layer", "as told by", "expected", "fits times", "units"], rows, numbers=3)


def _explain_schedules(schedules: list[dict[str, Any]]) -> None:
    """The whole program's schedules, where there is a choice; costs as they were when it was made."""
    rows = [
        (
            made["choice"],
            made["schedule"],
            _chosen(made),
            str(made["batch"]),
            f"{made['cycles']:,}",
            quantity(made["joules"], "J"),
        )
        for made in schedules
    ]
    if rows:
        title = f"schedules: cycles and energy of so many sequences of {schedules[0]['steps']} steps"
        print_table(title, ["choice", "schedule", "", "sequences", "cycles", "energy"], rows, numbers=4)


def _chosen(made: dict[str, Any]) -> str:
    if not made["chosen"]:
        return ""
    return f"chosen before {made['superseded']}" if "superseded" in made else "chosen"


def _explain_forms(forms: dict[str, list[dict[str, Any]]]) -> None:
    """The forms of each layer with what the timing model predicts; layers with the same table share it."""
    layers: dict[str, list[str]] = {}
    for layer, found in forms.items():
        layers.setdefault(str(found), []).append(layer)
    for names in layers.values():
        rows = [
            (
                form["form"].partition(",")[0] if form["objection"] else form["form"],
                "chosen" if form["chosen"] else "",
                "-" if form["cycles"] is None else f"{'at least ' * form['least']}{form['cycles']:,}",
                "-" if form["joules"] is None else f"{'at least ' * form['least']}{quantity(form['joules'], 'J')}",
                form["objection"],
            )
            for form in forms[names[0]]
        ]
        steps = forms[names[0]][0]["steps"]
        title = f"forms of {', '.join(names)}: cycles and energy of the layer by itself, one sequence of {steps} steps"
        # of one kind and with one objection: told once
        print_table(title, ["form", "", "cycles", "energy", "cannot be had because"], dict.fromkeys(rows), numbers=2)


def _kinds(emit: str) -> list[str]:
    kinds = [kind.strip() for kind in emit.split(",") if kind.strip()]
    unknown = [kind for kind in kinds if kind not in EMITTED]
    if unknown:
        raise UserError(f"--emit cannot write '{unknown[0]}'", hint=f"it writes: {', '.join(EMITTED)}")
    return kinds


def _text(kind: str, executable: Executable, told: dict[str, Any]) -> str:
    if kind == "asm":
        return executable.assembly()
    if kind == "report":
        return json_text(told)
    from ssmc.ir.text import print_graph

    assert executable.compilation is not None, "it was compiled just now"
    return print_graph(executable.compilation.graph) + "\n"


def _tell(path: Path, told: dict[str, Any], written: list[str]) -> None:
    size = quantity(path.stat().st_size, "B")
    click.echo(f"{path}: {told['instructions']} instructions for {told['target']}, {size}")
    for loss in told["losses"]:
        changes = ", ".join(f"{name} by {error:.2g}" for name, error in loss["outputs"].items())
        click.echo(f"  {loss['pass_text']} changed {changes} (relative, on the {loss['data']} data)")
    for note in told["notes"]:
        click.echo(f"  {note['pass_name']}: {note['node'] + ': ' if note['node'] else ''}{note['text']}")
    if "warning" in told:
        click.echo(f"  warning: {told['warning']}")
    for name in written[1:]:
        click.echo(f"{name}: written")
