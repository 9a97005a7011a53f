"""The host's table of streams: entries that are parts of others."""

from __future__ import annotations

from typing import Any

from isa import Program


def parts_of(program: Program) -> dict[int, tuple[int, int, int]]:
    """By the number of an entry that is a part of another: the number of that one, the first word there, the words."""
    streams: Any = program.meta.get("streams", ())
    return {
        number: (int(stream["part_of"][0]), int(stream["part_of"][1]), int(stream["words"]))
        for number, stream in enumerate(streams)
        if "part_of" in stream
    }
