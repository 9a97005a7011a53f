"""The two errors of this room: a bad instruction set, program or file, and a bad line of assembly."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_WIDEST = 160
"""Of a longer source line a message shows the part around the mistake."""


class IsaError(Exception):
    """A program, an instruction set or a program file that is not right; the message says what to do."""


class AsmError(IsaError):
    """A mistake in assembly text, with its place.

    ``str(error)`` is the whole message: ``file:line:column``, the source line, a caret, what was expected
    and what is near. ``line`` and ``column`` count from 1.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str,
        line: int,
        column: int,
        source: str = "",
        width: int = 1,
        expected: str = "",
        suggestion: str = "",
    ) -> None:
        self.message = message
        self.file = file
        self.line = line
        self.column = column
        self.source = source
        self.width = width
        self.expected = expected
        self.suggestion = suggestion
        super().__init__(self._render())

    def _render(self) -> str:
        lines = [f"{self.file}:{self.line}:{self.column}: error: {self.message}"]
        if self.source.strip():
            start = max(self.column - 1, 0)
            source = self.source
            if len(source) > _WIDEST:
                first = max(start - _WIDEST // 2, 0)
                source, start = source[first : first + _WIDEST], start - first
            # Tabs stay tabs under the source line, so that the caret stands where the reader sees the mistake.
            margin = "".join("\t" if c == "\t" else " " for c in source[:start].ljust(start))
            room = max(len(source) - start, 1)
            lines += [f"    {source}", f"    {margin}{'^' * max(1, min(self.width, room))}"]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.suggestion:
            lines.append(f"  {self.suggestion}")
        return "\n".join(lines)


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """``did you mean 'x'?`` for the candidate nearest to `word`, or an empty string when none is near."""
    near = difflib.get_close_matches(word, sorted(set(candidates)), n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else ""
