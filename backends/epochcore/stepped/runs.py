"""Instructions under way in the streaming machine: what each waits for, and how long its blocks take.

Whom an instruction waits for is told by `conflicts` and, in the array, by the order of preloads, passes and stores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backends.epochcore.arch import Arch
from backends.epochcore.program.conflicts import Conflicts
from backends.epochcore.program.dispatch import Op
from backends.epochcore.program.passes import PASSES
from backends.epochcore.stepped.drain import Drain
from backends.epochcore.stepped.engines import in_blocks, shares_of_pass
from backends.epochcore.stepped.instructions import IN_LANES
from backends.epochcore.stepped.lanes import Block, Unit
from backends.epochcore.stepped.machine import directions, unit_of
from backends.epochcore.stepped.passes import Chip, Pass
from backends.epochcore.stepped.shifts import Preload, Product, StateLoad
from backends.epochcore.stepped.transfers import TRANSFERS, Effect, shares_of, way_of
from backends.epochcore.stepped.turns import Turns
from isa import Program

Job = Pass | Product | Preload | StateLoad | Drain | Turns


@dataclass
class Run:
    """An instruction under way: which block its engine works on, what is left of it, and when blocks were done.

    The array and the DRAM channel take so many cycles over `unit` for a block (`shares`), the lanes of the vector unit
    whatever it takes them.
    """

    op: Op
    shares: list[int]
    unit: int
    backward: bool
    lanes: Unit | None = None
    channel: bool = False  # whether it goes over the DRAM channel,
    latency: int = 0  # and cycles from there
    whole: list[Run] = field(default_factory=list)
    results: list[Run] = field(default_factory=list)
    reads: list[Run] = field(default_factory=list)
    job: Job | None = None
    block: int = 0
    left: int | None = None  # None: the block has not begun
    taken: list[int] = field(default_factory=list)  # the engine is through with a block
    there: dict[int, int] = field(default_factory=dict)  # its words can be read
    begun: int | None = None
    effect: Effect | None = None  # of the present block
    shifted: list[Run] = field(default_factory=list)  # of the array's: what must be complete,
    leader: Run | None = None  # and the pass that must lead
    passing: Block | None = None  # the present block in the lanes
    resume: int = 0  # when they may take the next one

    @property
    def blocks(self) -> int:
        return len(self.shares)

    def complete(self, now: int) -> bool:
        """Whether all of its result is there."""
        return len(self.there) == self.blocks and max(self.there.values()) <= now

    def ready(self, now: int) -> bool:
        """Whether others let the next block begin."""
        if self.block == 0 and not all(other.complete(now) for other in self.whole):
            return False
        return all(self._met(r, now) for r in self.results) and all(self._read(r, now) for r in self.reads)

    def _together(self, other: Run) -> bool:
        return other.op.steps == self.op.steps and other.blocks == self.blocks

    def _met(self, other: Run, now: int) -> bool:
        if not self._together(other):
            return other.complete(now)
        return other.there.get(self.block, now + 1) <= now

    def _read(self, other: Run, now: int) -> bool:
        last = self.block if self._together(other) else other.blocks - 1
        return last < len(other.taken) and other.taken[last] <= now


def runs_of(
    program: Program,
    chip: Chip,
    known: Conflicts,
    ops: Sequence[Op],
    total: Mapping[str, int],
) -> list[Run]:
    """Every op as a run, in order; what it waits for are earlier ones. `total` are the steps by register."""
    latest: dict[int, Run] = {}
    backward, arch, memory = directions(program), chip.arch, chip.memory
    order = []
    for op in ops:
        back = backward.get(op.index, False)
        several = bool(known.loop[op.index]) and in_blocks(op, arch)
        size, name = arch.array.handover_steps, op.ins.mnemonic
        sizes = [min(size, op.steps - first) for first in range(0, op.steps, size)] if several else [1]
        run = Run(op, sizes, op.steps if several else 1, back)
        if name in IN_LANES:
            run.lanes = unit_of(op, chip, program, total, back)
            run.shares = sizes if op.steps or name == "carry" else [0]
        elif name in TRANSFERS:
            far, near = way_of(op, memory, program, arch).cycles(arch)
            run.channel, run.latency = far > 0, arch.dram.latency_cycles if far else 0
            run.shares = [far + near]
            if several:
                run.shares, run.unit = shares_of(op, size, back, memory, program, arch)
        else:
            run.shares, run.unit = shares_of_pass(op, sizes if several else [], chip), 1
        met = known.whole(op.index), known.results[op.index], known.reads[op.index]
        for found, others in zip((run.whole, run.results, run.reads), met, strict=True):
            found += [latest[j] for j in others if j in latest]
        latest[op.index] = run
        order.append(run)
    _follow(order, arch)
    return order


def _follow(order: Sequence[Run], arch: Arch) -> None:
    """What instructions of the array wait for there."""
    passes, stores, inwards = list[Run](), list[Run](), dict[str, Run]()
    for run in order:
        match run.op.ins.mnemonic:
            case "preload" | "state.load" as name:
                if arch.array.shadow:
                    run.leader = passes[-1] if passes else None
                else:
                    run.shifted = [*passes[-1:], *stores[-1:]]
                inwards[name] = run
            case "state.store":
                run.shifted = [*passes[-1:], *stores[-1:]]
                stores.append(run)
            case name if name in PASSES:
                # a pass of no steps takes over all at once
                run.shifted = [*inwards.values(), *stores[:-1][-1:], *(() if run.op.steps else passes[-1:])]
                passes.append(run)
