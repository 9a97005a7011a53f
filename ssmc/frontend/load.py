"""`load_model`: an ONNX file as a graph of linear systems and what stands around them, proved to be the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from ssmc.diagnostics import UserError
from ssmc.frontend.attempts import Attempt, Source
from ssmc.frontend.findings import Findings, Refusal, refuse, with_told
from ssmc.frontend.model import SYSTEMS, Model, count_other_ops, delays_told, describe_systems, mixes_time, with_roles
from ssmc.frontend.proofs.baked import baked_size, runs_at
from ssmc.frontend.proofs.levels import computed_levels, fixed_levels
from ssmc.frontend.proofs.reference import MISTYPED, mistyped
from ssmc.frontend.proofs.traced import unrolled_size
from ssmc.frontend.reasons import Kind
from ssmc.frontend.source import rounding
from ssmc.frontend.source.announced import TooLarge
from ssmc.frontend.source.blame import blame_refusals, blaming_the_file
from ssmc.frontend.source.collection import built_aside
from ssmc.frontend.source.images import patched
from ssmc.frontend.source.importer import import_model
from ssmc.frontend.source.interface import dynamic_lengths, is_dynamic
from ssmc.frontend.source.precision import coarsest_format, coarsest_table
from ssmc.frontend.source.proto import ModelFile, read_model
from ssmc.frontend.source.rates import other_length
from ssmc.frontend.source.refused import refused_for
from ssmc.frontend.source.rings import ring
from ssmc.frontend.source.scales import with_scales
from ssmc.frontend.source.sizes import DIVISIBLE
from ssmc.frontend.source.unknown import known_part
from ssmc.ir.graph import Graph
from ssmc.threads import one_blas_thread

ONE_RATE = "streams of different rates cannot meet: give the slower input at the rate of the faster one"
FAILED = 3  # the rank of a reading that does not hold


def load_model(
    path: str | Path,
    *,
    tolerance: float = 1e-6,
    states: Mapping[str, str] | None = None,
    strict: bool = True,
    drop_rounding: bool = False,
) -> Model:
    """Lift the model in `path`.

    `tolerance` bounds the error of a system that is fitted to a kernel, relative to the kernel's largest tap, and that
    of the lifted model against the file, relative to the largest output, both in float64.
    `states` names the state inputs of a one-step model and the outputs that are their next values, where that is not
    to be found out. With `strict` false, what cannot be lifted is listed in `Model.unsupported` instead of raised. With
    `drop_rounding` the model is lifted as if nothing but its weights were quantised (`rounding`); a note says what that
    changes.

    Raises UserError for a file that is not a model, that holds no state-space system, or that has nodes which cannot
    be translated (all of them in one message).
    """
    with (
        one_blas_thread(),
        np.errstate(all="ignore"),
        blaming_the_file(path),
        ThreadPoolExecutor(max_workers=1) as aside,
        built_aside() as built,
    ):
        file = read_model(path)
        graph = import_model(file, path)
        if graph.attributes["unknown"]:
            return _with_unknown(Path(path), file, graph, tolerance, strict, aside)
        dropped = rounding.drop_rounding(graph) if drop_rounding else []
        source = Source(Path(path), file, graph, tolerance, aside, len(dropped))
        built()
        traced = unrolled_size(source.file, source.types, source.length)
        if traced is not None:
            return _not_dynamic(source.path, baked_size(source.as_file()) or traced, strict)
        levels = computed_levels(source.file, source.types) if is_dynamic(source.types)[1] else None
        if levels is not None:
            return _not_dynamic(source.path, levels, strict)
        best = _reading(source, states)
        if _rank(best) == FAILED and dropped:
            graph = import_model(file, path)
            rounding.drop_rounding(graph, keep_relu=False)
            source = Source(Path(path), file, graph, tolerance, aside, len(dropped))
            best = _reading(source, states)
        if states is None and best.form == "step":
            best.findings.refusals += source.nonlinear(best.states)
        baked = baked_size(source.as_file()) if _rank(best) == FAILED else None
        if baked is None and _differs_with_length(source, best):
            baked = fixed_levels(source.file)
        if baked is not None:
            return _not_dynamic(source.path, baked, strict)
        _tell_refusals(source, best, strict)
        if strict:
            _require_lifted(best, str(path), source)
        best.notes += _newer_than_known(file)
        return replace(_as_model(best, source.path), precision=coarsest_format(source.file, _declared(source)))


def _tell_refusals(source: Source, best: Attempt, strict: bool) -> None:
    """Let the refusals say what in the file is behind them. Raises UserError where it runs at some lengths only."""
    findings = best.findings
    if strict and findings.refusals:
        _require_types(source)
    blame_refusals(str(source.path), findings.refusals)
    up = any(Kind.RISING in refusal.kind for refusal in findings.refusals)  # then it is no wonder
    if strict and findings.refusals and not up and _runs_nowhere(source):
        first = findings.refusals[0]
        raise _at_some_lengths_only(source, f"{first.op} '{first.node}': {first.reason}")
    refused = {refusal.node for refusal in findings.refusals}
    if strict and refused and all(Kind.NOT_TIME in refusal.kind for refusal in findings.refusals):
        apart = other_length(source.listing, source.point(0), refused)
        if apart is not None:
            raise _of_two_lengths(*apart, source.path)
    turning = ring(source.listing, source.point(0)) if refused else None
    image = turning or patched(source.file, source.point(0), refused) if refused else None
    findings.refusals = findings.refusals if image is None else [image]
    findings.refusals = with_scales(source.file, with_told(findings))


def _reading(source: Source, states: Mapping[str, str] | None) -> Attempt:
    """The best reading. Raises UserError, with what in the file is to blame where that can be told."""
    try:
        return _at_some_length(source, states)
    except TooLarge:
        raise
    except UserError as error:
        told = [(c, refused_for(c.kind, c.attrs)) for c in source.file.calls]
        refused = [Refusal(c.name, c.kind, reason) for c, reason in told if reason is not None]
        if any(error.node == refusal.node for refusal in refused):  # no need to run it
            refuse(refused, str(source.path))
        baked = baked_size(source.as_file())
        if baked is not None:
            raise _baked(baked, source.path) from error
        lengths = dynamic_lengths(source.types)
        if len(lengths) > 1 and error.node:
            raise _of_several_lengths(lengths, source.path, error) from error
        if _runs_nowhere(source):
            raise _at_some_lengths_only(source, _in_words(error)) from error
        raise


def _of_several_lengths(lengths: Sequence[str], path: str | Path, error: UserError) -> UserError:
    return UserError(
        "its inputs are not of one length",
        where=str(path),
        why=f"the lengths {' and '.join(map(repr, lengths))} are taken for one and the same, and there {error.where} "
        f"fails: {error.what}",
        hint=ONE_RATE,
    )


def _of_two_lengths(fast: str, steps: int, slow: str, path: Path) -> UserError:
    return UserError(
        "its inputs are not of one length",
        where=str(path),
        why=f"it goes over the {steps} steps of '{fast}', and '{slow}' has no axis of so many",
        hint=ONE_RATE,
    )


def _not_dynamic(path: Path, found: Refusal, strict: bool) -> Model:
    if strict:
        raise _baked(found, path)
    return _as_model(Attempt("sequence", Graph("model"), findings=Findings(refusals=[found])), path)


def _baked(found: Refusal, path: str | Path) -> UserError:
    return UserError(
        "a size is written into the file that the file declares dynamic",
        where=str(path),
        why=f"{found.op} '{found.node}': {found.reason}",
        hint="export it at fixed sizes, or so that its shapes follow those of its inputs",
    )


def _require_types(source: Source) -> None:
    """Raises UserError where onnxruntime says that operands do not fit their ops: a file that nothing runs."""
    told = mistyped(source.model)
    if told is not None:
        raise UserError("onnxruntime does not take the file", where=str(source.path), why=told, hint=MISTYPED)


def _runs_nowhere(source: Source) -> bool:
    """Is the length dynamic, and the file does not run at any that it was studied at?"""
    return is_dynamic(source.types)[1] and not runs_at(source.as_file(), source.length)


def _in_words(error: UserError) -> str:
    return " ".join(filter(None, (error.where and f"{error.where}:", error.what, error.why and f"({error.why})")))


def _at_some_lengths_only(source: Source, reason: str) -> UserError:
    return UserError(
        f"the file does not run at {source.length} steps, though it declares their number dynamic",
        where=str(source.path),
        why=reason,
        hint="export it at a fixed length, or so that its shapes follow those of its inputs",
    )


def _at_some_length(source: Source, states: Mapping[str, str] | None) -> Attempt:
    """The best reading, at a length that the file can split into its windows."""
    lengths = iter(DIVISIBLE if is_dynamic(source.types)[1] else ())
    while True:
        try:
            best = _best(source, states)
        except TooLarge:
            raise
        except UserError:
            length = next((n for n in lengths if runs_at(source.as_file(), n)), None)
            if length is None or runs_at(source.as_file(), source.length):
                raise
        else:
            length = next(lengths, None)
            if length is None or not any(Kind.INDIVISIBLE in refusal.kind for refusal in best.findings.refusals):
                return best
        source.study(length)


def _best(source: Source, states: Mapping[str, str] | None) -> Attempt:
    """The first reading of the file that holds; the likeliest one where none does."""
    best = _likeliest(source.attempts(states), lambda: any(True for _ in source.suspected({})))
    if best is None:
        raise UserError(
            "no axis of the inputs can be time", where=str(source.path), hint="export with inputs (batch, time, ...)"
        )
    return best


def _likeliest(attempts: Iterable[Attempt], is_step: Callable[[], bool] = lambda: False) -> Attempt | None:
    """The first attempt that holds, else the first of those that nearly do, else the first.

    `is_step` tells whether the file may be one step of a network, which without its states mixes no time.
    """
    best: Attempt | None = None
    first: Attempt | None = None
    for attempt in attempts:
        first = first or attempt
        alone = best is not None and _rank(best) == FAILED > _rank(attempt) and not mixes_time(attempt.graph)
        if alone and best is not None and (best.form == "step" or not is_step()):
            continue  # read along its features alone, a network whose features do not meet looks like nothing
        if best is None or (_rank(attempt) < _rank(best) and _rank(attempt) < 2) or _fits_better(attempt, best):
            best = attempt  # the likeliest reading is the one to report
        if _rank(best) == 0:
            break
    if first is not None and best is not None and _rank(best) < FAILED == _rank(first):
        best.notes += tuple(_another_axis(first, best))
    return best


def _another_axis(first: Attempt, best: Attempt) -> Iterator[str]:
    """Which inputs are read along another axis than that of the likeliest reading, which does not hold."""
    if first.form == best.form == "sequence":
        for usual, taken in zip(first.inputs, best.inputs, strict=True):
            if "t" in taken.axes and "t" in usual.axes and taken.axes != usual.axes:
                yield (
                    f"axis {taken.axes.index('t')} of '{taken.name}' is taken for time, as along axis "
                    f"{usual.axes.index('t')} nothing holds"
                )


def _fits_better(attempt: Attempt, best: Attempt) -> bool:
    """Does the file itself say that `best` takes another axis for time than it does, and not so of this reading?"""
    if _rank(best) != FAILED or attempt.form != best.form or attempt.failure is not None:
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


def _rank(attempt: Attempt) -> int:
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


def _with_unknown(path: Path, file: ModelFile, graph: Graph, tolerance: float, strict: bool, aside: Executor) -> Model:
    """A model with unknown ops: these, and what would not compile before them, in one list."""
    unknown: dict[str, tuple[Refusal, ...]] = graph.attributes["unknown"]
    part = known_part(graph, unknown)
    attempt = Attempt("sequence", Graph("model"))
    if part is not None:
        source = Source(path, file, part, tolerance, aside)
        with suppress(UserError):
            attempt = _likeliest(source.parts()) or attempt
    refusals = [*(r for told in unknown.values() for r in told), *attempt.findings.refusals]
    if strict:
        refuse(refusals, str(path))
    attempt.findings.refusals = refusals
    return _as_model(attempt, path)


def _require_lifted(attempt: Attempt, path: str, source: Source) -> None:
    if attempt.findings.refusals:
        refuse(attempt.findings.refusals, path)
    if attempt.failure is not None:
        raise attempt.failure
    suspects = [] if attempt.findings.lifts else list(source.suspected(attempt.states))
    if not mixes_time(attempt.graph) or suspects:
        raise UserError(
            "no state-space system was found in the model",
            where=path,
            why="; ".join([f"{_time_told(attempt)}every output depends on the present step alone", *suspects]),
            hint="if this is one step of a recurrent model, export its states as inputs and outputs"
            + (" (--state IN=OUT says which they are)" if suspects else "")
            + "; if it makes its steps of an input that has none, as of one image, give it an input for every step",
        )


def _time_told(attempt: Attempt) -> str:
    """Which axis is time, where it is not the one behind the batch."""
    port = next((p for p in attempt.inputs if "t" in p.axes), None)
    if attempt.form != "sequence" or port is None or port.axes[:2] == "bt":
        return ""
    return f"axis {port.axes.index('t')} of '{port.name}' taken for time, as no other axis gives a system, "


def _differs_with_length(source: Source, best: Attempt) -> bool:
    """Does a reading fail because the file does other things at another length?"""
    unlike = any(Kind.UNLIKE in refusal.kind for refusal in best.findings.refusals)
    return is_dynamic(source.types)[1] and (unlike or best.failure is not None)


def _newer_than_known(file: ModelFile) -> tuple[str, ...]:
    """A note on a file of an opset that nothing here knows."""
    newest = onnx.defs.onnx_opset_version()
    opset = max((int(e.version) for e in file.model.opset_import if e.domain in ("", "ai.onnx")), default=1)
    if opset <= newest:
        return ()
    return (
        f"the file is of opset {opset}, and the newest known here is {newest}: its ops are read as those of that one",
    )


def _declared(source: Source) -> Iterator[str]:
    """Formats of the file's inputs and outputs, and of tables that are taken as exact: they move what it gives."""
    if source.as_stored is not None:
        yield coarsest_table(source.as_stored)
    ends = (kind for node in source.graph.outputs() for kind in node.types)
    yield from (getattr(kind, "dtype", "?") for kind in (*source.types.values(), *ends))


def _as_model(attempt: Attempt, path: Path) -> Model:
    graph, refusals = attempt.graph, attempt.findings.refusals
    graph.attributes.update(form=attempt.form, states=dict(attempt.states))
    if not refusals and (error := attempt.failure) is not None:
        refusals = [Refusal(path.name, "model", f"{error.what}: {error.why}" if error.why else error.what)]
    inputs = with_roles(graph, attempt.inputs) if attempt.form == "sequence" else attempt.inputs
    return Model(
        graph,
        path,
        attempt.form,
        inputs,
        attempt.outputs,
        attempt.states,
        describe_systems(graph, [*attempt.findings.filters, *attempt.findings.lifts]),
        count_other_ops(graph),
        tuple(dict.fromkeys(refusals)),
        tuple(attempt.proofs),
        (*attempt.notes, *delays_told(graph)),
    )
