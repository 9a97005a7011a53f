"""What every op of a program costs; what costs the same is computed once.

No rule looks at addresses or tokens: instructions that differ in nothing else cost the same, as a constant does that
has as many bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from backends.epochcore.arch import Arch
from backends.epochcore.cost import Context, Cost, Rule
from backends.epochcore.cost_array import ARRAY
from backends.epochcore.cost_dram import TRANSFERS
from backends.epochcore.cost_vector import VECTOR
from backends.epochcore.dispatch import Op, on_chip
from backends.epochcore.rates import totals
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
    """The cost of an op in a sequence of `steps` steps."""
    total, alike = totals(program, steps), cache(_what_counts)
    bytes_of = {name: array.size * min(array.itemsize, 4) for name, array in program.data.items()}
    runs: dict[tuple[int, int, int, int, int], Cost] = {}
    known: dict[tuple[Any, ...], Cost] = {}
    kept, first = _kept(program), dict[int, int]()

    def shape(ins: Instruction) -> tuple[Any, ...]:
        if ins.mnemonic == "fetch":
            return "fetch", bytes_of[str(ins["src"])]
        return ins.mnemonic, *(ins.operands[name] for name in alike(ins.mnemonic))

    def price(op: Op) -> Cost:
        if op.index in kept and first.setdefault(op.index, op.number) != op.number:
            return IN_PLACE
        near = on_chip(program, op.ins, op.start, op.steps, total) if op.ins.mnemonic in ("load", "store") else 0
        run = op.index, op.steps, op.samples, near, id(op.held)
        cost = runs.get(run)
        if cost is None:
            what = shape(op.ins), op.steps, op.samples, near, op.held and shape(op.held)
            cost = known.get(what)
            if cost is None:
                at = Context(arch, op.steps, op.held, bytes_of, near, program.data, op.samples)
                cost = known[what] = RULES[op.ins.mnemonic](op.ins, at)
            runs[run] = cost
        return cost

    return price


def _what_counts(mnemonic: str) -> tuple[str, ...]:
    """The operands that a cost may depend on."""
    fields = EPOCHCORE.by_mnemonic[mnemonic].fields
    return tuple(f.name for f in fields if f.kind is not Kind.ADDR and not f.name.startswith(("pop.", "push.")))


def _kept(program: Program) -> frozenset[int]:
    """Fetches of what stays where it is: the next time that they run nothing moves."""
    places: dict[int, set[str]] = {}
    fetches = [(n, ins) for n, ins in enumerate(program.sections[0].code) if ins.mnemonic == "fetch"]
    for _, ins in fetches:
        places.setdefault(int(ins["dst"]), set()).add(str(ins["src"]))
    shared = any(len(names) > 1 for names in places.values())  # too few words for all: each moves at every use
    return frozenset() if shared else frozenset(n for n, _ in fetches)
