"""Recurrences that start from their first input, as a moving average whose first value is the first sample.

`x_0 = u_0`, then `x_k = a x_{k-1} + (1 - a) u_k`: linear, and the same at every step but the first. It is the
time-invariant system that the later steps show, and beside it what the first input does otherwise. A trend that starts
as the first difference takes two inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ssmc.frontend.graph.flow import Flow, Known, Unsupported
from ssmc.frontend.mixing.filters import SHORT, emit_kernels
from ssmc.frontend.mixing.lti import TOLERANCE, Kernels, convolved, dependences, impulse_kernels, probe, to_steps
from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.mixing.starting import emit_started
from ssmc.frontend.rules.elementwise import binary
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

SHORTEST = 6  # steps that tell a system
FIRST = (1, 2)  # how many inputs may do otherwise
LATE = 32  # steps that a result may begin behind the first input (ours)


def explain_start(translator: Translator, region: Region) -> Flow | None:
    """The target of a region that treats all steps alike but the first ones; None where it does not.

    Its result may begin some steps later than its inputs, as where states start from the first ones.
    """
    lengths = {f.shape[f.axes.index("t")] for f in region.flows if "t" in f.axes}
    if len(lengths) != 1 or min(lengths) < SHORTEST or any(f.axes.count("t") != 1 for f in region.flows):
        return None
    (length,) = lengths
    if length in region.shape:
        return _started(translator, region, 0)
    places = [axis for axis, size in enumerate(region.shape) if 0 < length - size <= min(LATE, length // 3)]
    if not places or not _is_affine(region):
        return None
    for axis in places:
        missing = length - region.shape[axis]
        found = _started(translator, _filled(region, axis, missing), missing)
        if found is not None:
            later = translator.builder.add("downsample", [found.value], stride=1, kind="take", offset=missing)
            return replace(found, value=later, shape=region.shape)
    return None


def _is_affine(region: Region) -> bool:
    """Is the region linear but for what it gives for zeros? Most that begin late are not, and are not tried further."""
    rng = np.random.default_rng(29)
    noise = [rng.standard_normal(f.shape) for f in region.flows]
    zero, once, twice = (region.run([factor * x for x in noise]) for factor in (0.0, 1.0, 2.0))
    scale = float(np.abs(twice).max(initial=0.0))
    return bool(np.isfinite(twice).all() and np.abs(twice - 2 * once + zero).max(initial=0.0) <= TOLERANCE * scale)


def _filled(region: Region, axis: int, missing: int) -> Region:
    """The region with zeros in front of what it gives, one a step of its inputs."""
    widths = [(missing, 0) if i == axis else (0, 0) for i in range(len(region.shape))]
    shape = tuple(d + before for d, (before, _) in zip(region.shape, widths, strict=True))
    return replace(region, run=lambda arrays: np.pad(region.run(arrays), widths), shape=shape)


def _started(translator: Translator, region: Region, missing: int) -> Flow | None:
    """The target of a region of which the first `missing` steps do not count; None where it is nothing of the kind."""
    zero = region.run([np.zeros(f.shape) for f in region.flows])
    length = region.flows[0].shape[_steps(region.flows[0])]
    if not np.isfinite(zero).all():
        return None
    linear = replace(region, run=lambda arrays: region.run(arrays) - zero)
    counts = _counts(missing) if missing else (0, *FIRST) if np.any(zero) else FIRST
    for count in counts:
        if length < count + SHORTEST - 1:
            return None
        try:
            later = probe(_without_first(linear, count))
        except Unsupported:
            continue
        if later.axes.index("t") != region.shape.index(length):
            continue  # there are as many features as steps behind the first ones
        if later.future is None and (made := _with_start(linear, later, zero, count, missing)) is not None:
            break
    else:
        return None
    kernels, lasts = made
    kernels, at = _used(kernels, _width(linear))
    starts = [_alone(translator, flow, step) for step in at if step < count for flow in region.flows]
    starts += [_beginning(translator, region.flows[0])] * (count in at)
    both = replace(_shorter(region, [*region.flows, *starts], count), known=region.known)
    lasting = np.any(kernels.causal[..., min(SHORT, kernels.causal.shape[2] // 2) :])
    if at and lasting:
        found = emit_started(translator, both, kernels, [step if step < count else 0 for step in at], count, missing)
        if found is not None:
            return replace(found, shape=region.shape)
    graph = translator.builder.graph
    mark = graph.mark
    found = emit_kernels(translator, both, kernels, translator.findings.tolerance)
    filters = [node for node in map(graph.node, graph.added_since(mark)) if node.op.name == "fir"]
    if any(node.op["kernel"].shape[1] >= length - count for node in filters):
        return None  # the last taps are not known
    if any(_ended(node.op["kernel"].array, kernels.causal[lasts]) for node in filters):
        return None  # nor are they here, though what stands in front of them is zero
    return replace(found, shape=region.shape)


def _ended(rows: Array, kernels: Array) -> bool:
    """Is any of the rows a kernel (..., taps) but for zeros behind it?"""
    taps = rows.shape[1]
    ended = kernels[~np.any(kernels[..., taps:], axis=-1) & np.any(kernels, axis=-1)][:, :taps]
    return bool((rows[:, None] == ended).all(axis=2).any()) if len(ended) else False


def _used(kernels: Kernels, width: int) -> tuple[Kernels, list[int]]:
    """The kernels without those of first inputs that do as later ones; which are left, of steps 0, 1, ... and, last,
    of what the region gives for zeros."""
    blocks = kernels.inputs[0] // width
    left = [int(b) for b in np.unique(blocks) if b and np.any(kernels.causal[:, blocks == b])]
    kept = np.isin(blocks, [0, *left])
    inputs = kernels.inputs[:, kept]
    number = np.searchsorted([0, *left], inputs // width)
    return replace(kernels, inputs=number * width + inputs % width, causal=kernels.causal[:, kept]), [
        b - 1 for b in left
    ]


def _width(region: Region) -> int:
    """How many inputs the region has, features of all streams."""
    return sum(int(np.prod(f.features, dtype=np.int64)) for f in region.flows)


def _counts(missing: int) -> tuple[int, ...]:
    """How many first inputs may do otherwise where a result begins so many steps later; twice as many: two seasons."""
    return tuple(sorted({0, missing, missing + 1, missing + 2, 2 * missing}))


def _steps(flow: Flow) -> int:
    return flow.axes.index("t")


def _shorter(region: Region, flows: Sequence[Flow], by: int) -> Region:
    """The region over fewer steps."""
    cut = [replace(f, shape=(*f.shape[: _steps(f)], f.shape[_steps(f)] - by, *f.shape[_steps(f) + 1 :])) for f in flows]
    length = region.flows[0].shape[_steps(region.flows[0])]
    shape = list(region.shape)
    shape[shape.index(length)] -= by
    return replace(region, flows=tuple(cut), shape=tuple(shape))


def _without_first(region: Region, count: int) -> Region:
    """What the region does with its inputs behind the first ones."""
    length = region.flows[0].shape[_steps(region.flows[0])]

    def run(arrays: Sequence[Array]) -> Array:
        padded = [
            np.pad(x, [(count if i == _steps(f) else 0, 0) for i in range(x.ndim)])
            for x, f in zip(arrays, region.flows, strict=True)
        ]
        y = region.run(padded)
        return np.delete(y, range(count), axis=y.shape.index(length))

    samples = tuple(
        tuple(np.delete(x, range(count), axis=_steps(f)) for x, f in zip(arrays, region.flows, strict=True))
        for arrays in region.samples
    )
    return replace(_shorter(region, region.flows, count), run=run, samples=samples)


def _with_start(
    region: Region, later: Kernels, zero: Array, count: int, missing: int
) -> tuple[Kernels, NDArray[np.bool_]] | None:
    """Kernels of the inputs, of their first values alone, and of a one at the first step, which makes what the region
    gives for zeros; and for each output, whether a first value lasts longer than these taps do. None where they do not
    make the region's answers."""
    size = _width(region)
    taps, offset = later.causal.shape[-1], 0 * later.offset
    resting = to_steps(zero, later.axes)
    if np.ptp(resting, axis=0).max(initial=0.0) > TOLERANCE * np.abs(resting).max(initial=0.0):
        return None  # the samples of a batch start otherwise
    rest = resting[0, :taps].T  # outputs, steps
    level = resting[0, -1]
    if np.abs(resting[0, missing:] - level).max(initial=0.0) <= TOLERANCE * np.abs(level).max(initial=0.0):
        rest, offset = 0 * rest, level
    for inputs, colours in dependences(region, later.axes):
        lasting = _among(inputs, later)
        if lasting is None:
            continue
        whole, extras, lasts = [inputs], [lasting], np.zeros(len(inputs), bool)
        for step in range(count):
            moved = replace(region, run=partial(_delayed, region, step))
            first = impulse_kernels(moved, later.axes, inputs, colours, 0 * zero)
            if first is None:
                return None
            extra = first.causal[..., step : step + taps] - lasting
            extra[np.abs(extra) <= TOLERANCE * np.abs(first.causal).max(initial=0.0)] = 0.0
            extra[..., : max(missing - step, 0)] = 0.0
            behind = np.abs(first.causal[..., step + taps :]).max(axis=(1, 2), initial=0.0)
            lasts |= behind > TOLERANCE * np.abs(first.causal).max(initial=0.0)
            whole.append(inputs + (step + 1) * size)
            extras.append(extra)
        if np.any(rest):
            whole.append(np.full((len(inputs), 1), (count + 1) * size))
            extras.append(rest[:, None])
        kernels = np.concatenate(whole, axis=1), np.concatenate(extras, axis=1)
        found = Kernels(later.axes, *kernels, None, offset, 0.0)
        return (found, lasts) if _holds(region, found, zero, count, missing) else None
    return None


