"""Sums of products over the steps."""

from __future__ import annotations

from collections.abc import Sequence

from ssmc.frontend.graph.builder import Builder
from ssmc.frontend.graph.contraction import einsum
from ssmc.frontend.graph.flow import Flow, Known, TimeMixing


def summed_over_time(
    builder: Builder, terms: Sequence[str], result: str, items: Sequence[Flow | Known], kind: str = "sum"
) -> Flow | Known:
    """An einsum whose sum (or mean) runs over the steps too."""
    times = {
        x
        for term, item in zip(terms, items, strict=True)
        if isinstance(item, Flow)
        for x, a in zip(term, item.axes, strict=True)
        if a == "t"
    }
    if len(times) != 1 or not times.isdisjoint(result):
        raise TimeMixing("every step meets every other (attention)")
    each = einsum(builder, terms, result + next(iter(times)), items)
    assert isinstance(each, Flow)
    value = builder.add("pool", [each.value], kind=kind)
    return Flow(value, each.axes[:-1], each.shape[:-1])
