"""The engines, their queues and tokens, one cycle after the other."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from backends.epochcore.arch import Arch
from backends.epochcore.program.dispatch import Op, dispatch
from backends.epochcore.program.passes import PASSES
from backends.epochcore.program.rates import totals
from backends.epochcore.program.rounds import rounds_of
from backends.epochcore.stepped.grid import Grid
from backends.epochcore.stepped.instructions import IN_LANES, SERIAL
from backends.epochcore.stepped.lanes import Block, Unit
from backends.epochcore.stepped.memory import Memory
from backends.epochcore.stepped.passes import Chip, Pass
from backends.epochcore.stepped.shifts import Preload, Product, StateLoad, StateStore
from backends.epochcore.stepped.traffic import Traffic
from backends.epochcore.stepped.transfers import Effect, effect_of, way_of
from backends.epochcore.stepped.turns import Turns, in_turn
from isa import Program
from isa.epochcore_fields import ENGINES
from ssmc.diagnostics import UserError

NEVER = 1 << 60


@dataclass
class Transfer:
    """Cycles of the DRAM channel or of the way on the chip, one after the other; a `sync` is one of its engine."""

    op: Op
    left: int
    latency: int
    effect: Effect
    channel: bool = False
    moving: bool = True
    done: int | None = None

    def tick(self, now: int) -> None:
        if self.done is not None or not self.moving:
            return
        self.left -= 1
        if self.left <= 0:
            self.done = now + 1 + self.latency
            self.moving = False


@dataclass
class Lanes:
    """An instruction of the vector unit, all its steps in one block."""

    op: Op
    block: Block
    done: int | None = None

    def tick(self, now: int) -> None:
        if self.block.empty:
            self.done = self.done or now + 1
            return
        self.block.tick(now)
        if self.block.taken is not None:
            self.done = self.block.complete


InArray = Pass | Product | StateStore | Turns
Job = Transfer | Lanes | InArray | Preload | StateLoad


@dataclass
class Engine:
    """One engine: instructions that wait for it, the jobs that it works on, the cycle from which on it is free."""

    queue: deque[Op] = field(default_factory=deque)
    jobs: deque[Job] = field(default_factory=deque)
    free: int = 0


@dataclass
class Machine:
    """The state of the whole machine between two cycles."""

    chip: Chip
    program: Program
    total: Mapping[str, int]  # steps of the whole sequence by register
    backward: Mapping[int, bool]  # of instructions in a loop over chunks
    engines: dict[str, Engine]
    tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    kinds: dict[int, str] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    passes: dict[int, InArray] = field(default_factory=dict)
    asking: deque[Transfer] = field(default_factory=deque)
    sending: Transfer | None = None
    now: int = 0
    leaving: StateStore | None = None  # states on their way out

    def cycle(self) -> bool:
        """One cycle; False when all queues are empty and all work is done."""
        for name in ENGINES:
            self._retire(name)
        if not any(engine.queue or engine.jobs for engine in self.engines.values()):
            return False
        for name in ENGINES:
            self._issue(name)
        self._serve()
        if not any(engine.jobs for engine in self.engines.values()) and self.now >= self._settled():
            raise UserError("deadlock: " + ", ".join(name for name in ENGINES if self.engines[name].queue))
        self._take_turns()
        for engine in self.engines.values():
            for job in engine.jobs:
                job.tick(self.now)
        self.chip.grid.tick(self.now)
        for job in self.engines["compute"].jobs:
            if isinstance(job, Product | Turns):
                job.after(self.now)
        self.chip.memory.settle(self.now)
        if self.sending is not None and not self.sending.moving:
            self.engines[self.sending.op.engine].free = self.now + 1
            self.sending = None
        for engine in self.engines.values():
            if engine.free == NEVER and engine.jobs[-1].done is not None:
                engine.free = engine.jobs[-1].done
        self.now += 1
        return True

    def _take_turns(self) -> None:
        """Passes that one instruction makes in turn: weights follow when the step before has left the array."""
        compute = self.engines["compute"]
        for turns in [job for job in compute.jobs if isinstance(job, Turns)]:
            shadow, last = self.chip.arch.array.shadow, turns.last
            gone = last.passed if shadow else last.done
            turns.advance(self.now, gone is not None and gone <= self.now)
            if turns.begun is not None and turns.free is not None and compute.free == NEVER:
                compute.free = turns.free
                turns.leave_traffic()

    def _settled(self) -> int:
        """From when on nothing but a token can let an instruction start."""
        out = self.leaving.done or 0 if self.leaving is not None else 0
        return max(self.chip.traffic.free, out, *(engine.free for engine in self.engines.values()))

    def _retire(self, name: str) -> None:
        """What has ended gives its tokens; an engine's instructions end in order."""
        jobs = self.engines[name].jobs
        while jobs and jobs[0].done is not None and jobs[0].done <= self.now:
            job = jobs.popleft()
            if isinstance(job, Transfer):
                job.effect.write(self.chip.memory)
            self.finished.add(job.op.number)
            for other in job.op.pushes:
                self.tokens[name, other] += 1

    def _issue(self, name: str) -> None:
        engine = self.engines[name]
        if not engine.queue or self.now < engine.free:
            return
        op = engine.queue[0]
        if any(not self.tokens[other, name] for other in op.pops) or not self.finished.issuperset(op.finished):
            return
        if op.passed is not None:
            before = self.passes.get(op.passed)
            if before is None or before.passed is None or before.passed > self.now:
                return
        if not self._may(op, engine):
            return
        engine.queue.popleft()
        for other in op.pops:
            self.tokens[other, name] -= 1
        self._start(op, engine)

    def _may(self, op: Op, engine: Engine) -> bool:
        """Whether the array's own rules let an instruction start."""
        if op.ins.mnemonic == "sync":
            return not engine.jobs
        if op.ins.mnemonic == "state.store" and self.leaving is not None and not self.leaving.over(self.now):
            return False
        if op.engine != "compute":
            return True
        if op.ins.mnemonic in PASSES and not op.steps:
            return not engine.jobs  # it sends nothing through the array: it waits until it is empty
        return self.chip.traffic.lets(op, self.now)

    def _start(self, op: Op, engine: Engine) -> None:
        mnemonic, chip = op.ins.mnemonic, self.chip
        job: Job
        if op.engine == "compute" and mnemonic != "sync":
            job, busy = self._pass(op)
            self.passes[op.number] = job
            engine.free = NEVER if isinstance(job, Turns) else self.now + busy
        else:
            engine.free = NEVER  # until it has ended, or the channel has served it
            if mnemonic == "preload":
                job = Preload(op, chip, self.now)
            elif mnemonic == "state.load":
                assert op.held is not None
                job = StateLoad(op, chip, self.now, op.held)
            elif mnemonic in IN_LANES:
                job = self._lanes(op)
            else:
                job = transfer = self._transfer(op)
                if transfer.channel:
                    transfer.moving = False
                    self.asking.append(transfer)
                else:
                    transfer.effect.read(chip.memory)
        engine.jobs.append(job)

    def _pass(self, op: Op) -> tuple[InArray, int]:
        """What runs in the array, and the cycles until the next may follow."""
        if op.ins.mnemonic == "state.store":
            self.leaving = wave = StateStore(op, self.chip, self.now)
            self.chip.traffic.follow(op, self.now + wave.hop, wave.hop)
            return wave, wave.hop
        if in_turn(op):
            return Turns(op, self.chip, self.now), 0
        if op.ins.mnemonic == "mac" and op.held is not None and op.held["mode"] == "mac.os":
            self.chip.traffic.empty()  # nothing is left when the next one may begin
            product = Product(op, self.chip, self.now, fresh=self._takes(op)[0])
            return product, max(1, product.busy)
        stream = Pass(op, self.chip, self.now, takes=self._takes(op))
        if not op.steps:
            self.chip.traffic.empty()
            return stream, 1
        busy = stream.route.busy
        self.chip.traffic.follow(op, self.now + busy, stream.route.interval)
        return stream, busy

    def _takes(self, op: Op) -> tuple[bool, bool]:
        kinds = {self.kinds[number] for number in op.finished}
        return "preload" in kinds, "state.load" in kinds

    def _lanes(self, op: Op) -> Lanes:
        name, backward = op.ins.mnemonic, self.backward.get(op.index, False)
        unit = unit_of(op, self.chip, self.program, self.total, backward)
        return Lanes(op, Block(unit, IN_LANES[name](unit, unit.rows(0, op.steps), True), name in SERIAL))

    def _transfer(self, op: Op) -> Transfer:
        memory, arch = self.chip.memory, self.chip.arch
        if op.ins.mnemonic == "sync":
            return Transfer(op, 1, 0, Effect(lambda m: None, lambda m: None))
        way, effect = way_of(op, memory, self.program, arch), effect_of(op, self.program)
        far, near = way.cycles(arch)
        return Transfer(op, max(1, far + near), arch.dram.latency_cycles if far else 0, effect, far > 0)

    def _serve(self) -> None:
        """The DRAM channel takes what has waited longest."""
        if self.sending is None and self.asking:
            self.sending = self.asking.popleft()
            self.sending.moving = True
            self.sending.effect.read(self.chip.memory)


