"""The route of a pass: when it takes its steps, how they enter the array and how long they stay in an element."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from backends.epochcore.arch import Arch
from backends.epochcore.program.dispatch import Op
from backends.epochcore.program.stretches import copies, longest
from backends.epochcore.stepped.places import places_of
from backends.epochcore.stepped.ports import reserved

Entry = tuple[int, str, int, int]  # a cycle, the register, row and column of the element


@dataclass(frozen=True)
class Route:
    """A step every `interval` cycles, whose words come in `gather` cycles and leave in `scatter`. Operands stay `hop`
    cycles in a cell of `gang` x `gang` elements. A step is `turns` ones where samples follow each other."""

    count: int
    turns: int
    gather: int
    scatter: int
    interval: int
    hop: int = 1
    gang: int = 1
    deep: int = 1
    wide: int = 1
    groups: int = 1
    high: int = 1
    lanes: int = 1

    @property
    def busy(self) -> int:
        """Cycles of the engine."""
        return self.count * self.interval


def halves_of(op: Op) -> int:
    """Halves of what a pass of states takes in and gives."""
    assert op.held is not None
    return 2 if op.held["complex"] and op.ins.mnemonic not in ("mac", "fri", "tri") else 1


def delay(column: int, arch: Arch) -> int:
    """Cycles by which a column of states is later than the first: where engines hand over step by step, all goes along
    the diagonal."""
    return column if arch.array.handover_steps else 0


def route_of(op: Op, arch: Arch) -> Route:
    """Of a pass of weights or states in place."""
    held, array, weights = op.held, arch.array, op.ins.mnemonic == "mac"
    assert held is not None
    rows, cols, halves = int(held["rows"]), int(held["cols"]), halves_of(op)
    # to weights the samples of a step are steps, in the array's elements each has its own states
    turns = op.samples if weights else 1
    number = copies(held) * op.samples // turns
    words = rows if weights else cols * halves * (2 if op.ins.mnemonic == "sel" else 1)
    gather = reserved(number, words, array.port_words_in, arch)
    scatter = reserved(number, cols * halves, array.port_words_out, arch)
    count = longest(held, op.steps) * turns
    if weights:
        return Route(count, turns, gather, scatter, max(gather, scatter))
    at = places_of(held, arch, op.samples)
    hop = at.stack * at.gang
    # a state must be there when its next step begins
    interval = max(hop, array.mac_depth + at.gang - 1, gather, scatter)
    lanes = at.stack // at.deep * at.groups
    return Route(count, turns, gather, scatter, interval, hop, at.gang, at.deep, at.cols, at.groups, at.high, lanes)


def entries(weights: bool, gang: int, rows: int, cols: int, arch: Arch) -> Iterator[Entry]:
    """Where a step enters `rows` x `cols` elements, in cycles after its words are there: operands of weights from the
    west, row by row; drives of states from the north, in a column of cells each; sums as much later as a product."""
    depth = arch.array.mac_depth
    if weights:
        yield from ((r, "west", r, 0) for r in range(rows))
        yield from ((c + depth - 1, "sums", 0, c) for c in range(cols))
        return
    for c in range(0, cols - gang + 1, gang):
        yield delay(c, arch), "north", 0, c
        yield delay(c, arch) + depth + gang - 2, "sums", 0, c
