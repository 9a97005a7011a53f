"""A file read as a sequence model, its inputs along given axes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ssmc.frontend.attempts.attempt import Attempt, add_input, begin_translation
from ssmc.frontend.attempts.outcome import conclude, far_length, simplify_graph
from ssmc.frontend.attempts.source import Source
from ssmc.frontend.findings import finer, identified_in, replaced
from ssmc.frontend.graph.flow import Flow
from ssmc.frontend.loops.positions import extend_tables
from ssmc.frontend.rules.merged import is_plain
from ssmc.frontend.source.interface import concrete_shapes, fixed_inputs, readings, role_of, sample_inputs
from ssmc.frontend.source.listing import Listing
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value

FINER = (0.1, 0.01)  # ours: of the tolerance, that kernels get where the model is not the file's with all of it


def as_sequence(source: Source, axes: Mapping[str, str], listing: Listing) -> Attempt:
    """The reading of the file along these axes; where it is not the file's for the systems that kernels became,
    with others."""
    source = source.read_along(axes)
    first = _read(source, axes, listing, 1.0)
    far = far_length(source, first.findings) if source.stored and replaced(first.findings) else 0
    if far and (first.failure is not None or identified_in(first.findings)):  # all there is of a kernel it slices
        source.study(far)
        again = _read(source, axes, listing, 1.0)
        first = again if again.failure is None or first.failure is not None else first
    if first.failure is None or not identified_in(first.findings):
        return first
    plain = _read(source, axes, listing, 0.0)
    if plain.failure is not None:
        return first
    tried = (_read(source, axes, listing, share) for share in FINER)
    found = next((attempt for attempt in tried if attempt.failure is None), plain)
    found.notes += (finer(first.failure, source.tolerance, found.findings.share),)
    return found


def _read(source: Source, axes: Mapping[str, str], listing: Listing, share: float) -> Attempt:
    attempt, translator = _begin(source, axes, listing)
    attempt.findings.share = share
    found = translator.demand(list(listing.outputs.values()))
    if translator.builder.tables and source.is_dynamic()[1]:
        _extend_tables(source, attempt, translator)
    conclude(source, attempt, translator, dict(zip(listing.outputs, found, strict=True)), {})
    return attempt


def _begin(source: Source, axes: Mapping[str, str], listing: Listing) -> tuple[Attempt, Translator]:
    translator = begin_translation(source, listing, in_step=False)
    roles = {name: role_of(axes[name], axes.values()) for name in source.types}
    ports = tuple(add_input(source, translator, name, axes[name], axes[name], roles[name]) for name in source.types)
    return Attempt("sequence", translator.builder.graph, ports, findings=translator.findings), translator


def _extend_tables(source: Source, attempt: Attempt, translator: Translator) -> None:
    def point(steps: int) -> dict[Value, Any]:
        return sample_inputs(source.listing, concrete_shapes(source.types, *source.sizes(1, steps)), source.types, 0)

    attempt.tables = extend_tables(translator, point)


def beginnings(source: Source) -> Iterator[Attempt]:
    """Readings of the beginning of a file: nothing of it can be proved, and a value at its end that mixes time may
    be clear with what follows alone; only what is refused on the way is of use."""
    dtypes = {name: kind.dtype for name, kind in source.types.items()}
    for axes in readings(source.shapes, dtypes, fixed_inputs(source.types)):
        attempt, translator = _begin(source.read_along(axes), axes, source.listing)
        translator.translate(list(source.listing.outputs.values()))
        for name, value in source.listing.outputs.items():
            found = translator.lookup(value)
            if isinstance(found, Flow) and is_plain(found):
                attempt.graph.add("output", [found.value], {"name": name, "axes": found.axes, "role": "data"})
        simplify_graph(attempt)
        yield attempt
