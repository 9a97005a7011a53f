"""The proof of a lift: the new graph against the file, in float64 and by onnxruntime, at every kind of size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.findings import Lift
from ssmc.frontend.model import Proof
from ssmc.frontend.proofs.causes import filters_of_all_steps, require_finite, require_near, require_order, require_types
from ssmc.frontend.proofs.coarse import require_one_system
from ssmc.frontend.proofs.proof import (
    RUNTIME_TOLERANCE,
    compare,
    effect_of_fits,
    relative_error,
    require,
    run_file,
    run_graph,
)
from ssmc.frontend.proofs.reference import fed_dtype, runner, runner_on, step_through
from ssmc.frontend.proofs.saturation import told_of
from ssmc.frontend.proofs.trials import Arrays, Case, feed, fewer, inputs_at, side_by_side, sizes
from ssmc.frontend.source.precision import coarsest_format, coarsest_table
from ssmc.ir.tensor import widened
from ssmc.ir.ties import DOUBLE, SINGLE, Ties, find_ties

FILE = "the file in float64"
ROOM = 30.0  # ours: how much more than the errors of its systems a model may be off
TOLD = 1e-5  # of the largest output: roundings on an edge that move it by less are not worth a note
LONG = 4096  # steps of a sequence that onnxruntime runs once, of as few samples as are tried (ours)
FEWER = 2  # samples of so many steps in the first proof, if it may have fewer than were studied
TWICE = 1 << 26  # bytes of weights that may stand in memory twice (ours)
FEW = 500  # nodes of a graph in which roundings on an edge are looked for though outputs agree (ours)
LIMIT = 0.01  # ours: what is off by more is another model, however far off its systems are, unless it was asked for
# What onnxruntime may be off, where a file computes in formats of less precision (ours: some tens of their epsilon).
COARSE = {"float16": 3e-2, "bfloat16": 2e-1}


def prove(case: Case, size: tuple[int, int], other: tuple[int, int]) -> tuple[list[Proof], tuple[str, ...]]:
    """Proofs at a batch and length, of whole sequences at another size too if it differs; and notes.

    Raises UserError where the graph is not the model, or is it at the first size only.
    """
    # onnxruntime is to catch a misread op; how large the batch is makes none.
    cheaper = other[1] == size[1] >= LONG and other[0] < size[0] and case.form == "sequence"
    first = (min(FEWER, size[0]), size[1]) if cheaper else size
    arrays = inputs_at(case, *first, 7)
    proofs, notes, found = _at(case, arrays, runtime=not cheaper or bool(case.dropped))
    if first != size and not all(proof.passed for proof in proofs) and _passes(case, *size):
        raise _right_at_one_size(case, proofs, size, first)
    require_one_system(proofs, case.lifts, case.file, case.path)
    _require_no_cause(case, proofs, first)
    require(proofs, str(case.path))
    if case.form != "sequence":
        return proofs, (*notes, *_of_precision(case, proofs))
    notes = (*notes, *_of_negative_integers(case, *size))
    if other == size:
        return proofs, (*notes, *_of_precision(case, proofs))
    known = fewer(case, arrays, found, other) if cheaper else None
    arrays, given = known or (inputs_at(case, *other, 8), None)
    more, others, _ = _at(case, arrays, runtime=(other[1] != size[1] or cheaper) and not case.dropped, found=given)
    if cheaper and all(proof.passed for proof in more if proof.against == FILE):
        require(more, str(case.path))
    if not all(proof.passed for proof in more):
        raise _right_at_one_size(case, more, size, other)
    proofs += more
    return proofs, (*dict.fromkeys(notes + others), *_of_precision(case, proofs))


def _require_no_cause(case: Case, proofs: Sequence[Proof], size: tuple[int, int]) -> None:
    """Raise UserError where a proof failed, and something in the file is known to be behind it."""
    bad = [proof for proof in proofs if not proof.passed]
    if bad and bad[0].against != FILE:
        require_types(bad, case.file, case.types, case.path)
        require_order(bad, case.file, case.path)
    elif bad:
        arrays = inputs_at(case, *size, 7)
        if case.form == "sequence":
            given = {case.file.inputs[name]: widened(array) for name, array in arrays.items()}
            require_finite(bad, case.graph, feed(case, arrays), case.file, given, case.path)
        exact = run_file(case.file, case.inputs, case.states, case.form, arrays)
        require_near(bad, case.graph, feed(case, arrays), exact, case.tolerance, case.path)


def _of_negative_integers(case: Case, batch: int, length: int) -> tuple[str, ...]:
    """A note where the file takes negative integers, as places that are counted from the end, and the graph is another
    model there. Proofs try no such numbers, as most integers are tokens or counts. Those tried are half as large as the
    proofs' own: one less than all steps, as a place, is before the first."""
    signed = [port.name for port in case.inputs if port.dtype.startswith("int")]
    if not signed:
        return ()
    arrays = inputs_at(case, batch, length, 7)
    arrays |= {name: -((np.abs(arrays[name]) + 1) // 2) for name in signed}
    try:
        exact = run_file(case.file, case.inputs, case.states, case.form, arrays)
    except UserError:  # it takes none
        return ()
    if not all(np.isfinite(exact[port.name]).all() for port in case.outputs):
        return ()
    who = ", ".join(map(repr, signed))
    try:
        found = run_graph(case.graph, case.inputs, case.outputs, arrays)
    except (UserError, ValueError) as error:
        return (f"negative integers in {who} are refused: {error}",)
    worst = max(relative_error(found[port.name], exact[port.name]) for port in case.outputs)
    if worst <= LIMIT:
        return ()
    return (f"integers in {who} must not be negative: the program is another than the file there",)


def _right_at_one_size(case: Case, bad: list[Proof], first: tuple[int, int], other: tuple[int, int]) -> UserError:
    """The error for a model that is the file's at the first size and not at the other: which of the two it is."""
    what, here, there = "length", first[1], other[1]
    if first[1] == other[1] or (first[0] != other[0] and _passes(case, first[0], other[1])):
        what, here, there = "batch", first[0], other[0]
    worst = max(bad, key=lambda proof: proof.error)
    filters = _of_all_steps(case, first[1]) if what == "length" else ""
    return UserError(
        f"the file is another model at {what} {there} than at {what} {here}",
        where=str(case.path),
        why=f"lifted and proved at {what} {here}, its output '{worst.output}' is off by {worst.error:.1e} at {there}, "
        f"compared with {worst.against}",
        hint=filters
        or f"the exporter has written the traced {what} into the file, though it declares it dynamic, or the model "
        f"itself is another at every {what}: export it with that {what} fixed, or so that nothing depends on it",
    )


def _of_all_steps(case: Case, length: int) -> str:
    """What to do about filters of as many taps as there are steps, which have more where there are more; or nothing."""
    nodes = filters_of_all_steps(case.graph, length)
    if not nodes:
        return ""
    return (
        f"what {', '.join(nodes)} makes of the sequence has {length} taps at length {length}, "
        "and no system's: export it with the length fixed, or leave the numbers that its kernel is made of as they "
        "are, where a tool has rounded them"
    )


def _passes(case: Case, batch: int, length: int) -> bool:
    try:
        return all(proof.passed for proof in _at(case, inputs_at(case, batch, length, 9))[0])
    except UserError:
        return False


def _at(
    case: Case, arrays: Arrays, runtime: bool = True, found: Arrays | None = None
) -> tuple[list[Proof], tuple[str, ...], Arrays]:
    """Proofs on some inputs, against onnxruntime too where `runtime`; notes; and what the graph makes of them, which is
    `found` where that is known."""
    size = sizes(case.inputs, arrays)
    # Large weights stand in memory once, and are not to stand there twice.
    held = sum(weight.nbytes for weight in case.model.weights.values())
    given = case.aside.submit(_run, case, arrays) if runtime and held <= TWICE else None
    found, exact = side_by_side(case, arrays, size, found, size[1] >= LONG and held <= TWICE)
    notes, moved = _of_tables(case, arrays, exact)
    proofs = _against_file(case, arrays, found, exact, size)
    if not runtime or not all(proof.passed for proof in proofs):
        return proofs, notes, found
    answer = _run(case, arrays) if given is None else given.result()
    broken = [name for name, array in answer.items() if not np.isfinite(array).all()]
    if broken:  # exp(-cumsum) and the like overflow in float32 where the recurrence does not
        notes = (*notes, f"onnxruntime gives no finite numbers for {', '.join(broken)} at length {size[1]}")
    answer = {name: array for name, array in answer.items() if name not in broken}
    if case.dropped:
        return proofs, (*notes, *_of_dropped(case, found, answer)), found
    allowed = max([_runtime_tolerance(case), *(proof.tolerance for proof in proofs)]) + moved
    theirs, told = _against_runtime(case, arrays, found, answer, allowed)
    return proofs + theirs, (*notes, *told), found


def _against_file(case: Case, arrays: Arrays, found: Arrays, exact: Arrays, size: tuple[int, int]) -> list[Proof]:
    """Proofs against the file in float64: as exact as its systems are, where that does not do as they let the whole
    model be, and last as roundings on an edge do."""
    # A kernel made of tables that were rounded to float32 is no nearer to a system than its rounding.
    limit = max(ROOM * case.tolerance, LIMIT)
    allowed = min(limit, max([case.tolerance, *(ROOM * lift.proof_error for lift in case.lifts)]))
    proofs = compare(FILE, found, exact, *size, allowed)
    # Systems that the file tells are what they are; those identified from taps are to be finer where they must.
    told = _told(case)
    for lifts, most in ((told, limit), (case.lifts, min(limit, ROOM * case.tolerance))):
        if not all(proof.passed for proof in proofs):
            effect = effect_of_fits(case.graph, lifts, case.inputs, case.outputs, arrays, found)
            allowed = max(allowed, min(most, ROOM * effect))
            proofs = compare(FILE, found, exact, *size, allowed)
    if not all(proof.passed for proof in proofs):
        proofs = compare(FILE, found, exact, *size, max(allowed, _ties(case, arrays, DOUBLE).allowed))
    return proofs


def _told(case: Case) -> list[Lift]:
    """Systems that the file tells, and that are not identified from taps."""
    return [lift for lift in case.lifts if lift.replacement is None or not lift.replacement.identified]


def _of_dropped(case: Case, found: Arrays, answer: Arrays) -> tuple[str, ...]:
    """Notes on what it changes that rounding is left out."""
    error = max(relative_error(found[name], array) for name, array in answer.items())
    who = f"{case.dropped} node{'s' * (case.dropped > 1)}"
    off = f"on random inputs outputs are off by {error:.1e} of the largest"
    return (f"the rounding by {who} is left out, as asked for: {off}", *filter(None, [told_of(case.model.model)]))


def _against_runtime(
    case: Case, arrays: Arrays, found: Arrays, answer: Arrays, allowed: float
) -> tuple[list[Proof], tuple[str, ...]]:
    """Proofs against onnxruntime's answer, none where integers that saturate in it explain what it is off by; notes."""
    size, notes = sizes(case.inputs, arrays), tuple[str, ...]()
    theirs = compare("onnxruntime", found, answer, *size, allowed)
    looked = len(list(case.graph.nodes())) <= FEW or any(proof.error > TOLD for proof in theirs)
    if looked and (ties := _ties(case, arrays, SINGLE)).near:
        if not all(proof.passed for proof in theirs):
            theirs = compare("onnxruntime", found, answer, *size, max(allowed, ties.allowed))
        if ties.effect > TOLD:
            notes = (f"in the proof at {size[0]} x {size[1]}, {ties}",)
    if not all(proof.passed for proof in theirs) and (told := told_of(case.model.model)):
        return [], (*notes, told)
    return theirs, notes


def _of_precision(case: Case, proofs: Sequence[Proof]) -> tuple[str, ...]:
    """Notes on how exact the lifted model is."""
    return (*_of_systems(case, proofs), *_of_format(case, proofs))


def _of_systems(case: Case, proofs: Sequence[Proof]) -> tuple[str, ...]:
    """A note where systems are off by more than was asked for, as they are where a file's tables are rounded: what that
    does to outputs."""
    off = max((lift.proof_error for lift in _told(case)), default=0.0)
    errors = [proof.error for proof in proofs if proof.against == FILE]
    if off <= case.tolerance or max(errors, default=0.0) <= max(TOLD, case.tolerance):
        return ()
    what = f"the file's tables are rounded, and no system is nearer to it than {off:.0e} of the largest tap"
    return (f"{what}: on random inputs outputs are up to {max(errors):.1e} of the largest off",)


def _of_format(case: Case, proofs: Sequence[Proof]) -> tuple[str, ...]:
    """A note on a file that computes in float16, which programs do not: by how much its own outputs are off by that."""
    errors = [proof.error for proof in proofs if proof.against == "onnxruntime"]
    if _format(case) != "float16" or not errors:  # onnxruntime computes bfloat16 in float32, too
        return ()
    what = "the file computes in float16, the program with more digits"
    return (f"{what}: on random inputs onnxruntime's outputs are up to {max(errors):.1e} of the largest off",)


def _of_tables(case: Case, arrays: Mapping[str, Any], exact: Mapping[str, Any]) -> tuple[tuple[str, ...], float]:
    """What it changes that tables of cosines are taken as exact: a note, and by how much, relatively.

    Raises UserError where that is more than the rounding of the tables explains.
    """
    if case.as_stored is None:
        return (), 0.0
    stored = run_file(case.as_stored, case.inputs, case.states, case.form, arrays)
    moved = max(relative_error(array, stored[name]) for name, array in exact.items())
    if moved <= case.tolerance:
        return (), moved
    what = "the file's tables of cosines are rounded"
    if not moved <= (limit := max(LIMIT, COARSE.get(coarsest_table(case.as_stored), 0.0))):
        raise UserError(
            f"{what}, and its outputs are {moved:.1e} of the largest off from those of exact ones",
            where=str(case.path),
            why=f"allowed is {limit:.0e}: what was meant is not known so well",
            hint="export the tables in float32",
        )
    return (f"{what}; as exact ones they move outputs by {moved:.1e} of the largest",), moved


def _ties(case: Case, arrays: Mapping[str, Any], precision: float) -> Ties:
    """What roundings do that lie on an edge between two codes, on user-shaped arrays."""
    return find_ties(case.graph, feed(case, arrays), precision)


def _runtime_tolerance(case: Case) -> float:
    """What onnxruntime may be off, by the coarsest format that the file computes in."""
    return COARSE.get(_format(case), RUNTIME_TOLERANCE)


def _format(case: Case) -> str:
    """The coarsest format that the file computes in."""
    declared = [kind.dtype for kind in case.types.values()] + [port.dtype for port in case.outputs]
    return coarsest_format(case.file, declared)


def _run(case: Case, arrays: Mapping[str, Any]) -> dict[str, Any]:
    run = runner_on(case.model, str(case.path)) if case.model.weights else runner(str(case.path))
    typed = {port.name: arrays[port.name].astype(fed_dtype(port)) for port in case.inputs if port.name in arrays}
    try:
        found = run(typed) if case.form == "sequence" else step_through(run, case.inputs, case.states, typed)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            "onnxruntime cannot run the file at this size",
            where=str(case.path),
            why=str(error).splitlines()[0],
            hint="the file declares dynamic axes that it does not support; export it at a fixed size",
        ) from error
    return {port.name: found[port.name] for port in case.outputs}
