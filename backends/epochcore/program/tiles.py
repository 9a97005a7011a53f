"""Tiles of weights: what one preload names and one pass after the other takes, all of them one instruction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from backends.epochcore.program.accesses import Some
from isa import Instruction
from isa.frozen import FrozenMap
from ssmc.ir.op import Array


def tiles(held: Instruction | None) -> int:
    """How many a preload names; 1 where it is none."""
    return 1 if held is None or held.mnemonic != "preload" else int(held["tiles"])


def parameters_of(held: Some) -> list[Any]:
    """First words of all that a preload names in the parameter memory."""
    named = {"src": held["mode"] != "sel", "scale": held["scaled"], "bias": held["biased"]}
    return [held[name] for name, used in named.items() if used]


def streamed(held: Instruction | None) -> list[int]:
    """First words of what its pass reads while it runs."""
    return [] if held is None else passing(held, several=tiles(held) > 1)


def passing(held: Some, *, several: bool) -> list[Any]:
    """The same of a preload of one tile or several, or of many that are alike."""
    if several:
        return parameters_of(held)
    return [held["src"]] if held["mode"] == "mac.os" else []


def own(values: Array, count: int, tile: int) -> Array:
    """What of a constant for `count` tiles is that of one."""
    size = values.size // count
    return values.ravel()[tile * size : (tile + 1) * size]


def with_words(ins: Instruction, tile: int) -> Instruction:
    """A `mac` with the words of one of its tiles."""
    places = {name: int(ins[name]) + tile * int(ins[f"{name}_next"]) for name in ("src", "dst")}
    return replace(ins, operands=FrozenMap({**ins.operands, **places}))
