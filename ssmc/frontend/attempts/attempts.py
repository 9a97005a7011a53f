"""Readings of a file, the likeliest first: as a sequence model, or as one step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ssmc.frontend.attempts.attempt import Attempt
from ssmc.frontend.attempts.sequence import as_sequence
from ssmc.frontend.attempts.source import Source
from ssmc.frontend.attempts.step import as_step
from ssmc.frontend.loops.step import pair_states
from ssmc.frontend.loops.trips import in_wholes
from ssmc.frontend.source.interface import dynamic_features, fixed_inputs, readings, step_axes
from ssmc.frontend.source.listing import list_calls
from ssmc.frontend.source.rounding import STEPS, drop_rounding, rounds

TEMPORAL = frozenset(["Scan", "Loop", "DFT", "STFT", "CumSum", "LinearAttention", "CausalConvWithState"])


def attempts(source: Source, states: Mapping[str, str] | None) -> Iterator[Attempt]:
    """Readings of the file, the likeliest first: as one step where inputs and outputs pair as states do, and, but where
    `states` names these pairs, as a sequence model along every axis that can be time."""
    pairs, rounded = _state_pairs(source, states)
    if pairs:
        for letters in step_axes(source.types, pairs):
            yield as_step(source, pairs, letters)
    if states is not None:
        return
    dtypes = {name: kind.dtype for name, kind in source.types.items()}
    found = readings(source.shapes, dtypes, fixed_inputs(source.types))
    for axes in sorted(found, key=lambda axes: dynamic_features(source.types, axes)):
        attempt = as_sequence(source, axes, source.listing)
        if attempt.findings.lifts or not rounded:
            yield attempt
        if (chunked := in_wholes(source.as_listed, source.point(0), axes)) is not None:
            yield as_sequence(source, axes, chunked)


def _state_pairs(source: Source, states: Mapping[str, str] | None) -> tuple[dict[str, str], bool]:
    """Inputs that are states and the outputs that are their next values, if the file is one step; and whether that is
    known only of the file without its roundings."""
    if states is None and any(call.kind in TEMPORAL for call in source.listing.calls):
        return {}, False
    if states is None and rounds(source.graph):  # states that are rounded are states
        plain = source.graph.copy()
        drop_rounding(plain, keep_relu=False, kinds=STEPS)
        pairs = pair_states(list_calls(plain), source.types, source.point(0), None)
        return pairs, bool(pairs)
    return pair_states(source.listing, source.types, source.point(0), states), False
