"""Passes: graph to graph, one file each, checked after each."""

from ssmc.passes.base import Context, LayerLoss, LossReport, Note, Pass
from ssmc.passes.machine import Machine, StateBank
from ssmc.passes.manager import Observer, PassManager, Step, print_after
from ssmc.passes.pipeline import parse_pipeline, show_pass, show_pipeline
from ssmc.passes.registry import PassInfo, available, register

__all__ = [
    "Context",
    "LayerLoss",
    "LossReport",
    "Machine",
    "Note",
    "Observer",
    "Pass",
    "PassInfo",
    "PassManager",
    "StateBank",
    "Step",
    "available",
    "parse_pipeline",
    "print_after",
    "register",
    "show_pass",
    "show_pipeline",
]
