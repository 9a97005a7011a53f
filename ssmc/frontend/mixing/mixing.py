"""What a region that mixes time is: the explanations that are tried, in order."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import prod

from ssmc.frontend.graph.flow import Flow, Unsupported
from ssmc.frontend.graph.joint import joined
from ssmc.frontend.mixing.circular import emit_circular, is_circular
from ssmc.frontend.mixing.complex_varying import explain_complex
from ssmc.frontend.mixing.filters import emit_kernels
from ssmc.frontend.mixing.first_step import explain_start
from ssmc.frontend.mixing.last_step import explain_last
from ssmc.frontend.mixing.lti import probe
from ssmc.frontend.mixing.polynomial import explain_polynomial
from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.mixing.remembered import Remembered
from ssmc.frontend.mixing.varying import explain_varying
from ssmc.frontend.mixing.viewpoints import with_result
from ssmc.frontend.reasons import Kind
from ssmc.frontend.translator import Translator


def explain_region(translator: Translator, region: Region) -> Flow:
    """The target of a region as a flow. Raises Unsupported with the reason where nothing explains it."""
    runs = Remembered(region.run)
    try:
        return _with_axes_apart(translator, replace(region, run=runs))
    finally:
        runs.forget()


def _with_axes_apart(translator: Translator, region: Region) -> Flow:
    """The target as a flow, first with an axis apart that was made of several."""
    for at in _places(region):
        assert region.merged is not None
        shape = (*region.shape[:at], *region.merged[1], *region.shape[at + 1 :])
        try:
            return joined(_explained(translator, with_result(region, shape)), at, region.merged)
        except Unsupported:
            continue
    return _explained(translator, region)


def _places(region: Region) -> list[int]:
    """Axes of the target that may be the merged one of the entries."""
    merged = region.merged
    return [] if merged is None else [k for k, size in enumerate(region.shape) if size == prod(merged[1])]


def _explained(translator: Translator, region: Region) -> Flow:
    try:
        kernels = probe(region)
    except Unsupported as reason:
        if any("t" not in flow.axes for flow in region.flows):
            raise
        # what is linear in all its entries together has no products, and so no decays that are computed
        varying = None if Kind.LINEAR in reason.reason.kind else explain_varying(translator, region)
        found = (
            varying
            or explain_complex(translator, region)
            or explain_polynomial(translator, region)
            or explain_start(translator, region)
            or explain_last(translator, region, partial(_explained, translator))
        )
        if found is None:
            raise reason from None
        return found
    if translator.dynamic and is_circular(kernels):
        return emit_circular(translator, region, kernels)
    return emit_kernels(translator, region, kernels, translator.findings.tolerance)
