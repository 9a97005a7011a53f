"""Analog lines: wires between columns, state nodes and rows of one core, on which no number is ever stored.

An event's line is driven by columns (`mvm` onto lines), which charge nodes, or by nodes (`charge` onto lines), which
drive rows. Reconstructed: that the published chip's columns charge its state nodes, and that these drive rows, is
known; how is not. Each line has a sample-and-hold, as ISAAC's columns do (ISCA 2016), so that arrays that share lines
may be driven one after the other; currents that are driven onto the same line add up (Kirchhoff), which joins the
partial sums of split rows as long as their arrays belong to the core. What a digital scale does elsewhere the length
of an array's pulse does here (ours): drift compensation, and the one unit of all columns. What an analog path adds is a
spread of gains (`devices.line_gain`); rows that states would drive beyond their ends are driven fully, and counted.
"""

from __future__ import annotations

from typing import Literal

from backends.cim.arch import Architecture
from backends.cim.program.access import on_lines, vector_ranges
from backends.cim.program.decode import Item
from backends.cim.simulate.core import Trap
from isa.cim_fields import LINES

COLUMNS, NODES = "columns", "state nodes"


def check_lines(items: tuple[Item, ...], arch: Architecture) -> None:
    """Raises Trap where a line would not carry, in every event, what the instruction that takes it expects."""
    _body(items, arch, {})


def _body(items: tuple[Item, ...], arch: Architecture, driven: dict[int, str]) -> None:
    """`driven` says what drives each line so far in this event."""
    for item in items:
        try:
            _one(item, arch, driven)
        except Trap as trap:
            trap.item = item
            raise
        if item.body:  # a loop's events are its own; what an `every` drives, it drives at its own steps only
            _body(item.body, arch, dict(driven) if item.code.mnemonic == "every" else {})


def _one(item: Item, arch: Architecture, driven: dict[int, str]) -> None:
    name = item.code.mnemonic
    if name not in ("mvm", "charge"):
        return
    source, target = item.integer("src"), item.integer("dst")
    if not (on_lines(source) or on_lines(target)):
        return
    if name == "mvm" and item.integer("vectors") > 1:
        raise Trap("lines carry one vector an event", f"the product has {item.integer('vectors')}")
    if name == "mvm" and on_lines(source) and on_lines(target):
        raise Trap(
            "a crossbar's rows and columns are both on lines",
            "columns charge state nodes, and state nodes drive rows: nothing is between this product's two sides",
            "let one side go through converters",
        )
    if name == "mvm":
        reads, writes = (ranges[0] for ranges in vector_ranges(item))
    else:
        reads, writes = (source, item.integer("words")), (target, item.integer("words"))
    if on_lines(source):
        _taken(reads, driven, COLUMNS if name == "charge" else NODES, arch)
    if on_lines(target):
        if name == "mvm" and item.flag("accumulate"):
            _taken(writes, driven, COLUMNS, arch)
        _allowed(writes, "in" if name == "mvm" else "out", arch)
        driven |= dict.fromkeys(range(writes[0], sum(writes)), COLUMNS if name == "mvm" else NODES)


def _taken(lines: tuple[int, int], driven: dict[int, str], wanted: str, arch: Architecture) -> None:
    _allowed(lines, "in" if wanted == COLUMNS else "out", arch)
    for line in range(lines[0], sum(lines)):
        if (found := driven.get(line)) != wanted:
            told = f"it is driven by {found}" if found else "nothing has driven it since the event began"
            raise Trap(
                f"line a[{line - LINES}] does not carry what {wanted} give",
                told,
                "a line keeps no value from event to event: drive it first, in the same loop body",
            )


def _allowed(lines: tuple[int, int], side: Literal["in", "out"], arch: Architecture) -> None:
    if not arch.crossbar.couples(side):
        box = arch.crossbar
        raise Trap(
            "this chip does not couple " + ("columns to state nodes" if side == "in" else "state nodes to rows"),
            f"crossbar.coupling is '{box.coupling}', its weights {box.slices} x {box.encoding}, inputs {box.input}",
            f"coupling '{side}' or 'both' takes weights as 1 x pair and analog inputs",
        )
    if sum(lines) > LINES + arch.volatile.per_core:
        last = sum(lines) - LINES - 1
        raise Trap(f"line a[{last}] is outside of the core's {arch.volatile.per_core}: there is one for each node")
