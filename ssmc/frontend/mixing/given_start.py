"""Recurrences with computed decays that start from constants, as minGRU's scan in the log domain does.

`log h_0` stands in front of the logarithms of what is written, and the sums of the decays' logarithms have one term
more: what the region gives where nothing is written is the start, which has faded (arXiv 2410.01201, appendix B.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ssmc.frontend.graph.builder import Builder
from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.mixing.viewpoints import is_same, with_entry
from ssmc.ir.op import Array

PROBED = 0.5  # what is added to an exponent to see whether the answer is linear in its exponential (ours)


def without_start(builder: Builder, region: Region) -> tuple[Region, Region] | None:
    """The region less what it gives where nothing is written, and that; None where that is nothing.

    What is written may be given as its logarithm: the regions returned take it itself.
    """
    first = region.samples[0]
    whole = region.run(first)
    scale = float(np.abs(whole).max(initial=0.0))
    if not scale or not np.isfinite(whole).all():
        return None
    written = [(i, log) for i in range(len(first)) if (log := _is_affine(region, first, i, whole, scale)) is not None]
    if not written:
        return None
    logs = {i for i, log in written if log}

    def run(arrays: Sequence[Array]) -> Array:
        return region.run([np.log(a) if i in logs else a for i, a in enumerate(arrays)])

    places = {i for i, _ in written}

    def start(arrays: Sequence[Array]) -> Array:
        return run([np.zeros_like(a) if i in places else a for i, a in enumerate(arrays)])

    flows = tuple(
        replace(f, value=builder.unary("exp", f.value)) if i in logs else f  # type: ignore[arg-type]
        for i, f in enumerate(region.flows)
    )
    samples = tuple(tuple(np.exp(a) if i in logs else a for i, a in enumerate(s)) for s in region.samples)
    plain = replace(region, flows=flows, samples=samples)
    return replace(plain, run=lambda arrays: run(arrays) - start(arrays)), replace(plain, run=start)


def _is_affine(region: Region, arrays: Sequence[Array], i: int, whole: Array, scale: float) -> bool | None:
    """Is the answer affine in an entry, and more than it gives? True where it is in the exponential of the entry."""
    for log, none, factor in ((False, np.zeros_like(arrays[i]), 2.0), (True, np.full_like(arrays[i], -np.inf), None)):
        rest = region.run(with_entry(arrays, i, none))
        if not np.isfinite(rest).all() or np.abs(rest).max() <= 1e-12 * scale or is_same(rest, whole, scale):
            continue
        more = arrays[i] * factor if factor else arrays[i] + PROBED
        times = factor or np.exp(PROBED)
        if is_same(region.run(with_entry(arrays, i, more)) - rest, times * (whole - rest), scale):
            return log
    return None
