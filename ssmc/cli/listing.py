"""`ssmc passes`, `ssmc targets`, `ssmc isa`: what there is, with its documentation."""

from __future__ import annotations

from dataclasses import MISSING, asdict
from typing import TYPE_CHECKING, Any

import click

from ssmc.cli.options import file_name, json_option
from ssmc.cli.output import print_json, print_table
from ssmc.diagnostics import UserError, near_or_all

if TYPE_CHECKING:
    from isa import InstructionSet
    from ssmc.passes import PassInfo
    from ssmc.target import Backend


@click.command("passes")
@click.argument("name", required=False)
@json_option
def passes_command(name: str | None, as_json: bool) -> None:
    """The passes there are; with NAME, one pass with its options and documentation."""
    from ssmc.passes import available

    known = {info.name: info for info in available()}
    if name is not None and name not in known:
        raise UserError(f"there is no pass '{name}'", hint=near_or_all(name, known))
    chosen = list(known.values()) if name is None else [known[name]]
    if as_json:
        print_json([_pass_json(info) for info in chosen])
    elif name is not None:
        _tell_pass(chosen[0])
    else:
        rows = [(info.name, _promise(info), " ".join(info.doc.partition("\n\n")[0].split())) for info in chosen]
        print_table("", ["pass", "promise", "what it does"], rows)


def _promise(info: PassInfo) -> str:
    return "reports its loss" if info.lossy else f"exact to {info.tolerance:g}"


def _pass_json(info: PassInfo) -> dict[str, Any]:
    options = [
        {
            "name": option.name,
            "type": option.type,
            "required": option.default is MISSING,
            "default": None if option.default is MISSING else str(option.default),
        }
        for option in info.options
    ]
    return {
        "name": info.name,
        "doc": info.doc,
        "lossy": info.lossy,
        "tolerance": info.tolerance if info.tolerance != float("inf") else None,
        "options": options,
    }


def _tell_pass(info: PassInfo) -> None:
    click.echo(f"{info.name} ({_promise(info)})\n\n{info.doc}\n")
    for option in info.options:
        default = "must be given" if option.default is MISSING else f"default {option.default!r}"
        click.echo(f"  {option.name}: {option.type}, {default}")


@click.command("targets")
@click.argument("name", required=False)
@click.option(
    "--arch", type=file_name, metavar="NAME|FILE.yaml", help="With NAME: show this architecture, checked, in full."
)
@click.option("--keys", is_flag=True, help="With NAME: what an architecture file may say, and what that means.")
@json_option
def targets_command(name: str | None, arch: str | None, keys: bool, as_json: bool) -> None:
    """The targets there are; with NAME, one target's architecture in full."""
    from ssmc.target import backend, backends

    if arch and keys:
        raise UserError("--keys are those of all architectures of a target", hint="leave out --arch, or --keys")
    if name is None:
        if arch or keys:
            raise UserError(
                f"{'--arch' if arch else '--keys'} needs the name of a target", hint=f"{near_or_all('', backends())}"
            )
        told = [_target_json(found) for found in backends().values()]
        if as_json:
            print_json(told)
            return
        rows = [(t["name"], t["summary"], ", ".join(t["architectures"]), ", ".join(t["noise_presets"])) for t in told]
        print_table("", ["target", "what it is", "architectures", "noise presets"], rows)
        return
    found = backend(name)
    if keys and as_json:
        print_json([asdict(key) for key in found.arch_keys()])
        return
    if keys:
        rows = [
            (k.path, k.values, "must be given" if k.default is None else k.default, k.meaning)
            for k in found.arch_keys()
        ]
        print_table("", ["key", "takes", "left out", "what it means"], rows)
        return
    text = found.arch_text(found.load_arch(arch))
    if as_json:
        print_json({**_target_json(found), "arch": arch or found.default_arch, "arch_text": text})
    else:
        click.echo(text.rstrip("\n"))


def _target_json(found: Backend) -> dict[str, Any]:
    return {
        "name": found.name,
        "summary": found.summary,
        "default_arch": found.default_arch,
        "architectures": list(found.architectures()),
        "noise_presets": list(found.noise_presets()),
    }


@click.command("isa")
@click.argument("name", required=False)
@json_option
def isa_command(name: str | None, as_json: bool) -> None:
    """The reference manual of a target's instruction set (Markdown)."""
    from isa.manual import render
    from ssmc.target import backend, backends

    if name is None:
        sets = [found.instruction_set for found in backends().values()]
        if as_json:
            print_json([{"name": s.name, "version": s.version, "instructions": len(s.instructions)} for s in sets])
            return
        rows = [(s.name, s.version, str(len(s.instructions))) for s in sets]
        print_table("`ssmc isa NAME` prints the manual", ["instruction set", "version", "instructions"], rows)
        return
    chosen = backend(name).instruction_set
    if as_json:
        print_json(_isa_json(chosen))
    else:
        click.echo(render(chosen), nl=False)


def _isa_json(chosen: InstructionSet) -> dict[str, Any]:
    instructions = []
    for spec in chosen.instructions:
        fields = [{**asdict(f), "kind": f.kind.value, "choices": list(f.choices)} for f in spec.fields]
        told = {"mnemonic": spec.mnemonic, "opcode": spec.opcode, "timing": spec.timing, "doc": spec.doc}
        instructions.append({**told, "fields": fields})
    return {
        "name": chosen.name,
        "version": chosen.version,
        "word_bytes": chosen.word_bytes,
        "registers": [asdict(term) for term in chosen.registers],
        "spaces": [asdict(term) for term in chosen.spaces],
        "instructions": instructions,
    }
