"""Op type -> rule: one table, made of one a subject."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ssmc.frontend.graph.flow import Tracked
from ssmc.frontend.rules import (
    elementwise,
    frames,
    matrix,
    norms,
    padding,
    pixels,
    recurrent,
    reduction,
    resampling,
    rotary,
    scatter,
    selection,
    sequences,
    shape,
    standard,
    windows,
)
from ssmc.frontend.rules.context import Rule
from ssmc.frontend.source.listing import Call

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **frames.RULES,
    **matrix.RULES,
    **norms.RULES,
    **padding.RULES,
    **pixels.RULES,
    **recurrent.RULES,
    **reduction.RULES,
    **resampling.RULES,
    **rotary.RULES,
    **scatter.RULES,
    **selection.RULES,
    **sequences.RULES,
    **shape.RULES,
    **standard.RULES,
    **windows.RULES,
}
# What a node may be where its first operand mixes time: None where it is nothing of the kind.
RAW_RULES: dict[str, Callable[[Any, Call, Sequence[Any]], list[Tracked] | None]] = {
    "InstanceNormalization": norms.over_grouped_steps
}
