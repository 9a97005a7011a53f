"""What it costs to write arrays again between sweeps, for a whole sequence and for an answer to every event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.cim.arch import Architecture
from backends.cim.clock.costs import cost
from backends.cim.program.decode import cores, decode
from isa import Program


def reloading(program: Program, arch: Architecture) -> Mapping[str, Any]:
    """Notes on a program that writes its arrays while it runs; none where it does not.

    Such a program answers once for the whole sequence, after as many sweeps as it has loads. To answer every event
    before the next one comes, all loads would be written for every event: what `event_reprogramming_*` tells.
    """
    joules, seconds, sweeps = 0.0, 0.0, 0
    for section in cores(program).values():
        spent = 0
        items = decode(section)
        for item in items:
            if item.code.mnemonic == "program":
                one = cost(item, arch, program.data)
                joules += one.picojoules * 1e-12
                spent += one.cycles
        seconds = max(seconds, spent / arch.vector.clock_hertz)
        sweeps = max(sweeps, sum(item.code.mnemonic == "loop" for item in items))
    if not joules:
        return {}
    return {
        "sweeps_per_sequence": sweeps,
        "reprogramming_joules_per_sequence": joules,
        "reprogramming_seconds_per_sequence": seconds,
        "event_reprogramming_joules": joules,
        "event_reprogramming_seconds": seconds,
        "answers": "once a sequence: each sweep needs the whole one; answering every event would cost the event_"
        "reprogramming figures for each of them",
    }
