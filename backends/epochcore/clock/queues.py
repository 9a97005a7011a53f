"""When everything happens: engines that work through their queues, held up by each other's tokens.

Each engine takes its instructions in the program's order. One starts when

* the engine is free: the one before has ended, or where instructions overlap (DRAM transfers, passes over the array)
  has gone far enough: a pass follows the one before so closely that its first step comes nowhere before one more step
  of the one before would have (see `wave`);
* there is a token from every engine that it names (a `sync` also waits until all before it has ended);
* what it takes over from the shadow registers is there, or, where it fills them, has been taken over by every element;
  without shadow registers they are filled while the array is empty;
* the registers through which states leave the array are empty, for `state.store`;
* the DRAM channel, which loads and stores share, is free: it serves them as they come, a load first where both come at
  once. A transfer keeps it for its bytes, not for its latency.

It gives its tokens when it ends. An engine's instructions end in order. All of this is ours; `stepped` checks it cycle
by cycle. Starts follow from ends that are known, so that no clock is needed here: time is linear in the instructions.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from backends.epochcore.arch import Arch
from backends.epochcore.clock.cost import Cost
from backends.epochcore.clock.wave import Wave
from backends.epochcore.program.dispatch import Op
from isa.epochcore_fields import ENGINES

DRAM = ("load", "store")


class Deadlock(Exception):
    """`waiting`: the first instruction of every queue that is not empty, and the engines whose tokens it lacks."""

    def __init__(self, waiting: Sequence[tuple[Op, tuple[str, ...]]]) -> None:
        super().__init__("deadlock")
        self.waiting = tuple(waiting)


@dataclass
class _Engine:
    """An engine's queue, when it is free again, and when what it has begun will have ended."""

    ops: list[Op] = field(default_factory=list)
    at: int = 0
    free: int = 0
    ended: int = 0


@dataclass
class Queues:
    """Starts and ends of ops, by their numbers."""

    arch: Arch
    price: Callable[[Op], Cost]
    start: list[int] = field(default_factory=list)
    finish: list[int] = field(default_factory=list)
    _engines: dict[str, _Engine] = field(default_factory=lambda: {name: _Engine() for name in ENGINES})
    _tokens: defaultdict[tuple[str, str], deque[int]] = field(default_factory=lambda: defaultdict(deque))
    _passed: dict[int, int] = field(default_factory=dict)
    _last_pass: tuple[int, int, Wave] | None = None
    _out: int = 0
    _channel: int = 0

    def run(self, ops: Sequence[Op]) -> None:
        """Time all of them. Raises Deadlock where some can never start."""
        self.start, self.finish = [-1] * len(ops), [-1] * len(ops)
        for op in ops:
            self._engines[op.engine].ops.append(op)
        others = [name for name in ENGINES if name not in DRAM]
        while True:
            moved = True
            while moved:
                moved = False
                for name in others:
                    while (ready := self._ready(name)) is not None:
                        self._begin(name, ready)
                        moved = True
            # the others have gone as far as they can: what comes first to the channel is known
            asking = [(ready, name) for name in DRAM if (ready := self._ready(name)) is not None]
            if not asking:
                break
            ready, name = min(asking)
            self._begin(name, ready)
        waiting = [(e.ops[e.at], self._lacking(e.ops[e.at])) for e in self._engines.values() if e.at < len(e.ops)]
        if waiting:
            raise Deadlock(waiting)

    def _lacking(self, op: Op) -> tuple[str, ...]:
        return tuple(name for name in op.pops if not self._tokens[name, op.engine])

    def _ready(self, name: str) -> int | None:
        """When the first op of a queue can start, the channel apart; None where that is not known yet."""
        engine = self._engines[name]
        if engine.at == len(engine.ops):
            return None
        op = engine.ops[engine.at]
        ready = engine.free
        for other in op.pops:
            tokens = self._tokens[other, name]
            if not tokens:
                return None
            ready = max(ready, tokens[0])
        for number in op.finished:
            if self.finish[number] < 0:
                return None
            ready = max(ready, self.finish[number])
        if op.passed is not None:
            if op.passed not in self._passed:
                return None
            ready = max(ready, self._passed[op.passed])
        mnemonic = op.ins.mnemonic
        if mnemonic == "sync":
            return max(ready, engine.ended)
        if mnemonic == "state.store":
            ready = max(ready, self._out)
        if name == "compute" and self._last_pass is not None:
            wave = self.price(op).wave
            start, busy, before = self._last_pass
            # a pass of no steps sends nothing through the array: it waits until it is empty
            late = engine.ended - start - busy if wave is None else wave.behind(before)
            ready = max(ready, start + busy + late)
        return ready

    def _begin(self, name: str, ready: int) -> None:
        engine = self._engines[name]
        op = engine.ops[engine.at]
        engine.at += 1
        cost = self.price(op)
        start = max(ready, self._channel) if _moves(cost) else ready
        cycles = max(1, cost.cycles)
        busy = cycles if cost.busy is None else max(1, cost.busy)
        engine.free = start + busy
        engine.ended = finish = max(engine.ended, start + cycles)
        self.start[op.number], self.finish[op.number] = start, finish
        if _moves(cost):
            self._channel = start + busy
        if name == "compute" and op.ins.mnemonic != "sync":
            self._last_pass = (start, busy, cost.wave) if cost.wave is not None else None
            self._passed[op.number] = start + max(1, cost.holds)
            if op.ins.mnemonic == "state.store":
                self._out = start + cycles
        for other in op.pops:
            self._tokens[other, name].popleft()
        for other in op.pushes:
            self._tokens[name, other].append(finish)


def _moves(cost: Cost) -> bool:
    return bool(cost.events.get("dram_bytes"))
