"""`load_model`: an ONNX file as a graph of linear systems and what stands around them, proved to be the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from ssmc.diagnostics import UserError
from ssmc.frontend.attempts.attempt import Attempt
from ssmc.frontend.attempts.attempts import attempts
from ssmc.frontend.attempts.outcome import spanned
from ssmc.frontend.attempts.sequence import beginnings
from ssmc.frontend.attempts.source import Source
from ssmc.frontend.attempts.step import nonlinear, suspected
from ssmc.frontend.findings import Findings, Refusal, refuse, with_told
from ssmc.frontend.lengths import fixed_size, in_words, several_lengths, some_lengths_only, two_lengths
from ssmc.frontend.likeliest import FAILED, likeliest, rank
from ssmc.frontend.model import (
    Model,
    count_other_ops,
    delays_told,
    describe_systems,
    feeds_forward,
    mixes_time,
    with_roles,
)
from ssmc.frontend.proofs.baked import baked_size, breaks_anywhere, runs_at
from ssmc.frontend.proofs.causes import filters_of_all_steps
from ssmc.frontend.proofs.levels import computed_levels, fixed_levels
from ssmc.frontend.proofs.reference import MISTYPED, mistyped
from ssmc.frontend.proofs.traced import unrolled_size
from ssmc.frontend.reasons import Kind
from ssmc.frontend.source import rounding
from ssmc.frontend.source.announced import TooLarge
from ssmc.frontend.source.blame import blame_refusals, blaming_the_file
from ssmc.frontend.source.bounds import bounds_of
from ssmc.frontend.source.collection import built_aside
from ssmc.frontend.source.images import patched
from ssmc.frontend.source.importer import import_model
from ssmc.frontend.source.interface import dynamic_lengths, is_dynamic
from ssmc.frontend.source.precision import coarsest_format, coarsest_table
from ssmc.frontend.source.proto import ModelFile, read_model
from ssmc.frontend.source.rates import other_length
from ssmc.frontend.source.refused import refused_for
from ssmc.frontend.source.scales import with_scales
from ssmc.frontend.source.sizes import DIVISIBLE, ENDING
from ssmc.frontend.source.unknown import known_part
from ssmc.ir.graph import Graph
from ssmc.threads import one_blas_thread

NO_SYSTEM = "no state-space system was found: it is compiled as a feed-forward network over the features of each step"


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

    Raises UserError for a file that is not a model, that may be a step of a recurrent one without its states, or that
    has nodes which cannot be translated (all of them in one message).
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
        found = _traced(source)
        if found is not None:
            return _not_dynamic(source.path, found, strict)
        best = _reading(source, states)
        if rank(best) == FAILED and dropped:
            graph = import_model(file, path)
            rounding.drop_rounding(graph, keep_relu=False)
            source = Source(Path(path), file, graph, tolerance, aside, len(dropped))
            best = _reading(source, states)
        return _told(source, best, states, strict)


def _traced(source: Source) -> Refusal | None:
    """What was written into a file at the length that it was traced at, though that is declared dynamic."""
    traced = unrolled_size(source.file, source.types, source.length)
    if traced is not None:
        return baked_size(source.as_file()) or traced
    return computed_levels(source.file, source.types) if is_dynamic(source.types)[1] else None


def _told(source: Source, best: Attempt, states: Mapping[str, str] | None, strict: bool) -> Model:
    """The model as it is best read. Raises UserError, if `strict`, where that does not hold."""
    if states is None and best.form == "step":
        best.findings.refusals += nonlinear(source, best.states)
    elif states is None and not best.findings.lifts and all(len(k.shape or ()) <= 2 for k in source.types.values()):
        # no room for samples, steps and features: a step, whose other axis tells nothing when it is taken for time
        best.findings.refusals = list(nonlinear(source, {})) or best.findings.refusals
    baked = baked_size(source.as_file()) if rank(best) == FAILED else None
    if baked is None and _differs_with_length(source, best):
        baked = fixed_levels(source.file)
    if baked is not None:
        return _not_dynamic(source.path, baked, strict)
    _tell_refusals(source, best, strict)
    if strict:
        _require_lifted(best, str(source.path), source)
    best.notes += _newer_than_known(source.model)
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
        raise some_lengths_only(source.path, source.length, f"{first.op} '{first.node}': {first.reason}")
    refused = {refusal.node for refusal in findings.refusals}
    if strict and refused and all(Kind.NOT_TIME in refusal.kind for refusal in findings.refusals):
        apart = other_length(source.listing, source.point(0), refused)
        if apart is not None:
            raise two_lengths(*apart, source.path)
    image = patched(source.file, source.point(0), refused) if refused else None
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
            raise fixed_size(baked, source.path) from error
        lengths = dynamic_lengths(source.types)
        if len(lengths) > 1 and error.node:
            raise several_lengths(lengths, source.path, error) from error
        if _runs_nowhere(source) and not breaks_anywhere(source.as_file(), error):
            raise some_lengths_only(source.path, source.length, in_words(error)) from error
        raise


def _not_dynamic(path: Path, found: Refusal, strict: bool) -> Model:
    if strict:
        raise fixed_size(found, path)
    return _as_model(Attempt("sequence", Graph("model"), findings=Findings(refusals=[found])), path)


def _require_types(source: Source) -> None:
    """Raises UserError where onnxruntime says that operands do not fit their ops: a file that nothing runs."""
    told = mistyped(source.model)
    if told is not None:
        raise UserError("onnxruntime does not take the file", where=str(source.path), why=told, hint=MISTYPED)


def _runs_nowhere(source: Source) -> bool:
    """Is the length dynamic, and the file does not run at any that it was studied at?"""
    return is_dynamic(source.types)[1] and not runs_at(source.as_file(), source.length)


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
                return _with_whole_filters(source, states, best)
        source.study(length)


def _with_whole_filters(source: Source, states: Mapping[str, str] | None, best: Attempt) -> Attempt:
    """The reading at a length behind all shifts and bounds of the file, or at which the kernels end that it makes, as
    rounded ones do; else as it was."""
    usual = source.length
    if best.failure is None or not is_dynamic(source.types)[1] or fixed_levels(source.file):
        return best
    behind = {spanned(source), bounds_of(source.file, best.findings.cuts).behind}
    lengths = sorted(n for n in behind if usual < n <= ENDING[-1] and runs_at(source.as_file(), n))
    for length in (*lengths, *(ENDING if filters_of_all_steps(best.graph, usual) else ())):
        source.study(length)
        with suppress(UserError):
            longer = _best(source, states)
            if rank(longer) != FAILED:
                return longer
    source.study(usual)
    return best


def _best(source: Source, states: Mapping[str, str] | None) -> Attempt:
    """The first reading of the file that holds; the likeliest one where none does."""
    best = likeliest(attempts(source, states), lambda: any(True for _ in suspected(source, {})))
    if best is None:
        raise UserError(
            "no axis of the inputs can be time", where=str(source.path), hint="export with inputs (batch, time, ...)"
        )
    return best


def _with_unknown(path: Path, file: ModelFile, graph: Graph, tolerance: float, strict: bool, aside: Executor) -> Model:
    """A model with unknown ops: these, and what would not compile before them, in one list."""
    unknown: dict[str, tuple[Refusal, ...]] = graph.attributes["unknown"]
    part = known_part(graph, unknown)
    attempt = Attempt("sequence", Graph("model"))
    if part is not None:
        source = Source(path, file, part, tolerance, aside)
        with suppress(UserError):
            attempt = likeliest(beginnings(source)) or attempt
    refusals = [*(r for told in unknown.values() for r in told), *attempt.findings.refusals]
    if strict:
        refuse(refusals, str(path))
    attempt.findings.refusals = refusals
    return _as_model(attempt, path)


def _require_lifted(attempt: Attempt, path: str, source: Source) -> None:
    if attempt.findings.refusals:
        refuse(attempt.findings.refusals, path)
    if attempt.failure is not None:
        _require_types(source)
        raise attempt.failure
    suspects = [] if attempt.findings.lifts else list(suspected(source, attempt.states))
    if not suspects and (mixes_time(attempt.graph) or feeds_forward(attempt.graph)):
        return
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
    if not refusals and not mixes_time(graph) and feeds_forward(graph):
        attempt.notes += (NO_SYSTEM,)
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
