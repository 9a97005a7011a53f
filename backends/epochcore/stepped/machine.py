"""The engines, their queues and tokens, one cycle after the other."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from backends.epochcore.arch import Arch
from backends.epochcore.cost import Cost
from backends.epochcore.dispatch import Op, dispatch
from backends.epochcore.pricing import pricing
from backends.epochcore.rounds import rounds_of
from backends.epochcore.stepped.grid import Grid
from backends.epochcore.stepped.memory import Memory
from backends.epochcore.stepped.passes import Chip, Pass
from backends.epochcore.stepped.sequential import Effect, effect_of
from backends.epochcore.stepped.shifts import Preload, Product, StateLoad, StateStore
from backends.epochcore.wave import Wave
from isa import Program
from isa.epochcore_fields import ENGINES
from ssmc.diagnostics import UserError

Array = NDArray[Any]
NEVER = 1 << 60


@dataclass
class Timed:
    """Work of a unit that is not stepped inside: words through the vector unit, bytes through the DRAM channel."""

    op: Op
    left: float  # words or, for the channel, bytes times clock cycles a second
    rate: float
    latency: int
    effect: Effect
    moving: bool = True
    done: int | None = None

    def tick(self, now: int) -> None:
        if self.done is not None or not self.moving:
            return
        self.left -= self.rate
        if self.left <= 0:
            self.done = now + 1 + self.latency
            self.moving = False


InArray = Pass | Product | StateStore
Job = Timed | InArray | Preload | StateLoad


@dataclass
class Engine:
    queue: deque[Op] = field(default_factory=deque)
    jobs: deque[Job] = field(default_factory=deque)
    free: int = 0


@dataclass
class Machine:
    """The state of the whole machine between two cycles."""

    chip: Chip
    program: Program
    price: Callable[[Op], Cost]
    engines: dict[str, Engine]
    tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    kinds: dict[int, str] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    passes: dict[int, InArray] = field(default_factory=dict)
    asking: deque[Timed] = field(default_factory=deque)
    sending: Timed | None = None
    now: int = 0
    last: tuple[int, int, Wave] | None = None
    out: int = 0

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
        for engine in self.engines.values():
            for job in engine.jobs:
                job.tick(self.now)
        self.chip.grid.tick(self.now)
        for job in self.engines["compute"].jobs:
            if isinstance(job, Product):
                job.after(self.now)
        self.chip.memory.settle(self.now)
        if self.sending is not None and not self.sending.moving:
            self.engines[self.sending.op.engine].free = self.now + 1
            self.sending = None
        self.now += 1
        return True

    def _settled(self) -> int:
        """From when on nothing but a token can let an instruction start."""
        start, busy, wave = self.last or (0, 0, Wave((0, 0, 0, 0), 0, 0, 0, 0))
        passed = start + busy + max(max(wave.corners) + wave.trail, wave.over)
        return max(passed, self.out, *(engine.free for engine in self.engines.values()))

    def _retire(self, name: str) -> None:
        """What has ended gives its tokens; an engine's instructions end in order."""
        jobs = self.engines[name].jobs
        while jobs and jobs[0].done is not None and jobs[0].done <= self.now:
            job = jobs.popleft()
            if isinstance(job, Timed):
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
        if op.ins.mnemonic == "state.store" and self.now < self.out:
            return False
        if op.engine == "compute" and self.last is not None:
            wave = self.price(op).wave
            start, busy, before = self.last
            if wave is None:
                return not engine.jobs
            return self.now >= start + busy + wave.behind(before)
        return True

    def _start(self, op: Op, engine: Engine) -> None:
        mnemonic, chip = op.ins.mnemonic, self.chip
        job: Job
        if op.engine == "compute" and mnemonic != "sync":
            job, busy = self._pass(op)
            self.passes[op.number] = job
            wave = self.price(op).wave
            self.last = None if wave is None else (self.now, busy, wave)
            if mnemonic == "state.store":
                self.out = self.now + self.price(op).cycles
            engine.free = self.now + busy
        elif mnemonic == "preload":
            job = Preload(op, chip, self.now)
            engine.free = self.now + max(1, self.price(op).cycles)
        elif mnemonic == "state.load":
            assert op.held is not None
            job = StateLoad(op, chip, self.now, op.held)
            engine.free = self.now + max(1, self.price(op).cycles)
        else:
            job = timed = self._timed(op)
            if self.price(op).events.get("dram_bytes"):
                timed.moving = False
                self.asking.append(timed)
                engine.free = NEVER  # until the channel has served it
            else:
                timed.effect.read(chip.memory)
                engine.free = self.now + max(1, self.price(op).cycles)
        engine.jobs.append(job)

    def _pass(self, op: Op) -> tuple[InArray, int]:
        """What runs in the array, and the cycles until the next may follow."""
        if op.ins.mnemonic == "state.store":
            wave = StateStore(op, self.chip, self.now)
            return wave, wave.hop
        if op.ins.mnemonic == "mac" and op.held is not None and op.held["mode"] == "mac.os":
            return Product(op, self.chip, self.now, fresh=self._takes(op)[0]), max(1, self.price(op).cycles)
        stream = Pass(op, self.chip, self.now, takes=self._takes(op))
        return stream, max(1, stream.count * stream.interval)

    def _takes(self, op: Op) -> tuple[bool, bool]:
        kinds = {self.kinds[number] for number in op.finished}
        return "preload" in kinds, "state.load" in kinds

    def _timed(self, op: Op) -> Timed:
        arch, events = self.chip.arch, self.price(op).events
        effect = effect_of(op, self.chip.memory, self.program)
        if size := events.get("dram_bytes", 0):
            return Timed(op, size * arch.clock_hz, arch.dram.bytes_per_second, arch.dram.latency_cycles, effect)
        if op.ins.mnemonic == "carry":
            # a segment waits for the one before
            rounds = min(-(-op.steps // int(op.ins["span"])), int(op.ins["segments"]))
            work = int(op.ins["words"]) * (1 + bool(op.ins["complex"])) * op.samples
            return Timed(op, rounds * (-(-work // arch.vector.width) + arch.vector.latency_cycles), 1, 0, effect)
        if words := events.get("vector_words", 0):
            return Timed(op, words, arch.vector.width, arch.vector.latency_cycles, effect)
        return Timed(op, 1, 1, 0, effect)

    def _serve(self) -> None:
        """The DRAM channel takes what has waited longest."""
        if self.sending is None and self.asking:
            self.sending = self.asking.popleft()
            self.sending.moving = True
            self.sending.effect.read(self.chip.memory)


def machine_of(program: Program, arch: Arch, memory: Memory, batch: int, steps: int) -> Machine:
    """The machine with all instructions in its queues."""
    grid = Grid(arch.array.rows, arch.array.cols, arch.array.mac_depth)
    chip = Chip(arch, grid, memory, rounds_of(program))
    machine = Machine(chip, program, pricing(program, arch, steps), {name: Engine() for name in ENGINES})
    for op in dispatch(program, batch, steps, shadow=arch.array.shadow):
        machine.engines[op.engine].queue.append(op)
        machine.kinds[op.number] = op.ins.mnemonic
    return machine
