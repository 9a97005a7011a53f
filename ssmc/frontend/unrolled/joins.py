"""Nodes that put per-step values together along one axis: Concat, sequences, chains of scattered writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ssmc.frontend.source.listing import Call
from ssmc.frontend.unrolled.forwarding import SCATTERS, unsqueezed, written_by
from ssmc.frontend.unrolled.survey import MIN_STEPS, Survey
from ssmc.ir.graph import Value


@dataclass(frozen=True)
class Join:
    """`value` holds `members` one after another along `axis`.

    With `keep` the members have that axis already, with size one; else they are stacked on it. With `added` it holds
    their sum.
    """

    value: Value
    axis: int
    members: tuple[Value, ...]
    keep: bool
    added: bool = False


def find_joins(survey: Survey) -> list[Join]:
    """All joins of at least `MIN_STEPS` members, in the order of the graph."""
    found = []
    inner = {  # writes that a later write goes on from
        survey.canon[call.operands[0]]
        for call in survey.listing.calls
        if call.kind in (*SCATTERS, "SequenceInsert") and call.operands[0] is not None
    }
    for call in survey.listing.calls:
        value = call.results[0]
        if survey.is_static(value) or survey.canon[value] != value:
            continue
        join = None
        if call.kind == "Concat":
            join = _concatenation(survey, call, [v for v in survey.operands(call) if v is not None])
        elif call.kind == "Reshape":
            join = _stacked_by_reshape(survey, call)
        elif call.kind == "Sum":
            join = _sum(survey, call, [v for v in survey.operands(call) if v is not None])
        elif call.kind == "ConcatFromSequence":
            join = _sequence(survey, call)
        elif call.kind in SCATTERS and value not in inner:
            join = _writes(survey, call)
        if join is not None and len(join.members) >= MIN_STEPS:
            found.append(join)
    return found


def _concatenation(survey: Survey, call: Call, operands: Sequence[Value]) -> Join | None:
    if len(operands) < MIN_STEPS:
        return None
    axis = int(call.attrs["axis"]) % len(survey.shape(call.results[0]))
    return _joined(survey, call.results[0], operands, axis)


def _stacked_by_reshape(survey: Survey, call: Call) -> Join | None:
    """Values one after another along an axis of theirs, which a reshape then cuts where each of them begins."""
    source = survey.operands(call)[0]
    maker = None if source is None else survey.listing.producer.get(source)
    if maker is None or maker.kind != "Concat" or len(maker.operands) < MIN_STEPS:
        return None
    members = [v for v in survey.operands(maker) if v is not None]
    axis = int(maker.attrs["axis"]) % len(survey.shape(maker.results[0]))
    for shapes in survey.shapes:
        one = shapes[members[0]]
        whole = (*one[:axis], len(members), *one[axis:])
        if any(shapes[v] != one for v in members) or shapes[call.results[0]] != whole:
            return None
    return Join(call.results[0], axis, tuple(members), keep=False)


def _sum(survey: Survey, call: Call, operands: Sequence[Value]) -> Join | None:
    shape = survey.shape(call.results[0])
    if any(survey.shape(v) != shape for v in operands):
        return None
    return Join(call.results[0], 0, tuple(operands), keep=False, added=True)


def _joined(survey: Survey, value: Value, operands: Sequence[Value], axis: int) -> Join | None:
    """The join of values that have the axis, with size one; where they only just got it, of what was before."""
    if any(survey.shape(v)[axis] != 1 for v in operands):
        return None
    inner = [unsqueezed(survey, v, axis) for v in operands]
    if any(v is not None for v in inner):
        inner = [before or survey.squeezed(v, axis) for v, before in zip(operands, inner, strict=True)]
    if all(v is not None for v in inner):
        return Join(value, axis, tuple(v for v in inner if v is not None), keep=False)
    return Join(value, axis, tuple(operands), keep=True)


def _sequence(survey: Survey, call: Call) -> Join | None:
    """ConcatFromSequence of a sequence that was constructed, or filled by inserts at its end."""
    members: list[Value] = []
    source = survey.operands(call)[0]
    while source is not None:
        maker = survey.listing.producer.get(source)
        operands = [] if maker is None else survey.operands(maker)
        if maker is not None and maker.kind == "SequenceInsert" and (len(operands) < 3 or operands[2] is None):
            members.insert(0, operands[1])  # type: ignore[arg-type]
            source = operands[0]
            continue
        if maker is None or maker.kind not in ("SequenceConstruct", "SequenceEmpty"):
            return None
        members = [v for v in operands if v is not None] + members
        break
    if len(members) < MIN_STEPS:
        return None
    axis = int(call.attrs["axis"]) % len(survey.shape(call.results[0]))
    if call.attrs.get("new_axis", 0):
        return Join(call.results[0], axis, tuple(members), keep=False)
    return _joined(survey, call.results[0], members, axis)


def _writes(survey: Survey, call: Call) -> Join | None:
    """A chain of writes that fills a tensor index by index along one axis."""
    shape = survey.shape(call.results[0])
    written: dict[int, tuple[Value, bool]] = {}
    axis: int | None = None
    here: Call | None = call
    while here is not None and here.kind == call.kind:
        operands = survey.operands(here)
        part = written_by(survey, here, operands)
        if part is None or axis not in (None, part.axis):
            return None
        axis = part.axis
        written.setdefault(part.index, (part.update, part.keep))
        here = None if operands[0] is None else survey.listing.producer.get(operands[0])
    if axis is None or sorted(written) != list(range(shape[axis])):
        return None
    members = [written[index] for index in range(shape[axis])]
    if len({keep for _, keep in members}) != 1:
        return None
    if members[0][1]:
        return _joined(survey, call.results[0], [v for v, _ in members], axis)
    return Join(call.results[0], axis, tuple(v for v, _ in members), keep=False)
