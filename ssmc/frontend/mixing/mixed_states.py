"""Recurrences whose states are mixed by matrices that the data give, as by the delta rule, in whatever form.

Such a region, chunked or parallel, is linear in one of the streams that enter it, the values. What that gives later
depends on all steps between: on products of their matrices (DeltaNet, arXiv 2406.06484, equation 5), which are others
in another order, as products of decays and sums over softmax scores are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssmc.frontend.graph.flow import Flow, Unsupported
from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.mixing.viewpoints import with_entry
from ssmc.ir.op import Array

FEWEST = 6  # steps that tell it
LINEAR, MOVED = 1e-8, 1e-5  # relative
MIXED = (
    "it is a recurrence whose states are mixed by a matrix that depends on the data, and so by products of these over "
    "many steps (the delta rule of DeltaNet, Gated DeltaNet and RWKV-7, in chunks or as a whole); the targets multiply "
    "states by decays of the data, or by matrices that are the same at every step"
)


def mixes_states(region: Region) -> bool:
    """Is a region linear in one stream, and what that gives later others when steps between are exchanged?"""
    flows = region.flows
    if len(flows) < 2 or any(f.axes.count("t") != 1 for f in flows) or len({f.shape[_steps(f)] for f in flows}) > 1:
        return False
    steps = flows[0].shape[_steps(flows[0])]
    times = [axis for axis, size in enumerate(region.shape) if size == steps]
    if steps < FEWEST or not times:
        return False
    arrays = [np.array(a, np.float64) for a in region.samples[0]]
    try:
        return any(_is_linear(region, arrays, k) and _tells_order(region, arrays, k, times) for k in range(len(flows)))
    except Unsupported:
        return False


def _steps(flow: Flow) -> int:
    return flow.axes.index("t")


def _is_linear(region: Region, arrays: Sequence[Array], k: int) -> bool:
    rng = np.random.default_rng(61)
    one, two = (rng.standard_normal(arrays[k].shape) for _ in range(2))
    zero, a, b, both = (region.run(with_entry(arrays, k, x)) for x in (0 * one, one, two, one + two))
    size = float(np.abs(both).max(initial=0.0))
    return bool(np.isfinite(both).all() and size > 0 and np.abs(both - a - b + zero).max() <= LINEAR * size)


def _tells_order(region: Region, arrays: Sequence[Array], k: int, times: Sequence[int]) -> bool:
    """Does the last step's answer to a first step of values change with the order of two steps between?"""
    order = np.arange(arrays[0].shape[_steps(region.flows[0])])
    middle = len(order) // 2
    order[[middle - 1, middle]] = order[[middle, middle - 1]]
    moved = [np.take(a, order, axis=_steps(f)) for a, f in zip(arrays, region.flows, strict=True)]
    first = np.zeros(arrays[k].shape)
    at = [slice(None)] * first.ndim
    at[_steps(region.flows[k])] = slice(0, 1)
    first[tuple(at)] = np.random.default_rng(67).standard_normal(first[tuple(at)].shape)
    answers = [
        region.run(with_entry(given, k, first)) - region.run(with_entry(given, k, 0 * first))
        for given in (arrays, moved)
    ]
    for axis in times:
        before, after = (np.take(answer, -1, axis=axis) for answer in answers)
        if np.abs(after - before).max(initial=0.0) <= MOVED * np.abs(before).max(initial=0.0):
            return False
    return True
