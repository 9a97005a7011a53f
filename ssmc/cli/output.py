"""How commands talk: tables for people, JSON for programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

LONGEST_NUMBER = 24  # as in "at least 1,234,567"
WIDTH = 120  # where standard output is no terminal

_LONG = re.compile(r"\S{321,}")  # characters that no space parts
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but the tab and the new line


def readable(message: str) -> str:
    """A message as a terminal can show it: names of any length shortened, control characters spelt out."""
    spelt = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", message)
    return _LONG.sub(lambda found: f"{found[0][:120]}...({len(found[0]) - 160} more)...{found[0][-40:]}", spelt)


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    click.echo(json_text(value), nl=False)


def json_text(value: Any) -> str:
    """A report as JSON text. Raises ValueError where it holds NaN or infinity."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def console(*, stderr: bool = False) -> Console:
    """Where tables and progress go; plain text of a fixed width where that is no terminal."""
    from rich.console import Console

    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, width=None if terminal else WIDTH, highlight=False)


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int | None = None
) -> None:
    """A table whose first `numbers` columns are text and whose others are numbers (None: all text).

    Text wraps where the console is too narrow; numbers, and what is as short, do not.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title) or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=0)
    given = [tuple(row) for row in rows]
    for index, column in enumerate(columns):
        right = numbers is not None and index >= numbers
        short = right and all(len(row[index]) <= LONGEST_NUMBER for row in given)
        table.add_column(escape(column), justify="right" if right else "left", overflow="fold", no_wrap=short)
    for row in given:
        table.add_row(*(escape(cell) for cell in row))
    console().print(table)
