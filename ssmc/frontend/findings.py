"""What a translation learned, besides the graph: what could not be said, and which systems were found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from typing import NoReturn

from ssmc.diagnostics import UserError
from ssmc.frontend.reasons import Kind, Reason, as_reason

NOT_TIME = Reason("it scans an axis that is not time", Kind.NOT_TIME)
PICKED_ELSEWHERE = Reason("it picks by the step number from an axis that is not time", Kind.PICKED)
PART_OF_BATCH = Reason("it takes a part of the batch", Kind.PART_OF_BATCH)
NOT_FEATURES = Reason("its channels are not features", Kind.NOT_FEATURES)
SHOWN = 20  # lines of a diagnostic, and nodes of a line


@dataclass(frozen=True)
class Refusal:
    """An ONNX node that could not be translated, and why; `cause` is what broke on it, where something did."""

    node: str
    op: str
    reason: str
    cause: Exception | None = field(default=None, compare=False, repr=False)
    kind: Kind = field(default=Kind.PLAIN, compare=False, repr=False)


def refusal(node: str, op: str, why: Reason | str, cause: Exception | None = None) -> Refusal:
    """The refusal of a node for a reason."""
    told = as_reason(why)
    return Refusal(node, op, told.text, cause, told.kind)


@dataclass(frozen=True)
class Replacement:
    """What `kernels` (their number) of `taps` each became, and how near it is: `how` in words, for the user.

    `residual` is max|h - h'| relative to the largest tap of a kernel, of the worst kernel; `l1` is ||h - h'||_1 of the
    worst output, so that max|y - y'| <= l1 max|u| for every input u to the kernels, over as many steps as they have
    taps.
    Both are 0 for taps that stay taps, but for the last that are left out. `identified` ones were fitted to the taps
    alone.
    """

    how: str
    kernels: int
    taps: int
    residual: float = 0.0
    l1: float = 0.0
    identified: bool = False


@dataclass(frozen=True)
class Lift:
    """A linear system found: its node in the new graph, where it came from, how well it was proved.

    `replacement` is told where the file has a kernel. `joint`: one system for many inputs, where systems inside of the
    region may be simpler.
    """

    node: str
    disguise: str
    where: tuple[str, ...]
    proof_error: float
    replacement: Replacement | None = None
    joint: bool = False


@dataclass
class Findings:
    """Shared by the translators of a model and of its bodies.

    `tolerance` is the error allowed to a system that is fitted to a kernel, relative to the largest tap; `share` is how
    much of it one has that is identified from the taps alone: with 0 they stay taps.
    `stabilisers` are nodes that give running maxima, which were left out because they only keep exponentials in
    range. `filters` are short ones, which are no sign of a system. `told` are exact reasons why a region as a whole
    is no system, which count where the reading that says it op by op fails, too. `spans` counts the nodes that take
    spans of the time axis in a way that no system explains, `chosen` those of them that take steps by their
    numbers. What was pooled is as many steps again after up-sampling where these are a multiple of `multiple`.
    At `cuts` numbers of steps sequences may be cut. `limits` are nodes whose states are linear up to a size, and that.
    """

    tolerance: float = 1e-6
    refusals: list[Refusal] = field(default_factory=list)
    lifts: list[Lift] = field(default_factory=list)
    filters: list[Lift] = field(default_factory=list)
    stabilisers: list[str] = field(default_factory=list)
    limits: list[tuple[str, float]] = field(default_factory=list)
    told: list[Refusal] = field(default_factory=list)
    spans: int = 0
    chosen: int = 0
    multiple: int = 1
    cuts: frozenset[int] = frozenset()
    share: float = 1.0

    def copy(self) -> Findings:
        """As they are now, to go back to."""
        found = replace(self, refusals=list(self.refusals), lifts=list(self.lifts), limits=list(self.limits))
        return replace(found, filters=list(self.filters), stabilisers=list(self.stabilisers), told=list(self.told))

    def restore(self, before: Findings) -> None:
        """Forget what was found since."""
        for f in fields(self):
            setattr(self, f.name, getattr(before, f.name))


def limited(findings: Findings) -> tuple[str, ...]:
    """Notes on states that the file limits, as by a Clip, further out than a model goes."""
    return tuple(
        f"the states that '{node}' gives are lifted as linear: right as long as |x| <= {limit:.1e}, "
        "beyond which the file limits or replaces them"
        for node, limit in dict.fromkeys(findings.limits)
    )


def replaced(findings: Findings) -> bool:
    """Has the file kernels, which became systems or stay taps?"""
    return any(lift.replacement is not None for lift in findings.lifts)


def identified_in(findings: Findings) -> bool:
    """Are there systems that were identified from the taps alone?"""
    return any(lift.replacement is not None and lift.replacement.identified for lift in findings.lifts)


def finer(failure: UserError, tolerance: float, share: float) -> str:
    """A note on kernels that have a `share` of the tolerance, as the model with all of it is not the file's."""
    so = f"are identified within {share * tolerance:.0e}" if share else "stay FIR filters"
    return f"constant kernels {so}, not within {tolerance:.0e} of their largest taps: with that, {failure.what}"


def with_told(findings: Findings) -> list[Refusal]:
    """The refusals; where they only follow from steps that were said one by one, why these had to be."""
    others = [refused for refused in findings.refusals if Kind.NOT_TIME not in refused.kind]
    return findings.refusals if len(others) == len(findings.refusals) or not findings.told else findings.told + others


def refuse(refusals: Iterable[Refusal], path: str) -> NoReturn:
    """Raise one UserError that lists all nodes that cannot be translated; those refused alike in one line.

    Its cause is what broke on the first node that broke something.
    """
    distinct = sorted(dict.fromkeys(refusals), key=lambda r: (r.op, r.reason))
    cause = next((r.cause for r in distinct if r.cause is not None), None)
    lines = []
    for (op, reason), group in groupby(distinct, key=lambda r: (r.op, r.reason)):
        names = [f"'{r.node}'" for r in group]
        lines.append(f"{op} {_limited(names, ', ')}: {reason}")
    raise UserError(
        f"{len(distinct)} node{'s' * (len(distinct) > 1)} cannot be translated\n    " + _limited(lines, "\n    "),
        where=path,
        why="the targets run linear recurrences and what each step computes; nothing else may mix time",
        hint="replace these layers, or export the part of the model before or after them",
    ) from cause


def _limited(items: list[str], separator: str) -> str:
    more = [f"... and {len(items) - SHOWN} more"] if len(items) > SHOWN else []
    return separator.join(items[:SHOWN] + more)
