"""Which axes of a region's target are the batch and time: what has their sizes, and is told apart by running it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ssmc.frontend.graph.flow import Flow, Unsupported
from ssmc.frontend.mixing.regions import Region
from ssmc.ir.op import Array

ROUNDING = 1e-12


def target_axes(region: Region) -> Iterator[str]:
    """Ways to read the axes of a region's target: which is the batch is tried out, time has the entries' length."""
    if steps_of(region) not in region.shape:
        return  # a spectrum, say: told without running anything
    batch, places = batch_of(region), batch_places(region)
    if batch not in (None, 1) and places:
        first = region.samples[0]
        second = _with_start_of(region, first, region.samples[-1])
        places = moved_alone(places, region.run(first), region.run(second))
    yield from axes_with(region, places)


def axes_with(region: Region, places: Sequence[int | None]) -> Iterator[str]:
    """As `target_axes`, where the batch is at one of the places."""
    length = steps_of(region)
    for b in places:
        for t, size in enumerate(region.shape):
            if size == length and t != b:
                yield "".join("b" if i == b else "t" if i == t else "f" for i in range(len(region.shape)))


def steps_of(region: Region) -> int:
    """Steps of the streams that enter. Raises Unsupported where these do not agree in what axes they have."""
    if any(f.axes.count("t") != 1 for f in region.flows):
        raise Unsupported("meets values that have no time axis")
    if len({"b" in f.axes for f in region.flows}) > 1:
        raise Unsupported("meets values that have no batch axis")
    return region.flows[0].shape[region.flows[0].axes.index("t")]


def batch_of(region: Region) -> int | None:
    """Samples that enter together; None where some of the entries have no batch."""
    flow = region.flows[0]
    return flow.shape[flow.axes.index("b")] if all("b" in f.axes for f in region.flows) else None


def batch_places(region: Region) -> list[int | None]:
    """Axes of the target that have the size of the batch; no axis where there is no batch."""
    batch = batch_of(region)
    return [None] if batch is None else [i for i, size in enumerate(region.shape) if size == batch]


def sample(flow: Flow, which: int) -> tuple[slice, ...]:
    """Where one sample of a batch is in a stream."""
    return (*(slice(None) for _ in range(flow.axes.index("b"))), slice(which, which + 1))


def with_another_start(region: Region, arrays: Sequence[Array], rng: np.random.Generator) -> list[Array]:
    """The arrays with noise as the first sample."""
    found = [a.copy() for a in arrays]
    for array, flow in zip(found, region.flows, strict=True):
        first = array[sample(flow, 0)]
        first[:] = rng.standard_normal(first.shape)
    return found


def _with_start_of(region: Region, arrays: Sequence[Array], other: Sequence[Array]) -> list[Array]:
    """The arrays with the first sample of the others."""
    found = [a.copy() for a in arrays]
    for array, new, flow in zip(found, other, region.flows, strict=True):
        array[sample(flow, 0)] = new[sample(flow, 0)]
    return found


def moved_alone(places: Sequence[int | None], before: Array, after: Array) -> list[int | None]:
    """Axes along which nothing but the first place moved."""
    change = np.abs(after - before)
    # A matrix product may round a row otherwise when another row changes.
    noise = ROUNDING * float(np.abs(before).max(initial=0.0))
    return [i for i in places if i is None or not np.any(np.delete(change, 0, axis=i) > noise)]
