"""Regions seen in other ways: axes split or left out, time mirrored, logarithms taken out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from ssmc.frontend.graph.builder import Builder
from ssmc.frontend.graph.flow import Flow
from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

TOLERANCE = 1e-8


def shapes_of(translator: Translator, region: Region) -> Iterator[Region]:
    """The region as it is, and with axes as the axes that a reshape makes of them, or made them of."""
    for entered in (region, with_parts(translator, region)):
        if entered is None:
            return
        yield entered
        parts = _parts_of_result(translator, region)
        if parts:
            yield with_result(entered, (*region.shape[:-1], *parts))


def with_result(region: Region, shape: tuple[int, ...]) -> Region:
    """The region with another shape of its target."""
    return replace(region, shape=shape, run=lambda arrays: region.run(arrays).reshape(shape))


def _parts_of_result(translator: Translator, region: Region) -> tuple[int, ...]:
    """What a reshape made the last axis of the target of; nothing where none did."""
    call = translator.listing.producer.get(region.target)
    while call is not None and call.kind in ("Slice", "Identity", "Cast") and call.operands[0] is not None:
        call = translator.listing.producer.get(call.operands[0])
    if call is None or call.kind != "Reshape" or call.operands[0] is None:
        return ()
    source = translator.samples.shape(call.operands[0])
    parts = next((source[i:] for i in range(len(source)) if prod(source[i:]) == region.shape[-1]), ())
    return parts if len(parts) > 1 else ()


def with_parts(translator: Translator, region: Region) -> Region | None:
    """The region with feature axes of its entries as what a reshape inside makes of them, time split or not.

    None where no reshape splits any.
    """
    shapes = [flow.shape for flow in region.flows]
    flows = tuple(_in_parts(translator, region, *pair) for pair in zip(region.entries, region.flows, strict=True))
    if flows == region.flows:
        return None

    def run(arrays: Sequence[Array]) -> Array:
        return region.run([a.reshape(s) for a, s in zip(arrays, shapes, strict=True)])

    samples = tuple(tuple(a.reshape(f.shape) for a, f in zip(s, flows, strict=True)) for s in region.samples)
    return replace(region, flows=flows, run=run, samples=samples)


def _in_parts(translator: Translator, region: Region, entry: Value, flow: Flow) -> Flow:
    """An entry with its feature axes as the first reshape of it, or of it with more steps or fewer, makes them."""
    same = {entry}
    for call in region.calls:
        if not call.operands or call.operands[0] not in same:
            continue
        if call.kind in ("Pad", "Slice", "Identity", "Cast"):
            same.update(call.results)
        if call.kind != "Reshape":
            continue
        source, target = (translator.samples.shape(v) for v in (call.operands[0], call.results[0]))
        parts = split_axes(source, target)
        features = [(d, p) for a, d, p in zip(flow.axes, flow.shape, parts or (), strict=False) if a == "f"]
        if not any(len(p) > 1 for _, p in features) or any(prod(p) != d for d, p in features):
            continue
        assert parts is not None
        kept = [p if a == "f" else (d,) for a, p, d in zip(flow.axes, parts, flow.shape, strict=True)]
        axes = "".join(a * len(p) for a, p in zip(flow.axes, kept, strict=True))
        shape = tuple(d for p in kept for d in p)
        value = translator.builder.reshape(flow.value, feature_sizes(shape, axes))
        assert not isinstance(value, np.ndarray)
        return Flow(value, axes, shape)
    return flow


def split_axes(shape: Sequence[int], target: Sequence[int]) -> list[tuple[int, ...]] | None:
    """Which axes of `target` each axis of `shape` becomes, those of size one left out; None where some are merged."""
    left = [d for d in target if d != 1]
    found: list[tuple[int, ...]] = []
    for size in shape:
        parts: tuple[int, ...] = ()
        while prod(parts) < size and left:
            parts = (*parts, left.pop(0))
        if prod(parts) != size:
            return None
        found.append(parts or (1,))
    return found


def narrowed(builder: Builder, region: Region, axes: str) -> tuple[Region, str]:
    """The region without feature axes of size one, which nothing could tell apart, and the axes of its target."""
    shapes = [flow.shape for flow in region.flows]
    flows = []
    for flow in region.flows:
        kept = [(a, d) for a, d in zip(flow.axes, flow.shape, strict=True) if a != "f" or d > 1]
        letters, shape = "".join(a for a, _ in kept), tuple(d for _, d in kept)
        value = builder.reshape(flow.value, feature_sizes(shape, letters))
        flows.append(replace(flow, value=value, axes=letters, shape=shape))  # type: ignore[arg-type]
    left = [i for i, (a, d) in enumerate(zip(axes, region.shape, strict=True)) if a != "f" or d > 1]
    target = tuple(region.shape[i] for i in left)

    def run(arrays: Sequence[Array]) -> Array:
        return region.run([a.reshape(s) for a, s in zip(arrays, shapes, strict=True)]).reshape(target)

    samples = tuple(tuple(a.reshape(f.shape) for a, f in zip(s, flows, strict=True)) for s in region.samples)
    narrow = replace(region, flows=tuple(flows), shape=target, run=run, samples=samples)
    return narrow, "".join(axes[i] for i in left)


def feature_sizes(shape: Sequence[int], axes: str) -> tuple[int, ...]:
    """The sizes of the feature axes."""
    return tuple(d for d, a in zip(shape, axes, strict=True) if a == "f")


def out_of_logs(builder: Builder, region: Region) -> Region:
    """The region as a function of e^x for every entry x in whose exponential it is linear (as in logcumsumexp)."""
    first = region.samples[0]
    whole = region.run(first)
    scale = 2 * float(np.abs(whole).max(initial=0.0))
    logs = [
        i for i, a in enumerate(first) if is_same(region.run(with_entry(first, i, a + np.log(2))), 2 * whole, scale)
    ]
    if not logs or not np.any(whole):
        return region

    def run(arrays: Sequence[Array]) -> Array:
        return region.run([np.log(a) if i in logs else a for i, a in enumerate(arrays)])

    return replace(
        region,
        flows=tuple(
            replace(f, value=builder.unary("exp", f.value)) if i in logs else f  # type: ignore[arg-type]
            for i, f in enumerate(region.flows)
        ),
        run=run,
        samples=tuple(tuple(np.exp(a) if i in logs else a for i, a in enumerate(s)) for s in region.samples),
    )


def out_of_quotients(builder: Builder, region: Region) -> Region | None:
    """The region as a function of 1 / x for every entry x that it is divided by; None where it is divided by none."""
    first = region.samples[0]
    whole = region.run(first)
    scale = float(np.abs(whole).max(initial=0.0))
    below = [i for i, a in enumerate(first) if is_same(2 * region.run(with_entry(first, i, 2 * a)), whole, scale)]
    if not below or not scale:
        return None

    def turned(arrays: Sequence[Array]) -> tuple[Array, ...]:
        return tuple(1 / a if i in below else a for i, a in enumerate(arrays))

    flows = tuple(
        replace(f, value=builder.unary("reciprocal", f.value)) if i in below else f  # type: ignore[arg-type]
        for i, f in enumerate(region.flows)
    )
    samples = tuple(turned(sample) for sample in region.samples)
    return replace(region, flows=flows, run=lambda arrays: region.run(turned(arrays)), samples=samples)


def mirrored(region: Region, axes: str) -> Region:
    """The region with time running backward in what enters and leaves it; `flows` are left to the caller."""
    places = [flow.axes.index("t") for flow in region.flows]

    def turned(arrays: Sequence[Array]) -> tuple[Array, ...]:
        return tuple(np.flip(a, axis) for a, axis in zip(arrays, places, strict=True))

    def run(arrays: Sequence[Array]) -> Array:
        return np.flip(region.run(turned(arrays)), axes.index("t"))

    return replace(region, run=run, samples=tuple(turned(sample) for sample in region.samples))


def with_entry(arrays: Sequence[Array], index: int, array: Array) -> list[Array]:
    """The arrays with another one at a place."""
    return [array if i == index else a for i, a in enumerate(arrays)]


def is_same(a: Array, b: Array, scale: float) -> bool:
    """Whether an array is finite and agrees with another, relative to `scale`."""
    return bool(np.isfinite(a).all() and np.abs(a - b).max(initial=0.0) <= TOLERANCE * scale)
