"""Programs written by hand, in assembly."""

from __future__ import annotations

from typing import Any

import numpy as np

from backends.cim import BACKEND
from backends.cim.arch import Architecture
from isa import Program, load_set
from isa.assembler import assemble
from ssmc.target import RunResult, RunSettings

from .chips import small

VERSION = load_set("cim").version


def program(text: str, arch: Architecture | None = None, inputs: str = "", outputs: str = "", **data: Any) -> Program:
    """A program of these sections; `inputs` and `outputs` are ports `name:kind:words:channel`."""
    lines = [f".isa cim {VERSION}", ".arch", *(f"| {line}" for line in BACKEND.arch_text(arch or small()).splitlines())]
    for word, ports in ((".input", inputs), (".output", outputs)):
        for port in ports.split():
            name, kind, words, channel = port.split(":")
            lines.append(f'{word} {name} {kind} [{words}] float64 binding={{"channel": {channel}}}')
    arrays = {name: np.asarray(value) for name, value in data.items()}
    lines += [f".data @{name} {array.dtype} {list(array.shape)}" for name, array in arrays.items()]
    return assemble("\n".join([*lines, text]), "test.s", data=arrays)


def run(code: Program, steps: int = 4, batch: int = 2, **given: Any) -> RunResult:
    """Run with random numbers for inputs that are not given; settings by name."""
    rng = np.random.default_rng(0)
    settings = {
        name: given.pop(name) for name in ("seed", "noise", "block", "taps", "trace", "strict") if name in given
    }
    for port in code.inputs:
        outer = (batch, steps) if port.kind == "stream" else (batch,)
        given.setdefault(port.name, rng.normal(size=(*outer, *port.shape)))
    return BACKEND.simulate(code, given, RunSettings(**settings))
