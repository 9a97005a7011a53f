"""Files whose lengths are not what they declare, as errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssmc.diagnostics import UserError
from ssmc.frontend.findings import Refusal

ONE_RATE = "streams of different rates cannot meet: give the slower input at the rate of the faster one"


def several_lengths(lengths: Sequence[str], path: str | Path, error: UserError) -> UserError:
    """`error` came of taking dynamic lengths of different names for one."""
    return UserError(
        "its inputs are not of one length",
        where=str(path),
        why=f"the lengths {' and '.join(map(repr, lengths))} are taken for one and the same, and there {error.where} "
        f"fails: {error.what}",
        hint=ONE_RATE,
    )


def two_lengths(fast: str, steps: int, slow: str, path: Path) -> UserError:
    """The file goes over the steps of input `fast`, and input `slow` has another number of them."""
    return UserError(
        "its inputs are not of one length",
        where=str(path),
        why=f"it goes over the {steps} steps of '{fast}', and '{slow}' has no axis of so many",
        hint=ONE_RATE,
    )


def fixed_size(found: Refusal, path: str | Path) -> UserError:
    """A node has the size within it that the file was traced at."""
    return UserError(
        "a size is written into the file that the file declares dynamic",
        where=str(path),
        why=f"{found.op} '{found.node}': {found.reason}",
        hint="export it at fixed sizes, or so that its shapes follow those of its inputs",
    )


def in_words(error: UserError) -> str:
    """An error as the reason of another one."""
    return " ".join(filter(None, (error.where and f"{error.where}:", error.what, error.why and f"({error.why})")))


def some_lengths_only(path: str | Path, length: int, reason: str) -> UserError:
    """The file does not run at a length that it was studied at."""
    return UserError(
        f"the file does not run at {length} steps, though it declares their number dynamic",
        where=str(path),
        why=reason,
        hint="export it at a fixed length, or so that its shapes follow those of its inputs",
    )
