"""Errors of a program that runs, or is timed."""

from __future__ import annotations

from isa import Program
from ssmc.diagnostics import UserError


def trap(program: Program, index: int, what: str, why: str = "", hint: str = "") -> UserError:
    """An error of the running program: instruction, layer, ONNX node."""
    ins = program.sections[0].code[index]
    loc = program.source(ins)
    where = f"instruction {index} ({ins.mnemonic})"
    if loc is not None:
        onnx = f", ONNX node {', '.join(loc.onnx_nodes[:3])}" if loc.onnx_nodes else ""
        where += f", layer '{loc.layer}' ({loc.op}){onnx}"
    return UserError(what, where=where, why=why, hint=hint)
