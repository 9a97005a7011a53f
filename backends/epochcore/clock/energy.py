"""Energy: events counted by `cost`, priced by the architecture file, plus static power over the time.

The clock of the array is gated by phase: computing, filling the shadow registers, or both; asleep it takes nothing. An
array without such gates has its clock's power in `static_watts`.

What an element multiplies in decides what that takes: in fixed point as the architecture's widths say, in floating
point by the format. An ideal program is counted in float32, which is what it stands for.
"""

from __future__ import annotations

from collections.abc import Mapping

from backends.epochcore.arch import Arch


def mac_prices(arch: Arch, *, ideal: bool) -> tuple[float, float]:
    """Joules of a multiply-accumulate of weight and activation, and of one of parameter and state."""
    e, numbers = arch.energy, arch.numbers
    if ideal:
        return e.float32_mac_joules, e.float32_mac_joules
    if numbers.fixed:
        return e.mac_joules, e.state_mac_joules
    by_format = {"float32": e.float32_mac_joules}
    return by_format.get(numbers.format, e.float16_mac_joules), by_format.get(numbers.of_states, e.float16_mac_joules)


def breakdown(events: Mapping[str, int], seconds: float, arch: Arch, *, ideal: bool) -> dict[str, float]:
    """Joules by cause: multiply-accumulates, state updates, vector unit, memories, further words of columns,
    DRAM, gated clocks, static."""
    e = arch.energy
    macs, state_macs = mac_prices(arch, ideal=ideal)
    prices = {
        "macs": macs,
        "state_macs": state_macs,
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


def joules(events: Mapping[str, int], seconds: float, arch: Arch, *, ideal: bool) -> float:
    """The sum of `breakdown`."""
    return sum(breakdown(events, seconds, arch, ideal=ideal).values())
