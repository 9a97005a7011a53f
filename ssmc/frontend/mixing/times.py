"""Decays by the time between any two events: exp(-a (t_i - t_j)), as a mask that holds every pair of them.

Only differences of the times t count, so that the gaps between neighbours tell all: a t_k - a t_{k-1} is the logarithm
of a decay. The rate a is told by the second step, which has what is written there and what is left of the first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from ssmc.frontend.graph.builder import Builder
from ssmc.frontend.graph.flow import Flow, Unsupported
from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.mixing.target_axes import target_axes
from ssmc.frontend.mixing.viewpoints import TOLERANCE, is_same, with_entry
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

MOST = 32  # rates (ours)
SHIFT = 1.0  # of all times, to see whether only differences count (ours)
GAP = 0.5  # between the first two events, to see the rate (ours)


def out_of_times(builder: Builder, region: Region) -> Region | None:
    """The region as a function of the logarithms of decays in place of times; None where no entry is a time."""
    first = region.samples[0]
    whole = region.run(first)
    scale = float(np.abs(whole).max(initial=0.0))
    for i, (flow, array) in enumerate(zip(region.flows, first, strict=True)):
        if not scale or prod(flow.features) > 1 or flow.axes.count("t") != 1:
            continue
        if not is_same(region.run(with_entry(first, i, array + SHIFT)), whole, scale):
            continue
        for axes in _readings(region):
            rates = _rates(region, i, axes)
            if rates is not None:
                return _by_gaps(builder, region, i, axes, rates)
    return None


def _readings(region: Region) -> list[str]:
    try:
        return list(target_axes(region))
    except Unsupported:
        return []


def _rates(region: Region, entry: int, axes: str) -> Array | None:
    """log of what is left of the first step at the second, a unit of time later: for every feature of the target."""
    time, flow = axes.index("t"), region.flows[entry]
    seconds = []
    for count in range(4):
        gaps = np.zeros(flow.shape)
        gaps[tuple(slice(1, 2) if a == "t" else slice(None) for a in flow.axes)] = count * GAP
        answer = region.run(with_entry(region.samples[0], entry, np.cumsum(gaps, axis=flow.axes.index("t"))))
        seconds.append(np.moveaxis(np.take(answer, 1, axis=time), _batch(axes), 0))
    none, one, two, three = (s.reshape(len(s), -1) for s in seconds)
    top, bottom = ((a * (one - none)).sum(axis=0) for a in (two - none, one - none))
    scale = float(np.abs(none).max(initial=0.0))
    if not np.isfinite(top).all() or np.any(bottom <= (TOLERANCE * scale) ** 2):
        return None
    left = top / bottom - 1.0
    expected = none + (one - none) * (1 + left + left**2)
    if np.any(left <= 0) or np.any(left == 1) or np.abs(three - expected).max() > TOLERANCE * max(scale, 1e-300):
        return None
    rates = np.log(left) / GAP
    if np.ptp(rates) <= TOLERANCE * np.abs(rates).max():
        return np.asarray(rates.mean())
    return rates.reshape(seconds[0].shape[1:]) if rates.size <= MOST else None


def _batch(axes: str) -> int:
    """Where the batch is in what one step gives."""
    return axes.replace("t", "").index("b")


def _by_gaps(builder: Builder, region: Region, entry: int, axes: str, rates: Array) -> Region:
    flow, time = region.flows[entry], region.flows[entry].axes.index("t")
    gap = builder.binary("sub", flow.value, builder.add("delay", [flow.value], steps=1))
    if rates.ndim:
        kept = tuple(k for k, a in enumerate(flow.axes) if a != "f")
        gap, letters = builder.reshape(gap, (1,) * rates.ndim), "".join(flow.axes[k] for k in kept)
        shape = (*(flow.shape[k] for k in kept), *rates.shape)
        new = Flow(flow.value, letters + "f" * rates.ndim, shape)
    else:
        new = flow
    value = builder.binary("mul", gap, rates)
    assert isinstance(value, Value)
    new = replace(new, value=value)

    def logs(times: Array) -> Array:
        gaps = np.diff(times, axis=time, prepend=0.0)
        if not rates.ndim:
            return np.asarray(gaps * rates)
        return np.asarray(gaps.reshape(*new.shape[: -rates.ndim], *(1,) * rates.ndim) * rates)

    def times(gaps: Array) -> Array:
        return np.cumsum(gaps, axis=new.axes.index("t")).reshape(flow.shape)

    def run(arrays: Sequence[Array]) -> Array:
        if not rates.ndim:
            return region.run(with_entry(arrays, entry, times(arrays[entry] / rates)))
        found = np.empty(region.shape)
        features = [k for k, a in enumerate(axes) if a == "f"]
        for index in np.ndindex(rates.shape):
            gaps = arrays[entry][(..., *index)] / rates[index]
            place = dict(zip(features, index, strict=True))
            chosen = tuple(place.get(k, slice(None)) for k in range(len(axes)))
            found[chosen] = region.run(with_entry(arrays, entry, times(gaps)))[chosen]
        return found

    flows = tuple(new if i == entry else f for i, f in enumerate(region.flows))
    samples = tuple(tuple(logs(a) if i == entry else a for i, a in enumerate(s)) for s in region.samples)
    return replace(region, flows=flows, run=run, samples=samples)
