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

from ssmc.frontend.graph.flow import Flow, Known, Unsupported
from ssmc.frontend.mixing.filters import emit_kernels
from ssmc.frontend.mixing.lti import TOLERANCE, Kernels, convolved, dependences, impulse_kernels, probe, to_steps
from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.rules.elementwise import binary
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

SHORTEST = 6  # steps that tell a system
FIRST = (1, 2)  # how many inputs may do otherwise


def explain_start(translator: Translator, region: Region) -> Flow | None:
    """The target of a region that treats all steps alike but the first ones; None where it does not."""
    lengths = {f.shape[f.axes.index("t")] for f in region.flows if "t" in f.axes}
    if len(lengths) != 1 or min(lengths) < SHORTEST or not lengths & set(region.shape):
        return None
    zero = region.run([np.zeros(f.shape) for f in region.flows])
    if np.any(zero):
        return None
    for count in FIRST:
        if min(lengths) < count + SHORTEST - 1:
            return None
        try:
            later = probe(_without_first(region, count))
        except Unsupported:
            continue
        if later.future is None and (kernels := _with_start(region, later, zero, count)) is not None:
            break
    else:
        return None
    starts = [_alone(translator, flow, step) for step in range(count) for flow in region.flows]
    both = replace(_shorter(region, [*region.flows, *starts], count), known=region.known)
    known = {node.name for node in translator.builder.graph.nodes("fir")}
    found = emit_kernels(translator, both, kernels, translator.findings.tolerance)
    taps = min(lengths) - count
    if any(
        node.op["kernel"].shape[1] >= taps for node in translator.builder.graph.nodes("fir") if node.name not in known
    ):
        return None  # the last taps are not known
    return replace(found, shape=region.shape)


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
            np.concatenate([np.zeros_like(np.take(x, range(count), axis=_steps(f))), x], axis=_steps(f))
            for x, f in zip(arrays, region.flows, strict=True)
        ]
        y = region.run(padded)
        return np.delete(y, range(count), axis=y.shape.index(length))

    samples = tuple(
        tuple(np.delete(x, range(count), axis=_steps(f)) for x, f in zip(arrays, region.flows, strict=True))
        for arrays in region.samples
    )
    return replace(_shorter(region, region.flows, count), run=run, samples=samples)


def _with_start(region: Region, later: Kernels, zero: Array, count: int) -> Kernels | None:
    """Kernels of the inputs, and of their first values alone; None where these do not make the region's answers."""
    size = sum(int(np.prod(f.features, dtype=np.int64)) for f in region.flows)
    taps = later.causal.shape[-1]
    for inputs, colours in dependences(region, later.axes):
        if not np.array_equal(inputs, later.inputs):
            continue
        whole, extras = [inputs], [later.causal]
        for step in range(count):
            moved = replace(region, run=partial(_delayed, region, step))
            first = impulse_kernels(moved, later.axes, inputs, colours, zero)
            if first is None:
                return None
            extra = first.causal[..., step : step + taps] - later.causal
            extra[np.abs(extra) <= TOLERANCE * np.abs(first.causal).max(initial=0.0)] = 0.0
            whole.append(inputs + (step + 1) * size)
            extras.append(extra)
        kernels = np.concatenate(whole, axis=1), np.concatenate(extras, axis=1)
        found = Kernels(later.axes, *kernels, None, 0 * later.offset, 0.0)
        return found if _holds(region, found, count) else None
    return None


def _delayed(region: Region, steps: int, arrays: Sequence[Array]) -> Array:
    """The region's answer to inputs that come some steps later."""
    moved = []
    for x, f in zip(arrays, region.flows, strict=True):
        late = np.roll(x, steps, axis=_steps(f))
        late[(slice(None),) * _steps(f) + (slice(0, steps),)] = 0.0
        moved.append(late)
    return region.run(moved)


def _holds(region: Region, kernels: Kernels, count: int) -> bool:
    rng = np.random.default_rng(23)
    arrays = [rng.standard_normal(f.shape) for f in region.flows]
    wanted = to_steps(region.run(arrays), kernels.axes)[:, :-count]
    u = np.concatenate([to_steps(x, f.axes) for x, f in zip(arrays, region.flows, strict=True)], axis=2)[:, :-count]
    starts = [np.where(np.arange(u.shape[1])[:, None] == step, u, 0.0) for step in range(count)]
    found = convolved(kernels, np.concatenate([u, *starts], axis=2))
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
