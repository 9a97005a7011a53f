"""Reading text that may have no end, as that of a device or a pipe."""

from __future__ import annotations

from pathlib import Path

from ssmc.diagnostics import UserError


def read_text(path: str | Path, most: int, *, encoding: str = "utf-8") -> str:
    """The text of a file of at most `most` bytes.

    Raises UserError where there are more, OSError and UnicodeDecodeError as reading does.
    """
    with open(path, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise UserError(
            f"this is more than {most >> 20} MiB of text", where=str(path), hint="give the file that was meant"
        )
    return content.decode(encoding)
