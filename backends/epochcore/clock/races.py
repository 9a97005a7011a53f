"""Where engines wait for tokens alone: does an instruction begin before one that it depends on has ended?"""

from __future__ import annotations

from collections.abc import Sequence

from backends.epochcore.clock.handover import Run
from backends.epochcore.program.cells import Spans
from backends.epochcore.program.dispatch import Op
from backends.epochcore.program.ledger import Ledger
from backends.epochcore.program.parameters import param_words
from backends.epochcore.program.tokens import OVERLAPPING, touched_by
from backends.epochcore.program.traps import trap
from isa import Program


def check_races(program: Program, word_bits: int, steps: int, ops: Sequence[Op], runs: Sequence[Run]) -> None:
    """Raises UserError, a trap, for the first op of the program that reads words before they are written, or writes
    what is still being read or written. The simulator runs a program in its order and would not show it."""
    sizes = {name: param_words(array, word_bits) for name, array in program.data.items()}
    ledger = Ledger(Spans(touched_by(program.sections[0], sizes, steps)))
    visits = [(op.index, op.engine, op.number + 1) for op in ops]
    for op, needs in zip(ops, ledger.needs(visits), strict=True):
        for engine, number in needs:
            before = ops[number - 1]
            # an engine's instructions end in order
            if (engine != op.engine or engine in OVERLAPPING) and runs[before.number].finish > runs[op.number].start:
                raise _early(program, op, before, runs[op.number].start, runs[before.number].finish)


def _early(program: Program, op: Op, before: Op, start: int, finish: int) -> Exception:
    source = program.source(before.ins)
    layer = f", layer '{source.layer}'" if source else ""
    other = f"instruction {before.index} ({before.ins.mnemonic}{layer})"
    return trap(
        program,
        op.index,
        f"begins in cycle {start:,}, before {other} has ended, in cycle {finish:,}: they share words in a memory",
        f"{op.engine} does not wait for {before.engine}",
        f"give it a token: push.{op.engine} there, or later in {before.engine}, and pop.{before.engine} here"
        if op.engine != before.engine
        else f"let {op.engine} end what it has begun: a sync between them",
    )
