"""The command itself: its subcommands, and what becomes of errors."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from ssmc.cli.output import readable

# name -> (module, one line for the list); a module is imported when its command is asked for
COMMANDS = {
    "inspect": ("inspect", "What is in a model: systems, sizes, what would not compile."),
    "compile": ("compile", "Compile a model into a program for a target."),
    "run": ("run", "Run a program on its target's simulator."),
    "verify": ("verify", "Compile, simulate, compare with onnxruntime: pass or fail."),
    "asm": ("assembly", "Assembly text to a program."),
    "disasm": ("assembly", "A program to assembly text."),
    "passes": ("listing", "The passes there are, with their options."),
    "targets": ("listing", "The targets there are, with their architectures."),
    "isa": ("listing", "The reference manual of an instruction set."),
    "demo": ("demo", "The packaged samples on both targets, beside onnxruntime."),
}
BAD_INPUT = 2


class _Commands(click.Group):
    """A group that knows its commands' names and lines without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"ssmc.cli.{COMMANDS[cmd_name][0]}"), f"{cmd_name}_command")
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from ssmc.diagnostics import near

            hint = near(args[0], COMMANDS) or f"there are: {', '.join(COMMANDS)}"
            raise click.UsageError(f"no command '{args[0]}'; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"ssmc {version('ssmc')}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="The version.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error (in any place).")
def ssmc() -> None:
    """Compile trained state-space models from ONNX into accelerator programs, and run those on simulators.

    Exit status: 0 done, 1 the answer is no (verify), 2 bad input or usage, 130 stopped by Ctrl-C.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.stdout, sys.stderr = (
        open(os.devnull, "w") if stream is None else stream  # noqa: SIM115 - what the shell closed, until the end
        for stream in (sys.stdout, sys.stderr)
    )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no µ shows something else, and goes on
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line; the exit status. Every error is one message on stderr, a traceback only with --debug."""
    debug = "--debug" in arguments
    try:
        status = ssmc.main([a for a in arguments if a != "--debug"], prog_name="ssmc", standalone_mode=False)
        sys.stdout.flush()
        return int(status or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(readable(shown.getvalue()), err=True, nl=False)
        return BAD_INPUT
    except (click.Abort, KeyboardInterrupt) as stop:
        if isinstance(stop.__cause__, EOFError):  # click takes it for Ctrl-D, but no command of ours asks a question
            return _told(stop.__cause__, debug)
        click.echo("stopped", err=True)
        return 130  # as the shell says of a process that SIGINT ended
    except (BrokenPipeError, SystemExit):  # click itself exits for a broken pipe alone, with a status that says "no"
        return _left()
    except Exception as error:
        return _told(error, debug)


def _told(error: Exception, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    else:
        click.echo(readable(_message(error)), err=True)
    return BAD_INPUT


def _left() -> int:
    """Who reads the output has seen enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _message(error: Exception) -> str:
    from isa import AsmError, IsaError
    from ssmc.diagnostics import UserError
    from ssmc.statespace import StateSpaceError

    if isinstance(error, AsmError):
        return str(error)  # says "error" after the place, as assemblers do
    if isinstance(error, IsaError | UserError | StateSpaceError):
        return f"error: {error}"
    if isinstance(error, MemoryError):
        return "error: the memory is not enough\n  do:  give fewer or shorter sequences at once, or a smaller model"
    if isinstance(error, OSError):
        return f"error: {error.filename or 'the output cannot be written'}: {error.strerror or error}"
    if isinstance(error, EOFError):
        do = "where a full disk cut Python's bytecode off, remove the __pycache__ folders; --debug shows which file"
        return f"error: a file ends too early: {error}\n  do:  {do}"
    return f"error: ssmc failed: {type(error).__name__}: {error}\n  do:  this is a defect; --debug shows where it is"


if __name__ == "__main__":
    main()
