"""What a loop behind its first step leaves at its end, as the last of what it leaves at every step.

`h = f(x_0)`, then one trip a step from the second on, and only the last h is read: where zeros stand in front of it the
same loop gives what it is after any step before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ssmc.frontend.graph.flow import Flow, Unsupported
from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.translator import Translator
from ssmc.ir.op import Array

LOOPS = frozenset(["Loop", "Scan"])
MOST = 24  # steps of a loop that is run once a step (ours)


def explain_last(translator: Translator, region: Region, explained: Callable[[Region], Flow]) -> Flow | None:
    """The target of a region that a loop ends in, by `explained` for all its steps; None where it is nothing of the
    kind."""
    if not any(call.kind in LOOPS for call in region.calls) or any(f.axes.count("t") != 1 for f in region.flows):
        return None
    lengths = {flow.shape[flow.axes.index("t")] for flow in region.flows}
    if len(lengths) != 1 or lengths & {*region.shape} or max(lengths) > MOST or not region.shape:
        return None
    (length,) = lengths
    try:
        found = explained(_at_every_step(region, length))
    except Unsupported:
        return None
    if found.axes.find("t") != 1:
        return None
    last = translator.builder.add("pool", [found.value], kind="last")
    return Flow(last, found.axes.replace("t", "", 1), region.shape)


def _at_every_step(region: Region, length: int) -> Region:
    """What the region gives where the inputs end at each step, with zeros in front: time is its second axis."""

    def run(arrays: Sequence[Array]) -> Array:
        return np.stack([region.run(_ending(arrays, step)) for step in range(length)], axis=1)

    def _ending(arrays: Sequence[Array], step: int) -> list[Array]:
        places = [flow.axes.index("t") for flow in region.flows]
        return [_later(x, axis, length - 1 - step) for x, axis in zip(arrays, places, strict=True)]

    return replace(region, run=run, shape=(region.shape[0], length, *region.shape[1:]))


def _later(array: Array, axis: int, steps: int) -> Array:
    """The array so many steps later, zeros in front of it."""
    widths = [(steps if i == axis else 0, 0) for i in range(array.ndim)]
    return np.take(np.pad(array, widths), range(array.shape[axis]), axis=axis)
