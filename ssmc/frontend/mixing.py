"""What a region that mixes time is: the explanations that are tried, in order."""

from __future__ import annotations

from ssmc.frontend.filters import emit_kernels
from ssmc.frontend.first_step import explain_start
from ssmc.frontend.flow import Flow, Unsupported
from ssmc.frontend.lti import probe
from ssmc.frontend.regions import Region
from ssmc.frontend.translator import Translator
from ssmc.frontend.varying import explain_varying


def explain_region(translator: Translator, region: Region) -> Flow:
    """The target of a region as a flow. Raises Unsupported with the reason where nothing explains it."""
    try:
        kernels = probe(region)
    except Unsupported as reason:
        if any("t" not in flow.axes for flow in region.flows):
            raise
        found = explain_varying(translator, region) or explain_start(translator, region)
        if found is None:
            raise reason from None
        return found
    return emit_kernels(translator, region, kernels, translator.findings.tolerance)
