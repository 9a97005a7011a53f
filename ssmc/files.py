"""Writing files whole or not at all."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError


def write(path: str | Path, content: str | bytes) -> None:
    """Write `content` to `path`; what stood there stays until the new file is complete.

    Raises UserError where the file cannot be written.
    """
    path = Path(path)
    special = path.exists() and not path.is_file()  # a terminal, a pipe: nothing to keep whole
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        try:
            with open(path if special else temporary, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
            if not special:
                os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError("the file cannot be written", where=str(path), why=error.strerror or str(error)) from None


def write_arrays(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays as an .npz file. Raises UserError where the file cannot be written."""
    buffer = io.BytesIO()  # a zip file is written back and forth, which not every place allows
    np.savez(buffer, **dict(arrays))
    write(path, buffer.getvalue())


def writable(path: str | Path, *, taken: Iterable[str | Path | None] = ()) -> None:
    """Raise UserError where a file could not be put at `path`: better before the work than after it.

    `taken` are files that the same command reads or writes; devices and pipes may be written twice.
    """
    try:
        folder = Path(path).resolve().parent
    except (OSError, RuntimeError) as error:  # links that lead round in a circle, of which Python tells in two ways
        why = "its symbolic links lead round in a circle" if isinstance(error, RuntimeError) else error.strerror
        raise UserError("the file cannot be written", where=str(path), why=why or str(error)) from None
    if not folder.is_dir():
        raise UserError("the folder does not exist", where=str(folder), hint="make it, or write elsewhere")
    if Path(path).is_dir():
        raise UserError("this is a folder, not a file", where=str(path))
    special = Path(path).exists() and not Path(path).is_file()
    if not os.access(path if special else folder, os.W_OK if special else os.W_OK | os.X_OK):
        raise UserError("the file cannot be written", where=str(path), why=f"no permission to write to {folder}")
    if special:
        return
    if any(other is not None and os.path.realpath(other) == os.path.realpath(path) for other in taken):
        raise UserError("the command reads or writes this file already", where=str(path), hint="write elsewhere")
