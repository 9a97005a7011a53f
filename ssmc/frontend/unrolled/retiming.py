"""Fewer states: what can be computed anew from other earlier values is not carried from step to step.

A step that reads both a state and, say, a part of that state from the step before needs the state alone; one that
reads several multiples of the last input needs that input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from ssmc.frontend.unrolled.families import Family, Fixed, NodeFamily, Reading, Reference, StreamFamily
from ssmc.frontend.unrolled.survey import Survey

Earlier = tuple[NodeFamily, int]  # a family, so many steps before
Carried = set[tuple[Family, int]]


def retime(families: list[NodeFamily], wanted: Sequence[Reading], survey: Survey) -> None:
    """Replace delayed readings by families of their own, where what these need is carried anyway.

    Changes the operands of `families`, and adds the new ones. `wanted` are readings from outside, which stay.
    """
    made: dict[Earlier, NodeFamily] = {}
    fixed = {(r.family, k) for r in wanted for k in range(1, r.delay + 1)}
    for family in sorted(families, key=lambda family: -family.sample.position):
        carried = _carried(families) | fixed
        depth = max((k for other, k in carried if other is family), default=0)
        if depth == 0 or (family, depth) in fixed:
            continue
        rest = {item for item in carried if item[0] is not family}
        if _follows_stream(family, survey) or all(_computable(family, k, rest, {}) for k in range(1, depth + 1)):
            _replace(families, family, rest, made)


def _carried(families: Sequence[NodeFamily]) -> Carried:
    """All earlier values that the families read."""
    readings = [r for family in families for r in family.operands if isinstance(r, Reading)]
    return {(r.family, k) for r in readings for k in range(1, r.delay + 1)}


def _computable(family: NodeFamily, delay: int, carried: Carried, known: dict[Family, bool]) -> bool:
    """Can a family's value so many steps before be computed from what is carried?"""
    if family not in known:
        known[family] = False
        known[family] = bool(family.operands) and all(
            operand is None
            or isinstance(operand, Fixed)
            or (operand.family, operand.delay + delay) in carried
            or (
                operand.delay == 0
                and isinstance(operand.family, NodeFamily)
                and _computable(operand.family, delay, carried, known)
            )
            for operand in family.operands
        )
    return known[family]


def _replace(families: list[NodeFamily], family: NodeFamily, carried: Carried, made: dict[Earlier, NodeFamily]) -> None:
    """Let all that read `family` at an earlier step read a copy that computes it from earlier operands."""
    for user in list(families):
        for slot, operand in enumerate(user.operands):
            if isinstance(operand, Reading) and operand.family is family and operand.delay:
                user.operands[slot] = Reading(_earlier(families, family, operand.delay, carried, made), operand.index)


def _earlier(
    families: list[NodeFamily], family: NodeFamily, delay: int, carried: Carried, made: dict[Earlier, NodeFamily]
) -> NodeFamily:
    """The copy of a family that works on the operands of `delay` steps before."""
    if (family, delay) in made:
        return made[family, delay]
    operands: list[Reference | None] = []
    for operand in family.operands:
        if not isinstance(operand, Reading):
            operands.append(operand)
        elif (operand.family, operand.delay + delay) in carried or not isinstance(operand.family, NodeFamily):
            initial = (*((None,) * delay), *operand.initial)
            operands.append(replace(operand, delay=operand.delay + delay, initial=initial))
        else:
            operands.append(Reading(_earlier(families, operand.family, delay, carried, made), operand.index))
    nodes = (*((None,) * delay), *family.nodes[: len(family.nodes) - delay])
    made[family, delay] = NodeFamily(family.steps, nodes, operands)
    families.append(made[family, delay])
    return made[family, delay]


def _follows_stream(family: NodeFamily, survey: Survey) -> bool:
    """Is it a function of one stream, which is no larger?"""
    streams = {operand.family for operand in family.operands if isinstance(operand, Reading)}
    stream = next(iter(streams), None)
    if len(streams) != 1 or not isinstance(stream, StreamFamily):
        return False
    shape = survey.shape(stream.stream)
    own = sum(prod(survey.shape(value)) for value in family.sample.results)
    return prod(shape) // shape[stream.axis] <= own