def machine_of(program: Program, arch: Arch, memory: Memory, batch: int, steps: int) -> Machine:
    """The machine with all instructions in its queues."""
    grid = Grid(arch.array.rows, arch.array.cols, arch.array.mac_depth)
    chip = Chip(arch, grid, memory, rounds_of(program), Traffic(arch))
    total, engines = totals(program, steps), {name: Engine() for name in ENGINES}
    machine = Machine(chip, program, total, directions(program), engines)
    for op in dispatch(program, batch, steps, shadow=arch.array.shadow):
        machine.engines[op.engine].queue.append(op)
        machine.kinds[op.number] = op.ins.mnemonic
    return machine


def directions(program: Program) -> dict[int, bool]:
    """Whether the loop of an instruction goes over the chunks from the last to the first."""
    section, found = program.sections[0], dict[int, bool]()
    for index, ins in enumerate(section.code):
        if ins.mnemonic == "chunks":
            found |= dict.fromkeys(range(index + 1, section.labels[str(ins["end"])]), bool(ins["backward"]))
    return found


def unit_of(op: Op, chip: Chip, program: Program, total: Mapping[str, int], backward: bool) -> Unit:
    """The vector unit for an instruction; `total` are the steps of a sequence by register."""
    register = str(op.ins.operands.get("count", op.ins.operands.get("steps", "one")))
    return Unit(op, chip.arch, chip.memory, program, total[register], backward)
