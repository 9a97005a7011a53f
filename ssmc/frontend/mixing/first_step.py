"""Recurrences that start from their first input, as a moving average whose first value is the first sample.

`x_0 = u_0`, then `x_k = a x_{k-1} + (1 - a) u_k`: linear, and the same at every step but the first. It is the
time-invariant system that the later steps show, and beside it what the first input does otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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


def explain_start(translator: Translator, region: Region) -> Flow | None:
    """The target of a region that treats all steps alike but the first; None where it does not."""
    lengths = {f.shape[f.axes.index("t")] for f in region.flows if "t" in f.axes}
    if len(lengths) != 1 or min(lengths) < SHORTEST or not lengths & set(region.shape):
        return None
    zero = region.run([np.zeros(f.shape) for f in region.flows])
    if np.any(zero):
        return None
    try:
        later = probe(_without_first(region))
    except Unsupported:
        return None
    if later.future is not None:
        return None
    kernels = _with_start(region, later, zero)
    if kernels is None:
        return None
    starts = [_first_alone(translator, flow) for flow in region.flows]
    both = replace(_shorter(region, [*region.flows, *starts]), known=region.known)
    found = emit_kernels(translator, both, kernels, translator.findings.tolerance)
    return replace(found, shape=region.shape)


def _steps(flow: Flow) -> int:
    return flow.axes.index("t")


def _shorter(region: Region, flows: Sequence[Flow]) -> Region:
    """The region over one step less."""
    cut = [replace(f, shape=(*f.shape[: _steps(f)], f.shape[_steps(f)] - 1, *f.shape[_steps(f) + 1 :])) for f in flows]
    length = region.flows[0].shape[_steps(region.flows[0])]
    shape = list(region.shape)
    shape[shape.index(length)] -= 1
    return replace(region, flows=tuple(cut), shape=tuple(shape))


def _without_first(region: Region) -> Region:
    """What the region does with its inputs from the second step on."""
    length = region.flows[0].shape[_steps(region.flows[0])]

    def run(arrays: Sequence[Array]) -> Array:
        padded = [
            np.concatenate([np.zeros_like(np.take(x, [0], axis=_steps(f))), x], axis=_steps(f))
            for x, f in zip(arrays, region.flows, strict=True)
        ]
        y = region.run(padded)
        return np.delete(y, 0, axis=y.shape.index(length))

    samples = tuple(
        tuple(np.delete(x, 0, axis=_steps(f)) for x, f in zip(arrays, region.flows, strict=True))
        for arrays in region.samples
    )
    return replace(_shorter(region, region.flows), run=run, samples=samples)


def _with_start(region: Region, later: Kernels, zero: Array) -> Kernels | None:
    """Kernels of the inputs, and of their first values alone; None where these do not make the region's answers."""
    for inputs, colours in dependences(region, later.axes):
        if not np.array_equal(inputs, later.inputs):
            continue
        first = impulse_kernels(region, later.axes, inputs, colours, zero)
        if first is None:
            return None
        size = sum(int(np.prod(f.features, dtype=np.int64)) for f in region.flows)
        extra = first.causal[..., :-1] - later.causal
        extra[np.abs(extra) <= TOLERANCE * np.abs(first.causal).max(initial=0.0)] = 0.0
        causal = np.concatenate([later.causal, extra], axis=1)
        found = Kernels(
            later.axes, np.concatenate([inputs, inputs + size], axis=1), causal, None, 0 * later.offset, 0.0
        )
        return found if _holds(region, found) else None
    return None


def _holds(region: Region, kernels: Kernels) -> bool:
    rng = np.random.default_rng(23)
    arrays = [rng.standard_normal(f.shape) for f in region.flows]
    wanted = to_steps(region.run(arrays), kernels.axes)[:, :-1]
    u = np.concatenate([to_steps(x, f.axes) for x, f in zip(arrays, region.flows, strict=True)], axis=2)[:, :-1]
    start = u.copy()
    start[:, 1:] = 0.0
    found = convolved(kernels, np.concatenate([u, start], axis=2))
    return bool(np.abs(found - wanted).max() <= TOLERANCE * max(float(np.abs(wanted).max()), 1e-300))


def _first_alone(translator: Translator, flow: Flow) -> Flow:
    """The stream's first step, zeros after it."""
    builder = translator.builder
    number = builder.steps(flow.value)
    assert isinstance(number, Value)
    axes = "".join("t" if a == "t" else "f" for a in flow.axes)
    shape = tuple(d if a == "t" else 1 for a, d in zip(flow.axes, flow.shape, strict=True))
    wide = builder.reshape(number, tuple(1 for a in axes if a == "f"))
    assert isinstance(wide, Value)
    first = binary(builder, "equal", Flow(wide, axes, shape), Known(np.zeros(())))
    found = binary(builder, "mul", flow, first)
    assert isinstance(found, Flow)
    return found
