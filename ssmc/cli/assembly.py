"""`ssmc asm` and `ssmc disasm`: text and program."""

from __future__ import annotations

from pathlib import Path

import click

from ssmc.cli.options import file_name, json_option, program_file
from ssmc.cli.output import print_json
from ssmc.diagnostics import UserError
from ssmc.text import read_text

MOST = 1 << 29  # bytes of assembly (ours)


@click.command("asm")
@click.argument("source", type=file_name, metavar="P.asm")
@click.option("-o", "--output", type=file_name, metavar="P.ssmx", help="The program; default: the text's name.")
@click.option(
    "--data",
    type=file_name,
    metavar="D.ssmx",
    help="A program or safetensors file with the constants that the text names.",
)
@json_option
def asm_command(source: str, output: str | None, data: str | None, as_json: bool) -> None:
    """Assemble text into a program."""
    import isa
    from ssmc import files
    from ssmc.driver import SUFFIX, assemble

    path = program_file(output, Path(source).parent / (Path(source).stem + SUFFIX))
    files.writable(path, taken=[source])
    try:
        text = read_text(source, MOST, encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("not a text file", where=source, hint="assembly is text; `ssmc disasm` makes it") from None
    except OSError as error:
        raise UserError("the assembly cannot be read", where=source, why=error.strerror or str(error)) from None
    executable = assemble(text, source, isa.load_data(data) if data else None)
    executable.save(path)
    count = executable.program.instruction_count
    if as_json:
        print_json({"program": str(path), "target": executable.program.target, "instructions": count})
    else:
        click.echo(f"{path}: {count} instructions for {executable.program.target}")


@click.command("disasm")
@click.argument("program", type=file_name, metavar="P.ssmx")
@click.option("-o", "--output", type=file_name, metavar="P.asm", help="Where the text goes; default: standard output.")
def disasm_command(program: str, output: str | None) -> None:
    """Show a program as assembly text."""
    from ssmc import files
    from ssmc.driver import load_program

    if output:
        files.writable(output, taken=[program])
    text = load_program(program).assembly()
    if output:
        files.write(output, text)
    else:
        click.echo(text, nl=False)
