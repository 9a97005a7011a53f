"""Fewer states: what can be computed anew from other earlier values is not carried from step to step.

A step that reads both a state and, say, a part of that state from the step before needs the state alone; one that
reads several multiples of the last input needs that input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from ssmc.frontend.families import Fixed, NodeFamily, Reading, Reference, StreamFamily
from ssmc.frontend.survey import Survey

Earlier = tuple[NodeFamily, int]  # a family, so many steps before


def retime(families: list[NodeFamily], wanted: Sequence[Reading], survey: Survey) -> None:
    """Replace delayed readings by families of their own, where what these need is carried anyway.

    Changes the operands of `families`, and adds the new ones. `wanted` are readings from outside, which stay.
    """
    made: dict[Earlier, NodeFamily] = {}
    later = sorted(families, key=lambda family: -family.sample.position)
    fixed = {(r.family, k) for r in wanted for k in range(1, r.delay + 1)}
    for family in later:
        carried = _carried(families) | fixed
        depth = max((k for other, k in carried if other is family), default=0)
        if depth == 0 or (family, depth) in fixed:
            continue
        rest = {item for item in carried if item[0] is not family}
        if _follows_stream(family, survey) or all(_computable(family, k, rest) for k in range(1, depth + 1)):
            _replace(families, family, made)


def _carried(families: Sequence[NodeFamily]) -> set[tuple[object, int]]:
    """All earlier values that the families read."""
    readings = [r for family in families for r in family.operands if isinstance(r, Reading)]
    return {(r.family, k) for r in readings for k in range(1, r.delay + 1)}


def _computable(family: NodeFamily, delay: int, carried: set[tuple[object, int]]) -> bool:
    """Are the operands of a family, so many steps before, carried?"""
    return bool(family.operands) and all(
        operand is None or isinstance(operand, Fixed) or (operand.family, operand.delay + delay) in carried
        for operand in family.operands
    )


def _follows_stream(family: NodeFamily, survey: Survey) -> bool:
    """Is it a function of one stream, which is no larger?"""
    streams = {operand.family for operand in family.operands if isinstance(operand, Reading)}
    stream = next(iter(streams), None)
    if len(streams) != 1 or not isinstance(stream, StreamFamily):
        return False
    shape = survey.shape(stream.stream)
    own = sum(prod(survey.shape(value)) for value in family.sample.results)
    return prod(shape) // shape[stream.axis] <= own


def _replace(families: list[NodeFamily], family: NodeFamily, made: dict[Earlier, NodeFamily]) -> None:
    """Let all that read `family` at an earlier step read a copy that computes it from earlier operands."""
    for user in list(families):
        for slot, operand in enumerate(user.operands):
            if isinstance(operand, Reading) and operand.family is family and operand.delay:
                copy = made.get((family, operand.delay)) or _earlier(family, operand.delay)
                if (family, operand.delay) not in made:
                    made[family, operand.delay] = copy
                    families.append(copy)
                user.operands[slot] = Reading(copy, operand.index)


def _earlier(family: NodeFamily, delay: int) -> NodeFamily:
    nodes = (*(None for _ in range(delay)), *family.nodes[: len(family.nodes) - delay])
    operands: list[Reference | None] = [
        replace(operand, delay=operand.delay + delay, initial=(*((None,) * delay), *operand.initial))
        if isinstance(operand, Reading)
        else operand
        for operand in family.operands
    ]
    return NodeFamily(family.steps, nodes, operands)
