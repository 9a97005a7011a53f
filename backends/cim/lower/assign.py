"""From virtual to real: loops around the stages, addresses for the registers, sections."""

from __future__ import annotations

import sys
from bisect import bisect
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import groupby
from typing import Any

from backends.cim.arch import Architecture
from backends.cim.lower.code import CoreCode, Slot, Virtual
from backends.cim.lower.contexts import Context
from isa import Section, SectionBuilder
from isa.cim import CIM
from isa.cim_fields import LINES
from ssmc.diagnostics import Misfit


@dataclass(frozen=True)
class Span:
    """A loop or the body of an `every`: items, each a Virtual or a Span."""

    mnemonic: str
    context: Context
    items: tuple[Any, ...]


def sections(code: CoreCode, arch: Architecture) -> tuple[list[Section], list[dict[str, Any]]]:
    """The sections of a core, and where its layers' values can be read. Raises Misfit."""
    tree = [item for stage in sorted(code.stages) for item in _nest(stage, code.stages[stage])]
    addresses = _allocate(code, tree, arch)
    builder = SectionBuilder(CIM, f"core{code.core}")
    positions: dict[int, int] = {}
    _write(builder, tree, addresses, positions)
    builder.loc = None
    builder.emit("halt")
    made = [builder.build()]
    if code.setup:
        setup = SectionBuilder(CIM, f"core{code.core}.setup")
        _write(setup, list(code.setup), addresses, {})
        setup.loc = None
        setup.emit("halt")
        made.append(setup.build())
    taps = []
    for tap in code.taps:
        taps.append(
            {
                "layer": tap.layer,
                "core": code.core,
                "after": positions[id(tap.after)],
                "address": addresses[tap.slot.register] + tap.slot.offset,
                "shape": list(tap.shape),
                "stream": tap.context.streams,
            }
        )
    return made, taps


def _nest(stage: int, items: list[Virtual]) -> list[Any]:
    """A stage's items; those of a sweep inside a loop, with guards around what runs at fewer steps."""
    if stage % 2 == 0:
        return list(items)
    contexts = {item.context for item in items}
    if len(contexts) == 1:
        return [Span("loop", contexts.pop(), tuple(items))]
    base = Context(stage)
    body: list[Any] = []
    for context, group in groupby(items, key=lambda item: item.context):
        run = tuple(group)
        body += run if context == base else (Span("every", context, run),)
    return [Span("loop", base, tuple(body))]


def _allocate(code: CoreCode, tree: list[Any], arch: Architecture) -> dict[int, int]:
    """First address of each register in use: those alive at once lie apart, lines among lines. Raises Misfit."""
    lives: dict[int, list[int]] = {}  # register: [first, last] place of use
    loops: list[tuple[int, int]] = []
    place = 0

    def visit(items: Any) -> None:
        nonlocal place
        for item in items:
            if isinstance(item, Span):
                start = place
                visit(item.items)
                if item.mnemonic == "loop":
                    loops.append((start, place))
                continue
            for value in item.operands.values():
                if isinstance(value, Slot):
                    life = lives.setdefault(value.register, [place, place])
                    life[1] = place
            place += 1

    visit(tree)
    for start, end in loops:  # what a loop reads from outside is needed until its last round
        for life in lives.values():
            if life[0] < start <= life[1] < end:
                life[1] = end - 1
    ordered = sorted(lives.items(), key=lambda item: (item[1][0], item[0]))
    addresses, peak = _apart([item for item in ordered if item[0] not in code.lines], code)
    lines, last_line = _apart([item for item in ordered if item[0] in code.lines], code)
    if peak > arch.vector.words:
        raise Misfit(
            f"vector registers of core {code.core}",
            peak,
            arch.vector.words,
            unit="words",
            levers="spread the layers over more cores, or raise vector.words in the architecture",
        )
    if last_line > arch.volatile.per_core:
        raise Misfit(
            f"analog lines of core {code.core}",
            last_line,
            arch.volatile.per_core,
            levers="run 'couple{sides=off}', or raise volatile.per_core in the architecture",
        )
    return addresses | {register: LINES + at for register, at in lines.items()}


def _apart(lives: list[tuple[int, list[int]]], code: CoreCode) -> tuple[dict[int, int], int]:
    """Addresses from 0 on for registers with their first and last places, in the order of the first; and how many
    words that takes."""
    addresses: dict[int, int] = {}
    room = _Room()
    alive: list[tuple[int, int, int]] = []  # last place, address, words; the first to end in front
    peak = 0
    for register, (first, last) in lives:
        while alive and alive[0][0] < first:
            room.free(*heappop(alive)[1:])
        words = code.sizes[register]
        addresses[register] = at = room.take(words)
        heappush(alive, (last, at, words))
        peak = max(peak, at + words)
    return addresses, peak


class _Room:
    """Addresses from 0 on: what is taken gets the lowest ones that are free."""

    def __init__(self) -> None:
        self._gaps = [(0, sys.maxsize)]

    def take(self, words: int) -> int:
        place, (low, high) = next((k, gap) for k, gap in enumerate(self._gaps) if gap[1] - gap[0] >= words)
        self._gaps[place : place + 1] = [(low + words, high)] if low + words < high else []
        return low

    def free(self, low: int, words: int) -> None:
        high, place = low + words, bisect(self._gaps, (low,))
        before, after = place, place
        if place and self._gaps[place - 1][1] == low:
            before, low = place - 1, self._gaps[place - 1][0]
        if place < len(self._gaps) and self._gaps[place][0] == high:
            after, high = place + 1, self._gaps[place][1]
        self._gaps[before:after] = [(low, high)] if low < high else []


def _write(builder: SectionBuilder, items: list[Any], addresses: dict[int, int], positions: dict[int, int]) -> None:
    for item in items:
        if isinstance(item, Span):
            end, builder.loc = f"end{len(builder)}", None
            steps: dict[str, Any] = {"stride": item.context.stride, "offset": item.context.offset, "end": end}
            builder.emit(item.mnemonic, **steps, **({"count": "rT"} if item.mnemonic == "loop" else {}))
            _write(builder, list(item.items), addresses, positions)
            builder.label(end)
            continue
        builder.loc = item.loc
        positions[id(item)] = len(builder)
        real = {
            name: addresses[value.register] + value.offset if isinstance(value, Slot) else value
            for name, value in item.operands.items()
        }
        builder.emit(item.mnemonic, **real)
