"""Registers that count steps at lower rates, as `rate` instructions set them; `rates` are these by their register."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isa import Instruction, Program

Rates = Mapping[str, Instruction]
Whole = Any  # number, or one for each of many


def lower_rate(rate: Instruction, steps: Whole) -> Whole:
    """Steps at the lower rate after `steps` at the higher one (see the instruction `rate`)."""
    return complete(steps, int(rate["stride"]), int(rate["offset"]), windows=bool(rate["windows"]))


def complete(steps: Whole, stride: int, offset: int, *, windows: bool) -> Whole:
    """Steps at a lower rate after `steps`: those taken, from `offset` on, or whole windows."""
    if windows:
        return steps // stride
    begun = -(-(steps - offset) // stride)
    return begun * (begun > 0)  # or 0


def most_rows(register: str, limit: int, rates: Rates) -> int:
    """Rows by `register` of a chunk of `limit` steps at most."""
    if register == "one":
        return 1
    if register not in rates:
        return max(limit, 1)
    rate = rates[register]
    return -(-most_rows(str(rate["src"]), limit, rates) // int(rate["stride"]))


def stride_of(register: str, rates: Rates) -> int:
    """Steps of the model's input rate that become one of `register`."""
    if register not in rates:
        return 1
    return int(rates[register]["stride"]) * stride_of(str(rates[register]["src"]), rates)


def totals(program: Program, steps: int) -> dict[str, int]:
    """Steps of a whole sequence of `steps` steps by register."""
    found = {"one": 1, "n0": steps}
    for ins in program.sections[0].code:
        if ins.mnemonic == "rate":
            found[str(ins["dst"])] = lower_rate(ins, found[str(ins["src"])])
    return found
