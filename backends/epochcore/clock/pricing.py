"""What every op of a program costs; what costs the same is computed once.

No rule looks at addresses or tokens: instructions that differ in nothing else cost the same, as a constant does that
has as many bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np

from backends.epochcore.arch import Arch
from backends.epochcore.banks import Jumps, jumping
from backends.epochcore.clock.array import ARRAY
from backends.epochcore.clock.cost import Context, Cost, Rule
from backends.epochcore.clock.dram import TRANSFERS
from backends.epochcore.clock.lying import Ints, Lying
from backends.epochcore.clock.vector import VECTOR
from backends.epochcore.program.columns import Alike, split
from backends.epochcore.program.dispatch import on_chip
from backends.epochcore.program.parameters import param_bytes, words_of
from backends.epochcore.program.rates import totals
from isa import Instruction, Program


@cache
def waiting(engine: str) -> Cost:
    """What an engine that waits for tokens costs where engines do so."""
    return Cost(engine, 1, 0, {})


RULES: dict[str, Rule] = {
    **TRANSFERS,
    **ARRAY,
    **VECTOR,
    "sync": lambda ins, at: waiting(str(ins["engine"])),
}
STREAMS = frozenset({"load", "store"})
IN_PLACE = Cost("load", 0, 0, {})  # what is fetched again and still there


class Prices:
    """The costs of a program's instructions in a sequence of `steps` steps, and what lies in the parameter memory."""

    def __init__(self, program: Program, arch: Arch, steps: int) -> None:
        self._program, self._arch = program, arch
        self._total = totals(program, steps)
        self._bytes = {name: param_bytes(array) for name, array in program.data.items()}
        self._known: dict[tuple[Any, ...], Cost] = {}
        self._shapes: dict[int, int] = {}  # by identity: the program keeps its instructions
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._constants: dict[str, int] = {}
        self._orders: dict[str, int] = {}
        self._known_orders: dict[Jumps, int] = {}
        self.lying = Lying()

    def fetched(self, alike: Alike) -> Ints:
        """What fetches move that are alike, by rows: where it begins, where it ends, and its number."""
        words = [words_of(self._bytes[name], self._arch.memory.word_bits) for name in alike["src"]]
        numbers = [self._constants.setdefault(name, len(self._constants)) for name in alike["src"]]
        return np.stack([alike["dst"], alike["dst"] + np.array(words, np.int64), np.array(numbers, np.int64)])

    def of(
        self,
        index: int,
        ins: Instruction,
        start: int,
        steps: int,
        samples: int,
        held: Instruction | None,
        *,
        moves: bool = True,
    ) -> Cost:
        """The cost of the instruction at `index`, for its steps from `start` on of so many samples."""
        name = ins.mnemonic
        if not moves:
            return IN_PLACE
        near, first = 0, False
        if name in STREAMS:
            near = on_chip(self._program, ins, start, steps, self._total)
            # whether those steps that stay on the chip, at one end of it, are taken first
            here = 0 < near < steps and on_chip(self._program, ins, start, 1, self._total)
            first = 0 < near < steps and bool(here) != (index in self._backward)
        met = held if name in ARRAY else None
        key = self.shape(ins), steps, samples, near, first, 0 if met is None else self.shape(met)
        cost = self._known.get(key)
        if cost is None:
            at = Context(self._arch, steps, met, self._bytes, near, self._program.data, samples, first)
            cost = self._known[key] = RULES[name](ins, at)
        return cost

    def shape(self, ins: Instruction) -> int:
        """The number, from 1 on, of all that an instruction's cost may depend on."""
        found = self._shapes.get(id(ins))
        if found is None:
            found = self._shapes[id(ins)] = self._numbered(ins.mnemonic, [split(ins.mnemonic).row(ins)])[0]
        return found

    def shapes(self, alike: Alike) -> list[int]:
        """The numbers of instructions that are alike."""
        return self._numbered(alike.mnemonic, alike.rows)

    @cached_property
    def _backward(self) -> frozenset[int]:
        return _backward(self._program)

    def _numbered(self, name: str, rows: Sequence[tuple[Any, ...]]) -> list[int]:
        """By the operands of an instruction the number of those that count."""
        numbers, end = self._numbers, split(name).sizes
        keys: list[Any] = [row[:end] for row in rows]
        if name == "fetch":
            keys = [self._bytes[constant] for (constant,) in keys]
        elif name == "const":
            keys = [words for *_, words in keys]  # whichever constant it is
        elif name == "gather":  # by where the words lie to each other, which many have in common
            place = split(name).names.index("index")
            keys = [(*key[:place], self._order(key[place]), *key[place + 1 :]) for key in keys]
        return [numbers.setdefault((name, key), len(numbers) + 1) for key in keys]

    def _order(self, index: str) -> int:
        """The number of the order that an index tells."""
        found = self._orders.get(index)
        if found is None:
            places = np.ravel(self._program.data.get(index, np.zeros(1))).astype(np.int64)
            found = self._orders[index] = self._known_orders.setdefault(jumping(places, 0), len(self._known_orders))
        return found


def _backward(program: Program) -> frozenset[int]:
    """Instructions in loops that go over the chunks from the last to the first."""
    section = program.sections[0]
    loops = [(n, ins) for n, ins in enumerate(section.code) if ins.mnemonic == "chunks" and ins["backward"]]
    return frozenset(index for n, ins in loops for index in range(n + 1, section.labels[str(ins["end"])]))
