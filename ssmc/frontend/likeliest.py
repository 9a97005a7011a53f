"""Which of several readings of a file's axes holds, or is the likeliest one to report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ssmc.frontend.attempts.attempt import Attempt
from ssmc.frontend.model import SYSTEMS, mixes_time
from ssmc.frontend.reasons import Kind
from ssmc.ir.graph import Graph

FAILED = 3  # the rank of a reading that does not hold


def likeliest(attempts: Iterable[Attempt], is_step: Callable[[], bool] = lambda: False) -> Attempt | None:
    """The first attempt that holds, else the first of those that nearly do, else the first.

    `is_step` tells whether the file may be one step of a network, which without its states mixes no time.
    """
    best: Attempt | None = None
    first: Attempt | None = None
    for attempt in attempts:
        first = first or attempt
        if best is not None and rank(attempt) < rank(best) and not mixes_time(attempt.graph):
            # Read along its samples or its features alone, any network whose samples or features do not meet holds.
            if rank(best) < FAILED and best.findings.lifts:
                continue
            if rank(best) == FAILED and (best.form == "step" or not is_step()):
                continue
        if best is None or (rank(attempt) < rank(best) and rank(attempt) < 2) or _fits_better(attempt, best):
            best = attempt  # the likeliest reading is the one to report
        if rank(best) == 0:
            break
    if first is not None and best is not None and rank(best) < FAILED == rank(first):
        best.notes += tuple(_another_axis(first, best))
    return best


def _another_axis(first: Attempt, best: Attempt) -> Iterator[str]:
    """Which inputs are read along another axis than that of the likeliest reading, which does not hold."""
    if first.form == best.form == "sequence":
        for usual, taken in zip(first.inputs, best.inputs, strict=True):
            sure = taken.axes == "tf" and not isinstance(taken.shape[0], int)  # the one axis that has no size
            if "t" in taken.axes and "t" in usual.axes and taken.axes != usual.axes and not sure:
                yield (
                    f"axis {taken.axes.index('t')} of '{taken.name}' is taken for time, as along axis "
                    f"{usual.axes.index('t')} nothing holds"
                )


def _fits_better(attempt: Attempt, best: Attempt) -> bool:
    """Does the file itself say that `best` takes another axis for time than it does, and not so of this reading?"""
    if rank(best) != FAILED or attempt.form != best.form or attempt.failure is not None:
        return False
    parts = any(Kind.PART_OF_BATCH in refusal.kind for refusal in attempt.findings.refusals)
    return _at_odds(best) and not _at_odds(attempt) and not parts


def _at_odds(attempt: Attempt) -> bool:
    """Does what is refused say that another axis is time than the one taken for it?

    Filters go along another axis, or several nodes take samples one by one; one loop that picks its steps is enough.
    """
    told = [refusal.kind for refusal in attempt.findings.refusals]
    if any(Kind.PICKED in kind for kind in told):
        return True
    filters, parts = (all(wanted in kind for kind in told) for wanted in (Kind.NOT_FEATURES, Kind.PART_OF_BATCH))
    return bool(told) and (filters or (parts and len(told) > 1))


def rank(attempt: Attempt) -> int:
    """0 for a reading that holds; more where it takes an axis for time that may not be it, most where it does not hold.

    Read along its features, a model is a sum over a few steps; right, but nothing that anybody means.
    """
    if attempt.findings.refusals or attempt.failure is not None:
        return FAILED
    if not attempt.findings.spans:
        return 0 if attempt.findings.lifts or not _only_counts(attempt.graph) else 2
    return 1 if attempt.findings.lifts else 2


def _only_counts(graph: Graph) -> bool:
    """Are there systems, and nothing was lifted to any? Then they count steps, no more."""
    return any(True for _ in graph.nodes(*SYSTEMS)) and not any(True for _ in graph.nodes("fir", "delay"))
