"""Systems of which the first inputs do otherwise, as one system: they move the same states, with gains of their own.

From the step on that treats its input as all later ones do, what a first input left behind decays with the system's
poles. Its gains to the states are solved for in those steps; what the steps before show otherwise is a tap of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ssmc.frontend.graph.builder import Operand
from ssmc.frontend.graph.flow import Flow
from ssmc.frontend.mixing.filters import Emitter, emitter_of, systems_of
from ssmc.frontend.mixing.identified import Part
from ssmc.frontend.mixing.lti import Kernels
from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.translator import Translator
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor
from ssmc.statespace import kernel

STATES = 64  # of a channel, whose gains are solved for (ours)


@dataclass(frozen=True, eq=False)
class _Start:
    """What first inputs do: gains to the states (channels, states, width), taps (channels, width, m) beside them.

    `error` and `l1` are what these miss, as those of a `Fit`.
    """

    gains: Array
    taps: Array
    error: float
    l1: float


def emit_started(
    translator: Translator, region: Region, kernels: Kernels, at: Sequence[int], count: int, missing: int
) -> Flow | None:
    """The target of a region whose outputs depend on one input each, and on some of its `count` first values; None
    where no system serves, or the first inputs do not move its states. The first `missing` steps of it do not count.

    `kernels` has a column for the input, and one for each of the others, which come at the steps `at`.
    """
    tolerance = translator.findings.tolerance
    if kernels.inputs.shape[1] != 1 + len(at):
        return None
    parts, _ = systems_of(translator, kernels.causal[:, 0], tolerance)
    if sum(len(part.channels) for part in parts) < len(kernels.inputs):
        return None
    starts = [_start(kernels.causal[part.channels], part, at, count, missing, tolerance) for part in parts]
    if any(start is None for start in starts):
        return None
    emitter = emitter_of(translator, region, kernels, tolerance)
    found = [_emitted(emitter, part, start) for part, start in zip(parts, starts, strict=True) if start is not None]
    order = np.argsort(np.concatenate([part.channels for part in parts]))
    y = emitter.builder.concat(found, -1)
    if not np.array_equal(order, np.arange(len(order))):
        y = emitter.builder.emit("take", [y], axis=-1, index=Tensor(order))
    return emitter.target(y)


def _start(taps: Array, part: Part, at: Sequence[int], count: int, missing: int, tolerance: float) -> _Start | None:
    """The gains of the first inputs of a part (taps: channels, 1 + inputs, L); None where they move other states."""
    system, length = part.fit.system, taps.shape[2]
    if part.head is not None or system.states > STATES:
        return None
    unit = np.eye(system.states)
    ways = np.concatenate([unit, 1j * unit], axis=1) if system.is_complex else unit
    shape = (system.groups, *ways.shape)
    free = replace(system, B=np.broadcast_to(ways, shape), D=np.zeros((system.groups, 1, shape[2])))
    seen = kernel(free, length)[:, 0].swapaxes(1, 2)  # channels, L, ways
    gains = np.zeros((len(taps), system.states, len(at)), ways.dtype)
    beside = np.zeros((len(taps), len(at), max(count + part.delay, 1)))
    missed = np.zeros((len(taps), len(at), length))
    for o in range(len(taps)):
        scale = np.abs(taps[o]).max()
        for j, step in enumerate(at):
            wanted, regular = taps[o, 1 + j], count + part.delay - step
            solved = np.linalg.lstsq(seen[o, regular:], wanted[regular:], rcond=1e-12)[0]
            left = wanted - seen[o] @ solved
            if np.abs(left[regular:]).max(initial=0.0) > tolerance * scale:
                return None
            gains[o, :, j] = ways @ solved
            counts = np.arange(regular) + step >= missing
            own = counts & (np.abs(left[:regular]) > tolerance * scale)
            beside[o, j, :regular] = np.where(own, left[:regular], 0.0)
            missed[o, j] = np.abs(left)
            missed[o, j, :regular] *= counts & ~own
    largest = np.abs(taps).max(axis=(1, 2), initial=1e-300)
    error, l1 = (missed.max(axis=(1, 2)) / largest).max(), missed.sum(axis=(1, 2)).max()
    return _Start(gains, beside, float(error), float(l1))


def _emitted(emitter: Emitter, part: Part, start: _Start) -> Operand:
    """The outputs of a part's channels."""
    builder, inputs, system = emitter.builder, emitter.kernels.inputs[part.channels], part.fit.system
    given = [emitter.delayed(emitter.taken(inputs[:, 0]), part.delay, False)]
    given += [emitter.taken(index) for index in inputs[:, 1:].T]
    order = np.arange(inputs.size).reshape(inputs.T.shape).T.reshape(-1)
    u = builder.emit("take", [builder.concat(given, -1)], axis=-1, index=Tensor(order))
    direct = np.concatenate([system.D, start.taps[:, None, :, 0]], axis=2)
    whole = replace(system, B=np.concatenate([system.B, start.gains], axis=2), D=direct)
    shape = (*inputs.shape, emitter.kernels.causal.shape[2])
    fit = replace(part.fit, system=whole, error=max(part.fit.error, start.error), l1=part.fit.l1 + start.l1)
    y = emitter.system(u, fit, part.how, shape, False)
    for j, lag in _used(start.taps):
        late = emitter.delayed(given[1 + j], lag, False)
        y = builder.binary("add", y, builder.binary("mul", late, start.taps[:, j, lag]))
    return y


def _used(taps: Array) -> Iterator[tuple[int, int]]:
    """Inputs and lags, behind the direct terms, that have taps of their own."""
    for j in range(taps.shape[1]):
        for lag in range(1, taps.shape[2]):
            if np.any(taps[:, j, lag]):
                yield j, lag
