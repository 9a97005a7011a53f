"""Energy: events counted by `cost`, priced by the architecture file, plus static power over the time.

The clock of the array is gated by phase: computing, filling the shadow registers, or both; asleep it takes nothing. An
array without such gates has its clock's power in `static_watts`.
"""

from __future__ import annotations

from collections.abc import Mapping

from backends.epochcore.arch import Arch


def breakdown(events: Mapping[str, int], seconds: float, arch: Arch) -> dict[str, float]:
    """Joules by cause: multiply-accumulates, state updates, vector unit, memories, further words of columns,
    DRAM, gated clocks, static."""
    e = arch.energy
    prices = {
        "macs": e.mac_joules,
        "state_macs": e.state_mac_joules,
        "vector_words": e.vector_joules,
        "scratchpad_words": e.scratchpad_joules,
        "parameter_words": e.parameter_joules,
        "dram_bytes": e.dram_joules_per_byte,
        "compute_cycles": e.compute_watts / arch.clock_hz,
        "preload_cycles": e.preload_watts / arch.clock_hz,
    }
    if arch.array.column_words > 1:
        prices["column_words"] = e.column_word_joules
    return {**{name: events.get(name, 0) * price for name, price in prices.items()}, "static": e.static_watts * seconds}


def joules(events: Mapping[str, int], seconds: float, arch: Arch) -> float:
    """The sum of `breakdown`."""
    return sum(breakdown(events, seconds, arch).values())