def _among(inputs: NDArray[np.int64], later: Kernels) -> Array | None:
    """The kernels of the inputs, zeros for those that count in the first steps alone; None where some are missing."""
    there = inputs[:, :, None] == later.inputs[:, None, :]  # outputs, inputs, those that count later
    return np.einsum("oij,ojl->oil", there, later.causal) if there.any(axis=1).all() else None


def _delayed(region: Region, steps: int, arrays: Sequence[Array]) -> Array:
    """The region's answer to inputs that come some steps later."""
    moved = []
    for x, f in zip(arrays, region.flows, strict=True):
        late = np.roll(x, steps, axis=_steps(f))
        late[(slice(None),) * _steps(f) + (slice(0, steps),)] = 0.0
        moved.append(late)
    return region.run(moved)


def _holds(region: Region, kernels: Kernels, zero: Array, count: int, missing: int) -> bool:
    rng = np.random.default_rng(23)
    arrays = [rng.standard_normal(f.shape) for f in region.flows]
    wanted = to_steps(region.run(arrays) + zero, kernels.axes)
    u = np.concatenate([to_steps(x, f.axes) for x, f in zip(arrays, region.flows, strict=True)], axis=2)
    end, number = u.shape[1] - count, np.arange(u.shape[1] - count)[:, None]
    starts = [np.where(number == step, u[:, :end], 0.0) for step in range(count)]
    one = np.broadcast_to(np.where(number == 0, 1.0, 0.0), (len(u), end, 1))
    found = convolved(kernels, np.concatenate([u[:, :end], *starts, one], axis=2)) + kernels.offset
    wanted, found = wanted[:, missing:end], found[:, missing:]
    return bool(np.abs(found - wanted).max() <= TOLERANCE * max(float(np.abs(wanted).max()), 1e-300))


def _alone(translator: Translator, flow: Flow, step: int) -> Flow:
    """One step of the stream, zeros around it."""
    builder = translator.builder
    number = builder.steps(flow.value)
    assert isinstance(number, Value)
    axes = "".join("t" if a == "t" else "f" for a in flow.axes)
    shape = tuple(d if a == "t" else 1 for a, d in zip(flow.axes, flow.shape, strict=True))
    wide = builder.reshape(number, tuple(1 for a in axes if a == "f"))
    assert isinstance(wide, Value)
    first = binary(builder, "equal", Flow(wide, axes, shape), Known(np.full((), float(step))))
    found = binary(builder, "mul", flow, first)
    assert isinstance(found, Flow)
    return found


def _beginning(translator: Translator, flow: Flow) -> Flow:
    """A one at the first step, zeros behind it."""
    builder = translator.builder
    first = builder.binary("equal", builder.steps(flow.value), np.zeros(()))
    kept = [i for i, letter in enumerate(flow.axes) if letter != "f"]
    axes, shape = "".join(flow.axes[i] for i in kept) + "f", [flow.shape[i] for i in kept]
    value = builder.reshape(first, (1,))
    assert isinstance(value, Value)
    return Flow(value, axes, (*shape, 1))
