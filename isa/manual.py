"""The reference manual of an instruction set, generated from its table as Markdown.

``python -m isa.manual --write`` renews the committed manuals (``docs/isa-NAME.md``); without it the command
says which are stale.
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from isa.fields import Field, Kind
from isa.operands import float_text, placeholder
from isa.registry import load_set, names
from isa.spec import InstructionSet, InstructionSpec

DOCS = Path(__file__).parent.parent / "docs"
"""Where the manuals of this repository are committed."""
_COMMON = 4
"""Flags, and instructions that end with them, from which on they are explained once (ours)."""


def render(isa: InstructionSet) -> str:
    """The manual of `isa`: registers, spaces, timing classes, and of each instruction format, fields,
    action, notes and timing. Flags that many instructions end with stand there once.
    """
    common = _common_flags(isa)

    def own(spec: InstructionSpec) -> tuple[tuple[Field, int], ...]:
        return spec.layout[: -len(common)] if _ends_with(spec, common) else spec.layout

    def signature(spec: InstructionSpec) -> str:
        fields = [placeholder(field) for field, _ in own(spec)]
        fields += ["[common flags]"] if len(fields) < len(spec.fields) else []
        return f"{spec.mnemonic} {', '.join(fields)}".rstrip()

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.filters |= {"signature": signature, "anchor": _anchor, "cell": _cell}
    environment.globals |= {"bits": _bits, "values": _values}
    template = resources.files("isa").joinpath("manual.md.j2").read_text(encoding="utf-8")
    text = environment.from_string(template).render(isa=isa, common=common, own=own)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _ends_with(spec: InstructionSpec, flags: tuple[Field, ...]) -> bool:
    return bool(flags) and spec.fields[-len(flags) :] == flags


def _common_flags(isa: InstructionSet) -> tuple[Field, ...]:
    """The run of flags that spares most lines where it is explained once; nothing where none is worth it."""
    ends = (spec.fields[n:] for spec in isa.instructions for n in range(len(spec.fields)))
    runs = {run: sum(_ends_with(spec, run) for spec in isa.instructions) for run in ends if len(run) >= _COMMON}
    shared = {run: count * len(run) for run, count in runs.items() if count >= _COMMON}
    return max((run for run in shared if all(f.kind is Kind.FLAG for f in run)), key=shared.__getitem__, default=())


def stale(folder: Path) -> dict[Path, str]:
    """The manuals in `folder` that are not what the tables say, each with the text that it should have."""
    wanted = {folder / f"isa-{name}.md": render(load_set(name)) for name in names()}
    return {
        path: text for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    }


def _bits(field: Field, low: int) -> str:
    return f"{low + field.bits - 1}..{low}" if field.bits > 1 else f"{low}"


def _values(field: Field) -> str:
    match field.kind:
        case Kind.ADDR | Kind.IMM:
            low, high = field.range
            text = f"{low}..{high}" + (f" {field.unit}" if field.unit else "")
        case Kind.ENUM:
            text = ", ".join(f"`{choice}`" for choice in field.choices)
        case Kind.FLOAT:
            text = f"float{field.bits}" + (f", {field.unit}" if field.unit else "")
        case Kind.FLAG:
            text = f"`{field.name}` or nothing"
        case _:
            text = ""
    if not field.optional or field.kind is Kind.FLAG:
        return text
    default = field.default
    if field.kind is Kind.FLOAT and isinstance(default, float):
        default = float_text(default, field.bits)
    said = "none" if field.kind is Kind.DATA else f"`{default}`"
    return f"{text}; default {said}".removeprefix("; ")


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "", heading.lower())


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def main(arguments: list[str] | None = None) -> int:
    """The command: 0 when the committed manuals are true (or were written), 1 when some are stale."""
    parser = argparse.ArgumentParser(prog="python -m isa.manual", description="The instruction set manuals in docs/.")
    parser.add_argument("--write", action="store_true", help="write the manuals that are stale")
    parser.add_argument("--folder", type=Path, default=DOCS, help="where they are (default: %(default)s)")
    options = parser.parse_args(arguments)
    for path, text in (found := stale(options.folder)).items():
        if options.write:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        print(f"{path.name}: {'written' if options.write else 'stale (renew with --write)'}")
    return 0 if options.write or not found else 1


if __name__ == "__main__":
    sys.exit(main())
