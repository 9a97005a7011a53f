"""Time that the program itself takes, in which volatile states decay.

An event is charged into its nodes some time after it came, always the same, which shifts all charges alike. What is
left is (1) waiting: a core takes the next event when it is done with the one before, so that events which come faster
are charged later than they came, and (2) the time from a charge to its read. Both are those of the schedule (`timing`).

Waiting obeys Lindley's recursion (D. V. Lindley, The theory of queues with a single server, 1952): with the time S from
one event to the next that the busiest core needs, an event that comes dt after the one before waits

    W_k = max(0, W_{k-1} + S - dt_k),  W_0 = 0,

and dt_k + W_k - W_{k-1} passes between the charges.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from backends.cim.arch import Architecture
from backends.cim.clock.timing import Busy, cycles_of, intervals, schedule
from backends.cim.program.decode import Item, cores, decode, walk
from isa import Program

Place = tuple[int, int]  # core, index of an instruction


@dataclass(frozen=True)
class Delays:
    """In the model's units of time: `busy` is S of every charge, `held` the time from a charge to its read, and from
    the last charge of a sequence to a later read of the nodes."""

    busy: Mapping[Place, float]
    held: Mapping[Place, float]


def delays(program: Program, arch: Architecture, scale: float) -> Delays:
    """What the schedule makes states wait, times `scale`."""
    second = scale / arch.vector.clock_hertz
    trees = {number: decode(section) for number, section in cores(program).items()}
    each = intervals(trees, cycles_of(arch, program.data))
    busy: dict[Place, float] = {}

    def visit(core: int, items: tuple[Item, ...], interval: float, stride: int) -> None:
        for item in items:
            if item.code.mnemonic == "charge":
                # An untimed charge counts its own rounds, and a time of one between them.
                timed = item.flag("timed")
                busy[core, item.index] = second / arch.time.unit(timed=timed) * interval * (stride if timed else 1)
            if item.body:
                own = item.integer("stride")
                visit(core, item.body, each.get((core, item.index), interval), own)

    for core, tree in trees.items():
        visit(core, tree, 0.0, 1)
    held = _held(trees, schedule(program, arch, 1).first)
    return Delays(busy, {place: second / arch.time.unit(timed=timed) * n for place, (n, timed) in held.items()})


def _held(trees: Mapping[int, tuple[Item, ...]], first: Iterable[Busy]) -> dict[Place, tuple[int, bool]]:
    """Cycles from a pulse to its read, and from the pulse to a later `read`, on the way of a first event; and whether
    the pulse is timed."""
    items = {(core, item.index): item for core, tree in trees.items() for item in walk(tree)}
    held = dict[Place, tuple[int, bool]]()
    pulses = defaultdict[int, list[tuple[int, int, int, bool]]](list)  # by core: nodes start..stop, cycle, timed
    for busy in first:
        if busy.mnemonic not in ("charge", "read"):
            continue
        item = items[busy.core, busy.index]
        start, stop = item.integer("node"), item.integer("node") + item.integer("words")
        if busy.mnemonic == "charge":
            held[busy.core, busy.index] = busy.cycles, item.flag("timed")
            pulses[busy.core].append((start, stop, busy.start, item.flag("timed")))
        elif item.text("bank") == "volatile":
            found = [(at, timed) for a, b, at, timed in pulses[busy.core] if a < stop and start < b]
            if found:
                at, timed = max(found)
                held[busy.core, busy.index] = busy.start + busy.cycles - at, timed
    return held
