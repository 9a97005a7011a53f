"""Where engines wait for tokens alone: does an instruction begin before one that it depends on has ended?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backends.epochcore.clock.handover import Run
from backends.epochcore.program.cells import Spans, Visits
from backends.epochcore.program.dispatch import Op
from backends.epochcore.program.ledger import Ledger
from backends.epochcore.program.parameters import param_words
from backends.epochcore.program.tokens import OVERLAPPING
from backends.epochcore.program.traps import trap
from isa import Program
from isa.epochcore_fields import ENGINES


def check_races(program: Program, word_bits: int, steps: int, ops: Sequence[Op], runs: Sequence[Run]) -> None:
    """Raises UserError, a trap, for the first op of the program that reads words before they are written, or writes
    what is still being read or written. The simulator runs a program in its order and would not show it."""
    sizes = {name: param_words(array, word_bits) for name, array in program.data.items()}
    visits = Visits(
        np.array([op.index for op in ops], np.int64),
        np.array([ENGINES.index(op.engine) for op in ops], np.int64),
        np.array([op.number + 1 for op in ops], np.int64),
    )
    latest = Ledger(Spans.of(program.sections[0], sizes, steps)).needs(visits)
    for visit, other in np.argwhere(latest).tolist():
        op, before = ops[visit], ops[int(latest[visit, other]) - 1]
        # an engine's instructions end in order
        in_order = ENGINES[other] == op.engine and op.engine not in OVERLAPPING
        if not in_order and runs[before.number].finish > runs[op.number].start:
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
