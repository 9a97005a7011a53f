"""The lanes of the vector unit, cycle by cycle.

An instruction goes over its words in one or more *sweeps*. In a cycle every lane takes one word through one pass: a
difference, a product and a multiply-add, or one step of a function (ours; `arch.vector.function_passes` of these make a
function, in as many neighbouring lanes, chained). A word is read from the scratchpad in the cycle in which its lane
takes it; what comes of it can be read, there or in the unit's registers, `arch.vector.latency_cycles` after the next
cycle. So a sweep that needs the whole of the one before begins that much later. Registers that add up do so in every
cycle, behind the lanes. Rows that are the same at all steps, and what is carried, are in registers while an instruction
runs; they are read with its first words and written with its last (ours).

Rows of an operand are taken as they lie, words of different banks one after the other, and are put in order in front
of the lanes; where words go from places to places (`copy`, `gather`), the lanes take whole rows at once, or parts of
one, of a sample after the other, and words of one bank wait.

Where engines hand over step by step, a block begins in a cycle of its own, and an instruction whose steps wait for each
other keeps the unit until its last result is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Arch
from backends.epochcore.program.dispatch import Op
from backends.epochcore.program.rounds import rounds_of
from backends.epochcore.stepped.memory import Memory
from isa import Instruction, Program

Slot = Callable[[], None]
Sweep = list[Slot]


def idle() -> None:
    """An earlier lane of a chain: nothing of it is seen."""


def asleep() -> None:
    """A lane without a word."""


@dataclass
class Unit:
    """What one run of an instruction sees: scratchpad, constants, registers of its own."""

    op: Op
    arch: Arch
    memory: Memory
    program: Program
    steps: int  # of the whole sequence, by the register that the instruction counts with
    backward: bool = False  # the direction of its loop
    now: int = 0
    asked: dict[str, set[int]] = field(default_factory=dict)  # words of this cycle, by operand, where they jump
    _registers: dict[Any, tuple[int, float]] = field(default_factory=dict)
    _lines: dict[Any, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rounds, op = rounds_of(self.program), self.op
        self.each: list[Instruction] = [rounds.of(n, op.ins) for n in range(op.samples)]

    def rows(self, first: int, last: int) -> list[int]:
        """Rows of the chunk that are the steps `first` to `last` - 1, in the order in which they are taken."""
        count = self.op.steps
        back = bool(self.op.ins.operands.get("reverse", self.backward))
        return [count - 1 - step if back else step for step in range(first, last)]

    @property
    def later(self) -> int:
        """When what comes of a word that is taken now can be read."""
        return self.now + 1 + self.arch.vector.latency_cycles

    @property
    def function(self) -> int:
        """Passes of a function."""
        return self.arch.vector.function_passes

    def number(self, name: str) -> int:
        return int(self.op.ins[name])

    def constant(self, name: str) -> NDArray[Any]:
        return np.asarray(self.program.data[str(self.op.ins[name])])

    def word(self, address: int) -> float:
        """A word of the scratchpad, as it is in this cycle."""
        self.memory.counted["scratchpad_words", self.op.ins.mnemonic] += 1
        return float(self.memory.spad[address])

    def put(self, address: int, value: Any) -> None:
        """A word of the scratchpad comes out of its lane."""
        self.memory.counted["scratchpad_words", self.op.ins.mnemonic] += 1
        self.memory.later(self.later - 1, address, float(value))

    def keep(self, key: Any, value: Any) -> None:
        """A register of the unit."""
        self._registers[key] = self.later, float(value)

    def there(self, key: Any) -> float:
        """A register's number. Raises AssertionError where it is not there yet."""
        at, value = self._registers[key]
        assert at <= self.now, f"{self.op.ins.mnemonic} reads the register {key} too early"
        return value

    def jump(self, operand: str, address: int) -> None:
        """A word that does not lie beside the one before: it is given, or taken, by its bank."""
        self.asked.setdefault(operand, set()).add(address)

    def late(self) -> int:
        """Cycles until the banks have given what was asked for in this one, of each operand so many words a bank."""
        memory, waiting = self.arch.memory, list(self.asked.values())
        self.asked, cycles = {}, 0
        while memory.banks and any(waiting):
            cycles += 1
            for words in waiting:
                given = Counter[int]()
                for address in sorted(words):
                    if given[address % memory.banks] < memory.bank_ports:
                        given[address % memory.banks] += 1
                        words.discard(address)
        return max(0, cycles - 1)

    def known(self, key: Any, address: int) -> float:
        """A number that stays in a register from the first time on that it is read from the scratchpad."""
        if key not in self._registers:
            self._registers[key] = self.now, self.word(address)
        return self._registers[key][1]

    def collect(self, key: Any, value: Any, fn: Callable[[Any, Any], Any] | None = None) -> None:
        """A register that adds up, or keeps what `fn` gives of both."""
        before = self._registers.get(key)
        value = value if before is None else before[1] + value if fn is None else fn(before[1], value)
        self._registers[key] = self.later, float(value)

    def so_far(self, key: Any) -> float:
        """What has been collected, with this cycle's: behind the register there is nothing to wait for."""
        return self._registers[key][1]

    def has(self, key: Any) -> bool:
        return key in self._registers

    def line(self, key: Any, addresses: Iterable[int]) -> list[float]:
        """A line of registers in front of the lanes: inputs of earlier steps, those that were carried at first."""
        if key not in self._lines:
            self._lines[key] = [self.word(at) for at in addresses]
        return self._lines[key]


@dataclass
class Block:
    """A block of an instruction on its way through the lanes."""

    unit: Unit
    sweeps: Iterator[Sweep]
    serial: bool
    taken: int | None = None  # when the unit may take something else
    complete: int = 0  # when its last word is there
    _sweep: Sweep = field(default_factory=list)
    _at: int = 0
    _wait: int = 0
    _next: Sweep | None = None

    def __post_init__(self) -> None:
        self._sweep = next(self.sweeps, [])

    @property
    def empty(self) -> bool:
        return not self._sweep

    def tick(self, now: int) -> None:
        """A cycle: as many words as there are lanes."""
        unit = self.unit
        if now < self._wait or self.taken is not None:
            return
        unit.now = now
        width = unit.arch.vector.width
        for slot in self._sweep[self._at : self._at + width]:
            slot()
            unit.memory.counted["vector_words", unit.op.ins.mnemonic] += slot is not asleep
        self._at += width
        late = unit.late()
        self._wait = now + 1 + late
        if self._at < len(self._sweep):
            return
        self._at = 0
        following = next(self.sweeps, None)
        self.complete = unit.later + late
        if following is None:
            self.taken = self.complete if self.serial else self._wait
        else:
            self._sweep, self._wait = following, self.complete


def chain(passes: int, last: Slot) -> list[Slot]:
    """The lanes of a word that takes several passes."""
    return [idle] * (passes - 1) + [last]


Rule = Callable[[Unit, Sequence[int], bool], Iterator[Sweep]]
"""The sweeps of a block: its unit, rows of the chunk in the order in which they are taken, and whether they are the
last of the instruction. What is in the registers stays there from block to block."""
