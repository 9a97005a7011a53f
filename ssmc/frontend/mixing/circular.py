"""Convolutions whose padding joins the end of a sequence to its beginning, at any length.

A filter of lags -q to p is one padded with zeros, and what the last p steps give to the first p steps and the first q
steps to the last q: values of the sequence, which are known after its last step.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from ssmc.frontend.graph.builder import Operand
from ssmc.frontend.graph.flow import Flow, Unsupported
from ssmc.frontend.mixing.filters import emit_kernels
from ssmc.frontend.mixing.lti import Kernels
from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.rules.padding import CIRCULAR
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

CLOSE = 1e-9  # relative
LONGEST = 16  # steps over an end (ours)


def is_circular(kernels: Kernels) -> bool:
    """Is a tap the same at a distance and at that less the length, as where the end is put before the beginning?"""
    if kernels.future is None:
        return False
    behind, wrapped = kernels.causal[:, :, 1:], kernels.future[:, :, ::-1]
    scale = float(np.abs(behind).max(initial=0.0))
    differ = np.ptp(behind, axis=2).max(initial=0.0) > CLOSE * scale  # else it is a sum over the sequence
    return bool(scale and differ and np.abs(behind - wrapped).max() <= CLOSE * scale)


def emit_circular(translator: Translator, region: Region, kernels: Kernels) -> Flow:
    """The target of a region with circular kernels. Raises Unsupported where these reach over the ends by too much."""
    assert kernels.future is not None
    length = kernels.causal.shape[2]
    past, ahead = _reach(kernels.causal)
    if max(past, ahead) > LONGEST or past + ahead > length - 3:
        raise Unsupported(CIRCULAR)
    causal, future = np.zeros_like(kernels.causal), np.zeros_like(kernels.future)
    causal[:, :, : past + 1], future[:, :, :ahead] = kernels.causal[:, :, : past + 1], kernels.future[:, :, :ahead]
    inner = replace(kernels, causal=causal, future=future if ahead else None)
    found = emit_kernels(translator, region, inner, translator.findings.tolerance)
    builder = translator.builder
    u = builder.concat([builder.reshape(f.value, (prod(f.features),)) for f in region.flows], -1)
    assert isinstance(u, Value)
    total: Operand = builder.reshape(found.value, (prod(found.features),))
    if past:
        total = builder.binary("add", total, _over_the_end(translator, kernels, causal[:, :, 1 : past + 1], u))
    if ahead:
        later = _over_the_end(translator, kernels, future[:, :, :ahead], builder.reverse(u))
        total = builder.binary("add", total, builder.reverse(later))
    value = builder.reshape(total, found.features)
    assert isinstance(value, Value)
    return replace(found, value=value)


def _reach(taps: Array) -> tuple[int, int]:
    """How far circular taps reach into the past and into the future: around the widest stretch of zeros."""
    length = taps.shape[2]
    used = np.flatnonzero(np.abs(taps).max(axis=(0, 1)) > 0)
    ends = np.append(used[1:], used[0] + length)
    widest = int(np.argmax(ends - used))
    past, ahead = int(used[widest]), length - int(ends[widest])
    return (past, max(ahead, 0)) if past <= length // 2 else (0, length - int(used[0]))


def _over_the_end(translator: Translator, kernels: Kernels, taps: Array, u: Value) -> Value:
    """What the last steps of u give to the first ones, by the taps of the lags 1, 2 ..."""
    builder = translator.builder
    outputs, width, reach = taps.shape
    weights = np.zeros((reach, builder.features(u)[0], outputs))
    for j in range(width):
        weights[:, kernels.inputs[:, j], np.arange(outputs)] += taps[:, j].T
    last = [builder.add("pool", [builder.add("delay", [u], steps=d) if d else u], kind="last") for d in range(reach)]
    number, total = builder.steps(u), None
    for step in range(reach):
        given: Operand = builder.linear(last[0], weights[step])
        for distance in range(1, reach - step):
            given = builder.binary("add", given, builder.linear(last[distance], weights[step + distance]))
        there = builder.binary("mul", builder.binary("equal", number, np.asarray(float(step))), given)
        total = there if total is None else builder.binary("add", total, there)
    assert isinstance(total, Value)
    return total
