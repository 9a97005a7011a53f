"""What every op of a program costs; what costs the same is computed once.

No rule looks at addresses or tokens: instructions that differ in nothing else cost the same, as a constant does that
has as many bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from backends.epochcore.arch import Arch
from backends.epochcore.clock.array import ARRAY
from backends.epochcore.clock.cost import Context, Cost, Rule
from backends.epochcore.clock.dram import TRANSFERS
from backends.epochcore.clock.vector import VECTOR
from backends.epochcore.program.dispatch import Op, on_chip
from backends.epochcore.program.parameters import param_words
from backends.epochcore.program.rates import totals
from isa import Instruction, Program
from isa.epochcore import EPOCHCORE
from isa.spec import Kind

RULES: dict[str, Rule] = {
    **TRANSFERS,
    **ARRAY,
    **VECTOR,
    "sync": lambda ins, at: Cost(str(ins["engine"]), 1, 0, {}),
}
IN_PLACE = Cost("load", 0, 0, {})  # what is fetched again and still there


def pricing(program: Program, arch: Arch, steps: int) -> Callable[[Op], Cost]:
    """The cost of an op in a sequence of `steps` steps. Ops are to be asked for in their order first: what is fetched
    again, and still there, does not move."""
    total, alike = totals(program, steps), cache(_what_counts)
    bytes_of = {name: array.size * min(array.itemsize, 4) for name, array in program.data.items()}
    runs: dict[tuple[int, ...], Cost] = {}
    known: dict[tuple[Any, ...], Cost] = {}
    backward = _backward(program)
    lying, moved = _Lying(), dict[int, bool]()

    shapes: dict[int, tuple[Any, ...]] = {}  # by identity: the program keeps its instructions

    def shape(ins: Instruction) -> tuple[Any, ...]:
        found = shapes.get(id(ins))
        if found is None:
            operands = ins.operands
            own = (
                [bytes_of[str(ins["src"])]]
                if ins.mnemonic == "fetch"
                else map(operands.__getitem__, alike(ins.mnemonic))
            )
            found = shapes[id(ins)] = ins.mnemonic, *own
        return found

    def price(op: Op) -> Cost:
        if op.ins.mnemonic == "fetch":
            if op.number not in moved:
                name = str(op.ins["src"])
                words = param_words(program.data[name], arch.memory.word_bits)
                moved[op.number] = lying.move(int(op.ins["dst"]), name, words)
            if not moved[op.number]:
                return IN_PLACE
        near = on_chip(program, op.ins, op.start, op.steps, total) if op.ins.mnemonic in ("load", "store") else 0
        first = 0 < near < op.steps and _near_first(program, op, total, backward)
        run = op.index, op.steps, op.samples, near, first, id(op.held)
        cost = runs.get(run)
        if cost is None:
            what = shape(op.ins), op.steps, op.samples, near, first, op.held and shape(op.held)
            cost = known.get(what)
            if cost is None:
                at = Context(arch, op.steps, op.held, bytes_of, near, program.data, op.samples, first)
                cost = known[what] = RULES[op.ins.mnemonic](op.ins, at)
            runs[run] = cost
        return cost

    return price


def _near_first(program: Program, op: Op, total: Mapping[str, int], backward: frozenset[int]) -> bool:
    """Whether those steps of a transfer that stay on the chip, at one end of it, are taken first."""
    return bool(on_chip(program, op.ins, op.start, 1, total)) != (op.index in backward)


def _backward(program: Program) -> frozenset[int]:
    """Instructions in loops that go over the chunks from the last to the first."""
    section = program.sections[0]
    ends = [(n, section.labels[str(ins["end"])]) for n, ins in enumerate(section.code) if ins.operands.get("backward")]
    return frozenset(index for start, end in ends for index in range(start + 1, end))


def _what_counts(mnemonic: str) -> tuple[str, ...]:
    """The operands that a cost may depend on."""
    fields = EPOCHCORE.by_mnemonic[mnemonic].fields
    return tuple(f.name for f in fields if f.kind is not Kind.ADDR and not f.name.startswith(("pop.", "push.")))


@dataclass
class _Lying:
    """Constants that lie whole in the parameter memory: by their first words, what they are and where they end."""

    known: dict[int, tuple[str, int]] = field(default_factory=dict)

    def move(self, first: int, name: str, size: int) -> bool:
        """Whether a constant must come there, as it is not there or something has overwritten it since."""
        end = first + size
        if self.known.get(first) == (name, end):
            return False
        self.known = {at: old for at, old in self.known.items() if old[1] <= first or end <= at}
        self.known[first] = name, end
        return True
