"""The end of every reading: its outputs, the graph simplified, and the proof that it is the file's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.attempts.attempt import Attempt, add_output
from ssmc.frontend.attempts.source import Source
from ssmc.frontend.findings import Findings, Refusal, identified_in, limited, replaced
from ssmc.frontend.graph.flow import Flow, Refused, Tracked
from ssmc.frontend.proofs.baked import runs_at
from ssmc.frontend.proofs.levels import fixed_levels, reach
from ssmc.frontend.proofs.proving import prove
from ssmc.frontend.proofs.trials import Case, gives_numbers
from ssmc.frontend.rules.merged import no_output
from ssmc.frontend.simplify.asynchronous import mark_clocks
from ssmc.frontend.simplify.simplifying import runs_again, simplify
from ssmc.frontend.source.bounds import MOST, MOST_WORK, SEEN, Bounds, bounds_of
from ssmc.frontend.source.sizes import BATCH, DIVISIBLE, ENDING, LENGTH, LONGEST, other_length, strides
from ssmc.frontend.source.taps import span
from ssmc.frontend.states.stabilised import blamed, told
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value

BEHIND, FAR = 16, 4096  # ours: times what was looked at of kernels that go on, and steps, that these are proved at


def conclude(
    source: Source,
    attempt: Attempt,
    translator: Translator,
    found: Mapping[str, Tracked],
    pairs: Mapping[str, str],
    like: Value | None = None,
) -> None:
    """Give the graph its outputs, simplify it and prove it. `pairs` are states and what feeds them, `like` is a
    stream for what no stream leads to."""
    lost = [name for name, item in found.items() if isinstance(item, Refused)]
    if lost and not attempt.findings.refusals:
        attempt.findings.refusals += [Refusal(name, "output", "nothing gives its value") for name in lost]
    if attempt.findings.refusals:
        return
    outputs = []
    for name, item in found.items():
        reason = no_output(item)
        if reason:
            attempt.findings.refusals.append(Refusal(name, "output", reason))
            return
        assert isinstance(item, Flow)
        outputs.append(add_output(source, attempt, translator.builder, name, item, name in pairs.values(), like))
    attempt.outputs = tuple(outputs)
    simplify_graph(attempt, () if source.is_dynamic()[1] else translator.builder.tables)
    attempt.notes += attempt.tables.notes(attempt.graph)
    attempt.findings.refusals += attempt.tables.refusals(attempt.graph)
    if not attempt.findings.refusals:
        _prove(source, attempt)


def simplify_graph(attempt: Attempt, whole: Collection[str] = ()) -> None:
    """Simplify the graph of a reading; which of its inputs are times between steps is known then. `whole` are tables
    that have a row for each step there is."""
    simplify(attempt.graph, attempt.findings, whole)
    attempt.notes += runs_again(attempt.graph, attempt.findings)
    clocks = mark_clocks(attempt.graph)
    attempt.inputs = tuple(replace(p, role="dt") if p.name in clocks else p for p in attempt.inputs)


def _prove(source: Source, attempt: Attempt) -> None:
    try:
        bounds = bounds_of(source.file, attempt.findings.cuts) if source.is_dynamic()[1] else Bounds(0, 0)
        size, other = (BATCH, source.length), _other_size(source, attempt.findings, bounds)
        case = _case(source, attempt)
        attempt.proofs, notes = prove(case, source.sizes(*size), source.sizes(*other))
        attempt.notes += notes
        fewer = source.sizes(BATCH, _shorter(source))
        if min(fewer) and gives_numbers(case, fewer):
            prove(case, source.sizes(*size), fewer)
        attempt.notes += (*told(attempt.findings), *limited(attempt.findings), *bounds.told())
        if attempt.findings.multiple > 1 and source.is_dynamic()[1]:
            attempt.notes += (f"the number of steps must be a multiple of {attempt.findings.multiple} (up-sampling)",)
    except UserError as error:
        attempt.failure = blamed(attempt.findings, error)
    except ValueError as error:  # sizes of another reading of the axes
        attempt.failure = UserError("the lifted model does not fit its inputs at another size", why=str(error))


def far_length(source: Source, findings: Findings) -> int:
    """How long a sequence is that tells whether the systems that kernels became are right behind the taps that were
    looked at, if the file runs so long: as what it has stored of them, or a multiple of what was looked at."""
    if source.stored and replaced(findings):
        far = min(source.stored, LONGEST)
    else:
        far = min(BEHIND * source.length, FAR) if identified_in(findings) else 0
    return far if far > source.length and runs_at(source.as_file(), far) else 0


def spanned(source: Source) -> int:
    """A length behind all filters, windows and shifts of the file, one behind the other; 0 where that is too long."""
    weights = sum(int(np.size(a)) for a in source.file.constants.values()) + len(source.file.calls)
    found = 0 if fixed_levels(source.file) else span(source.file)
    return found + SEEN if 0 < found <= MOST and found * weights <= MOST_WORK else 0


def _shorter(source: Source) -> int:
    """A length before the ends of filters and shifts, where the file was studied behind them; 0 where there is none."""
    short = LENGTH * strides(source.listing)
    usual = source.stored or not source.is_dynamic()[1] or source.length in (*DIVISIBLE, *ENDING)
    if usual or not short < source.length <= ENDING[-1] or fixed_levels(source.file):
        return 0
    return short


def _other_size(source: Source, findings: Findings, bounds: Bounds) -> tuple[int, int]:
    """A size that differs where sizes are dynamic; not longer than what the file has stored."""
    dynamic_batch, dynamic_length = source.is_dynamic()
    if not dynamic_length:
        return 1 if dynamic_batch else BATCH, source.length
    least = max(2 * reach(source.file), bounds.behind, spanned(source))
    if far := far_length(source, findings):
        return 1 if dynamic_batch else BATCH, far if source.stored else max(far, least)
    other = other_length(source.length, source.stored, strides(source.listing), least)
    return 1 if dynamic_batch else BATCH, other


def _case(source: Source, attempt: Attempt) -> Case:
    return Case(
        path=source.path,
        model=source.model,
        file=source.file,
        types=source.types,
        tolerance=source.tolerance,
        graph=attempt.graph,
        form=attempt.form,
        inputs=attempt.inputs,
        outputs=attempt.outputs,
        states=attempt.states,
        lifts=tuple(attempt.findings.lifts),
        aside=source.aside,
        dropped=source.dropped,
        as_stored=source.as_stored,
    )
