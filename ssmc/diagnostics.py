"""The one kind of error a user is meant to see: what, where, why, what to do."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(Exception):
    """Bad input, told in one message; the command line prints it and exits with status 2.

    `what` is the failure in one clause, `where` a file:line:column, an ONNX node or a pass, `why` the
    reason, `hint` what the user can do about it. `node` names an ONNX node that is to blame, which is `where` then.
    """

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "", node: str = "") -> None:
        self.what, self.where, self.why, self.hint = what, where or (node and f"node '{node}'"), why, hint
        self.node = node
        super().__init__(what)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        lines = [head]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.hint:
            lines.append(f"  do:  {self.hint}")
        return "\n".join(lines)


class Misfit(UserError):
    """The model does not fit the architecture: demand, bound, gap, and the settings that would close it."""

    def __init__(
        self, resource: str, demand: float, bound: float, *, unit: str = "", where: str = "", levers: str = ""
    ) -> None:
        self.resource, self.demand, self.bound = resource, demand, bound
        super().__init__(
            f"the model does not fit: {resource}",
            where=where,
            why=f"demand {demand:g} {unit}, bound {bound:g} {unit}, gap {demand - bound:g} {unit}".replace(" ,", ","),
            hint=levers,
        )


WIDEST = 160  # of a longer line a message shows the part around the mistake
LONGEST_NAME = 200  # that can be a slip of the pen


def near(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` for the nearest known word, or nothing; capitals do not count."""
    from difflib import get_close_matches

    names = {name.lower(): name for name in sorted(set(known), reverse=True)}
    found = get_close_matches(word.lower(), names, n=1) if len(word) <= LONGEST_NAME else []
    return f"did you mean '{names[found[0]]}'?" if found else ""


def pointed(source: str, at: int, width: int) -> str:
    """A line of text with carets under its characters from `at` on, as messages show it."""
    first = max(at - WIDEST // 2, 0) if len(source) > WIDEST else 0
    shown, at = source[first : first + WIDEST], at - first
    return f"    {shown}\n    {' ' * at}{'^' * max(1, min(width, len(shown) - at))}"


def near_or_all(word: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known word, or all of them where none is near."""
    known = sorted(set(known))
    return near(word, known) or (f"there are: {', '.join(known)}" if known else "there are none")
