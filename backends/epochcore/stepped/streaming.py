"""The engines where they hand over step by step, one cycle after the other.

What an instruction waits for is told by `conflicts`; when that is there shows in the machine itself: a block
has been taken in when the engine has worked through it, and is there when its last word is in the scratchpad. Numbers
are read and written in these cycles, block by block, so that a conflict too few, a pass that follows too closely or
parameters that come too early show as wrong numbers or as an AssertionError.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from backends.epochcore.arch import Arch
from backends.epochcore.program.conflicts import conflicts
from backends.epochcore.program.dispatch import Op, dispatch
from backends.epochcore.program.passes import PASSES
from backends.epochcore.program.rates import totals
from backends.epochcore.program.rounds import rounds_of
from backends.epochcore.stepped.drain import Drain
from backends.epochcore.stepped.engines import UNSHIFTED, engine_of
from backends.epochcore.stepped.grid import Grid
from backends.epochcore.stepped.instructions import IN_ARRAY, IN_LANES, SERIAL
from backends.epochcore.stepped.lanes import Block, Unit
from backends.epochcore.stepped.memory import Memory
from backends.epochcore.stepped.passes import Chip, Pass
from backends.epochcore.stepped.runs import Job, Run, runs_of
from backends.epochcore.stepped.shifts import Preload, Product, StateLoad, shift_of
from backends.epochcore.stepped.traffic import Traffic
from backends.epochcore.stepped.transfers import Effect, effect_of, part_of
from backends.epochcore.stepped.turns import Turns, in_turn
from isa import Program

PATIENCE = 10_000  # cycles without any progress


@dataclass
class Machine:
    """The state of the whole machine between two cycles."""

    chip: Chip
    program: Program
    size: int  # steps of a block
    queues: dict[str, deque[Run]]
    slots: dict[str, Run | None]
    order: deque[Run]  # those that are not complete, and what comes behind the first of them
    kinds: Mapping[int, str]
    working: list[Run] = field(default_factory=list)  # in the array, until nothing of them moves
    writes: dict[int, list[tuple[Run, int, Effect]]] = field(default_factory=dict)
    now: int = 0
    moved: int = 0
    served: tuple[int, int] = (-1, -1)  # a cycle, and the transfer that has the DRAM channel in it

    def cycle(self) -> bool:
        """One cycle; False when all has been done."""
        for run, block, effect in self.writes.pop(self.now, ()):
            effect.write(self.chip.memory)
            run.there[block] = self.now
        self._arrive()
        while self.order and self.order[0].complete(self.now):
            self.order.popleft()
        if not self.order:
            return False
        assert self.now - self.moved < PATIENCE, "nothing moves any more"
        self._fill()
        for slot in sorted(self.slots, key=self._age):
            self._work(slot)
        for run in self.working:
            assert run.job is not None
            run.job.tick(self.now)
        self.chip.grid.tick(self.now)
        for run in self.working:
            if isinstance(run.job, Product | Turns):
                run.job.after(self.now)
        self.chip.memory.settle(self.now)
        self.now += 1
        return True

    def _age(self, slot: str) -> int:
        run = self.slots[slot]
        return -1 if run is None else run.op.number

    def _arrive(self) -> None:
        """Blocks whose last word has come out of the array."""
        for run in list(self.working):
            job = run.job
            assert job is not None
            stream = job.last if isinstance(job, Turns) and job.begun is not None else job
            if isinstance(stream, Pass) and run.op.steps:
                for block in range(run.blocks):
                    last = stream.count - 1 if block == run.blocks - 1 else (block + 1) * self.size * stream.turns - 1
                    if stream.out.get(last, self.now + 1) <= self.now:
                        run.there.setdefault(block, stream.out[last])
            elif job.done is not None and job.done <= self.now:
                run.there.setdefault(0, job.done)
            shifting = isinstance(job, Preload | StateLoad | Turns) and not job.over(self.now)
            if run.complete(self.now) and not shifting:
                self.working.remove(run)

    # -- engines ---------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Free engines take their next instruction; one that takes no time is done with when its turn comes."""
        progress = True
        while progress:
            progress = False
            for slot, present in self.slots.items():
                queue = self.queues[slot.partition(".")[0]]
                if present is None and queue:
                    self.slots[slot] = present = queue.popleft()
                if present is not None and not any(present.shares) and self._may(present):
                    self._skip(present)
                    self.slots[slot], self.moved, progress = None, self.now, True

    def _skip(self, run: Run) -> None:
        """What takes no time has happened; a pass of no steps takes over what waits for it all the same."""
        run.there, run.taken, run.begun, run.block = {0: self.now}, [self.now], self.now, 1
        if run.op.ins.mnemonic in PASSES:
            self._job(run)

    def _work(self, slot: str) -> None:
        """A cycle of one engine, for as many blocks as it is enough for."""
        run = self.slots[slot]
        if run is None:
            return
        if run.lanes is not None:
            self._work_lanes(slot, run, run.lanes)
            return
        if isinstance(run.job, Turns):
            self._take_turns(run, run.job)
        budget = run.unit
        while budget and run.block < run.blocks:
            if run.left is None:
                if not self._may(run):
                    break
                self._begin(run)
            assert run.left is not None
            if run.channel and not self._granted(run):
                return
            used = min(budget, run.left)
            budget, run.left = budget - used, run.left - used
            if run.left == 0:
                self._taken(run)
        if budget < run.unit:
            self.moved = self.now
        if run.block == run.blocks and (not isinstance(run.job, Turns) or len(run.taken) == run.blocks):
            self.slots[slot] = None
            if isinstance(run.job, Pass):
                self.chip.traffic.follow(run.op, self.now + 1, run.job.route.interval)
            elif isinstance(run.job, Product):
                self.chip.traffic.empty()
            elif isinstance(run.job, Turns):
                run.job.leave_traffic()

    def _work_lanes(self, slot: str, run: Run, lanes: Unit) -> None:
        """A cycle of the vector unit, for one block."""
        if run.passing is None and run.block < run.blocks and self.now >= run.resume and self._may(run):
            rows = lanes.rows(run.block * self.size, min((run.block + 1) * self.size, run.op.steps))
            rows = lanes.rows(0, run.op.steps) if run.blocks == 1 else rows
            name = run.op.ins.mnemonic
            sweeps = IN_LANES[name](lanes, rows, run.block == run.blocks - 1)
            run.passing = Block(lanes, sweeps, name in SERIAL)
        if run.passing is not None:
            run.passing.tick(self.now)
            self.moved = self.now
            if run.passing.taken is not None:
                run.taken.append(run.passing.taken)
                run.there[run.block] = run.passing.complete
                run.block, run.resume, run.passing = run.block + 1, run.passing.taken, None
        if run.block == run.blocks and run.resume <= self.now + 1:
            self.slots[slot] = None

    def _take_turns(self, run: Run, turns: Turns) -> None:
        """Weights follow the step that takes over those before; steps of the last pass are done with."""
        done = turns.last.done
        gone = done is not None and done <= self.now
        if self.chip.arch.array.shadow:
            gone = self._led(run, run.op, turns.start_of_last)
        turns.advance(self.now, gone)
        run.begun, self.moved = turns.begun, self.now
        if turns.begun is None:
            return
        for block in range(len(run.taken), run.blocks):
            end = turns.free
            if block < run.blocks - 1 and isinstance(turns.last, Pass):
                end = turns.begun + (block + 1) * self.size * turns.last.turns * turns.last.route.interval
            if end is not None and end <= self.now + 1:
                run.taken.append(self.now + 1)

    def _granted(self, run: Run) -> bool:
        """The DRAM channel serves the oldest transfer that can go on; engines work in this order."""
        if self.served[0] != self.now:
            self.served = self.now, run.op.number
        return self.served[1] == run.op.number

    def _may(self, run: Run) -> bool:
        return run.ready(self.now) and (run.block > 0 or self._array_lets(run))

    def _array_lets(self, run: Run) -> bool:
        if not all(other.complete(self.now) for other in run.shifted):
            return False
        if run.leader is not None:
            return run.leader.begun is not None and self._led(run, run.leader.op, run.leader.begun)
        if run.op.ins.mnemonic not in PASSES or not run.op.steps:
            return True
        return self.chip.traffic.lets(run.op, self.now)

    def _led(self, run: Run, leader: Op, begun: int) -> bool:
        """Whether what is shifted in comes behind the first step of the pass before."""
        if not leader.steps:
            return self.now >= begun
        held = run.op.ins if run.op.ins.mnemonic == "preload" else run.op.held
        assert held is not None
        rows, cols, gang, wide = (1, 1, 1, 1) if held["mode"] in UNSHIFTED else shift_of(run.op, self.chip.arch)
        return self.chip.traffic.lets_in(rows, wide, gang, cols, leader, begun, self.now)

    def _begin(self, run: Run) -> None:
        """A block begins: its operands are read, or pass into the array from now on."""
        op, name = run.op, run.op.ins.mnemonic
        run.left = run.shares[run.block]
        if name in IN_ARRAY:
            if run.job is None:
                run.job = self._job(run)
                run.begun = None if isinstance(run.job, Turns) else self.now
                self.working.append(run)
            stream = run.job.last if isinstance(run.job, Turns) else run.job
            if isinstance(stream, Pass):
                first, turns = run.block * self.size, stream.turns
                steps = stream.count if run.blocks == 1 else min(self.size, op.steps - first) * turns
                stream.send(first * turns, steps, self.now)
            return
        part = op if run.blocks == 1 else part_of(op, run.block, self.size, run.backward)
        effect = effect_of(part, self.program)
        effect.read(self.chip.memory)
        run.effect = effect

    def _job(self, run: Run) -> Job:
        op, name = run.op, run.op.ins.mnemonic
        if name == "preload":
            return Preload(op, self.chip, self.now)
        if name == "state.load":
            assert op.held is not None
            return StateLoad(op, self.chip, self.now, op.held)
        if name == "state.store":
            return Drain(op, self.chip, self.now)
        if in_turn(op):
            return Turns(op, self.chip, self.now, backward=run.backward, parts=True)
        kinds = {self.kinds[number] for number in op.finished}
        takes = "preload" in kinds, "state.load" in kinds
        if name == "mac" and op.held is not None and op.held["mode"] == "mac.os":
            return Product(op, self.chip, self.now, fresh=takes[0])
        return Pass(op, self.chip, self.now, takes=takes, backward=run.backward, parts=True)

    def _taken(self, run: Run) -> None:
        """The engine is through with a block, in the first of several passes not for good."""
        if isinstance(run.job, Turns):
            run.job.free = self.now + 1 if run.block == run.blocks - 1 else None
        else:
            run.taken.append(self.now + 1)
        if run.effect is not None:
            self.writes.setdefault(self.now + 1 + run.latency, []).append((run, run.block, run.effect))
            run.effect = None
        run.block, run.left = run.block + 1, None


def machine_of(program: Program, arch: Arch, memory: Memory, batch: int, steps: int) -> Machine:
    """The machine with all instructions in its queues."""
    grid = Grid(arch.array.rows, arch.array.cols, arch.array.mac_depth, parking=True)
    chip, known = Chip(arch, grid, memory, rounds_of(program), Traffic(arch)), conflicts(program, arch, steps)
    ops = [op for op in dispatch(program, batch, steps, shadow=arch.array.shadow) if op.ins.mnemonic != "sync"]
    order = runs_of(program, chip, known, ops, totals(program, steps))
    queues: dict[str, deque[Run]] = {}
    for run in order:
        queues.setdefault(engine_of(run.op, arch), deque()).append(run)
    pipes = ["vector", *(f"vector.{n}" for n in range(1, arch.vector.pipes))]
    slots: dict[str, Run | None] = {
        name: None for engine in queues for name in (pipes if engine == "vector" else [engine])
    }
    kinds = {op.number: op.ins.mnemonic for op in ops}
    return Machine(chip, program, arch.array.handover_steps, queues, slots, deque(order), kinds)
