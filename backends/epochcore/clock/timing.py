"""Costs of a run: cycles, seconds and energy, by layer, and the trace. `queues` says when everything happens, or
`handover` where the architecture's engines hand over step by step.

A round of samples (of one, where none are run together) follows the one before in the engines' queues as one
instruction follows another. The first few are timed; every further one is taken to add as much as the last of them.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, groupby, islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Arch
from backends.epochcore.clock.account import Account
from backends.epochcore.clock.cost import Cost
from backends.epochcore.clock.energy import breakdown, joules
from backends.epochcore.clock.handover import Handover, Run, most_blocks
from backends.epochcore.clock.plans import Plan, Plans, joined
from backends.epochcore.clock.pricing import Prices, waiting
from backends.epochcore.clock.queues import Deadlock, Queues
from backends.epochcore.clock.races import check_races
from backends.epochcore.clock.repetition import Repetition
from backends.epochcore.clock.trace import events
from backends.epochcore.program.columns import Columns
from backends.epochcore.program.conflicts import conflicts
from backends.epochcore.program.dispatch import Ahead, Op, Piece, dispatch, pieces
from backends.epochcore.program.rounds import rounds_of
from backends.epochcore.program.traps import trap
from isa import Program
from ssmc.target import LayerStats, Stats

Ints = NDArray[np.int64]
TIMED_ROUNDS = 4
CHECKED_CHUNKS = 4


def measure(
    program: Program,
    arch: Arch,
    batch: int,
    steps: int,
    *,
    trace: bool = False,
) -> tuple[Stats, tuple[Mapping[str, Any], ...]]:
    """Cycles, seconds and energy of a run of `batch` sequences of `steps` steps, and its trace (of the first one).

    Layers' cycles are what each adds to the length of the run: they sum up to it, as energies do. Raises UserError
    where engines wait for tokens that never come.
    """
    collecting = gc.isenabled()
    gc.disable()  # of millions of ops none is in a cycle, and looking for those takes a third of the time
    try:
        return _measured(program, arch, batch, steps, trace)
    finally:
        if collecting:
            gc.enable()


def _measured(
    program: Program, arch: Arch, batch: int, steps: int, trace: bool
) -> tuple[Stats, tuple[Mapping[str, Any], ...]]:
    each = rounds_of(program).together
    full, rest = divmod(batch, each)
    timed = min(full, TIMED_ROUNDS)
    account = Account(len(program.locs))
    asked, last = _Asked(program, arch, timed * each + rest, steps), (timed - 1) * each

    def times(sample: int) -> int:
        """Rounds that are not timed are like the last one that is."""
        return 1 + full - timed if sample == last else 1

    handed_over = arch.array.handover_steps > 0
    timed_pieces = _handed_over(asked, None if trace else account) if handed_over else _queued(asked)
    kept = list[Timed]()
    for one in timed_pieces:
        account.add_all(one.plan, one.begun, one.finished, times(one.sample))
        if trace:
            kept.append(one)
    account.settled()
    runs = list(_ops(asked, kept)) if trace else []
    traced = tuple(events([op for op, *_ in runs], [run for _, run, _ in runs], program, arch)) if trace else ()
    return _stats(account, asked, batch), traced


@dataclass(frozen=True)
class _Asked:
    """What is timed: `batch` samples one after the other (or together in rounds)."""

    program: Program
    arch: Arch
    batch: int
    steps: int


class Timed(NamedTuple):
    """What is run for samples from `sample` on, and when each op of it begins and is finished."""

    sample: int
    plan: Plan
    begun: Ints
    finished: Ints


def _queued(asked: _Asked) -> Iterator[Timed]:
    """Engines that wait for whole instructions, by tokens (see `queues`)."""
    program, arch, steps = asked.program, asked.arch, asked.steps
    columns, ahead = Columns.of(program.sections[0].code), Ahead(program, steps)
    queues = Queues(arch, columns)
    plans = Plans(program, queues, Prices(program, arch, steps), columns, tokens=True)
    found = [
        (piece.sample, plans.of(piece, _kind(piece, ahead))) for piece in pieces(program, asked.batch, steps, ahead)
    ]
    each = [(sample, joined([plan for _, plan in some])) for sample, some in groupby(found, lambda one: one[0])]
    if not each:
        return
    every = joined([plan for _, plan in each])
    try:
        begun, finished = queues.run(every.instructions, every.jobs)
    except Deadlock as deadlock:
        raise _stuck(program, deadlock, every.instructions) from None
    at = 0
    for sample, plan in each:
        stop = at + len(plan.jobs)
        yield Timed(sample, plan, begun[at:stop], finished[at:stop])
        at = stop


def _kind(piece: Piece, ahead: Ahead) -> tuple[int, ...]:
    """All that costs of a piece depend on besides its instructions."""
    return ahead.kind if piece.loop else tuple(chain(*piece.spans.values()))


def check_tokens(program: Program, arch: Arch, batch: int, steps: int) -> None:
    """Raises UserError where engines wait for tokens that never come, also where engines hand over step by step, whose
    clock goes without; and where tokens are all that they wait for, if one does not wait for what it needs. Two rounds
    of samples, of a few chunks each, show it."""
    longest = max((int(ins["limit"]) for ins in program.sections[0].code if ins.mnemonic == "chunks"), default=steps)
    few = min(steps, CHECKED_CHUNKS * longest)
    found = timed_by_tokens(program, arch, min(batch, 2 * rounds_of(program).together), few)
    if not arch.array.handover_steps:
        check_races(program, arch.memory.word_bits, few, [op for op, *_ in found], [run for _, run, _ in found])


def timed_by_tokens(program: Program, arch: Arch, batch: int, steps: int) -> list[tuple[Op, Run, Cost]]:
    """When every op runs where engines wait for tokens alone, and what it costs."""
    asked = _Asked(program, arch, batch, steps)
    return list(_ops(asked, _queued(asked)))


def _handed_over(asked: _Asked, account: Account | None) -> Iterator[Timed]:
    """Engines that hand over step by step (see `handover`). Tokens say nothing there. Chunks that do what those before
    them did are left out where there is an `account` to which they can be added."""
    program, arch, steps = asked.program, asked.arch, asked.steps
    columns = Columns.of(program.sections[0].code)
    handover = Handover(arch, conflicts(program, arch, steps, columns), most_blocks(program, arch, steps))
    ahead = Ahead(program, steps)
    again = None if account is None else Repetition(handover, account, ahead)
    plans = Plans(program, handover, Prices(program, arch, steps), columns, tokens=False)
    for piece in pieces(program, asked.batch, steps, ahead):
        if piece.loop and again is not None:
            again.look(piece)
        plan = plans.of(piece, _kind(piece, ahead))
        yield Timed(piece.sample, plan, *handover.place(plan.instructions, plan.jobs))


def _ops(asked: _Asked, timed: Iterable[Timed]) -> Iterator[tuple[Op, Run, Cost]]:
    """The same op by op, every chunk of it."""
    ops, end = dispatch(asked.program, asked.batch, asked.steps, shadow=asked.arch.array.shadow), 0
    for _, plan, begun, finished in timed:
        runs = iter(zip(plan.engines, plan.costs, begun.tolist(), finished.tolist(), strict=True))
        for op in islice(ops, plan.issued):
            if op.ins.mnemonic == "sync" and plan.waits:
                yield op, Run(op.engine, end, end), waiting(op.engine)
            else:
                engine, cost, start, finish = next(runs)
                end = max(end, finish)
                yield op, Run(engine, start, finish), cost


def _stuck(program: Program, deadlock: Deadlock, instructions: Ints) -> Exception:
    """The trap that names the waiting engines; `instructions` are those of the ops."""
    lines, places = [], []
    for op, engine, lacking in deadlock.waiting:
        places.append(place := int(instructions[op]))
        ins = program.sections[0].code[place]
        source = program.source(ins)
        layer = f", layer '{source.layer}'" if source else ""
        what = f"for a token from {' and '.join(lacking)}" if lacking else "for the array's registers"
        lines.append(f"{engine} waits {what} at instruction {place} ({ins.mnemonic}{layer})")
    return trap(
        program,
        min(places),
        "deadlock: engines wait for tokens that never come",
        "\n       ".join(lines),
        "give every 'pop' a 'push' of the engine that it names, earlier in the program",
    )


def _stats(account: Account, asked: _Asked, batch: int) -> Stats:
    arch, program = asked.arch, asked.program
    end, ideal = account.cycles, program.meta.get("numbers") == "ideal"
    elements = arch.array.rows * arch.array.cols
    rows = []
    total, every = 0.0, Counter[str]()
    for loc, layer in sorted(account.layers.items(), key=lambda item: -1 if item[0] is None else item[0]):
        seconds = layer.cycles / arch.clock_hz
        paid = layer.events()
        energy = joules(paid, seconds, arch, ideal=ideal)
        total += energy
        every.update(paid)
        # a layer whose passes run beside others' adds less to the run than they last
        used = layer.macs / (max(layer.cycles, layer.passes) * elements) if layer.cycles and layer.on_array else None
        source = None if loc is None else program.locs[loc]
        name, op, nodes = (source.layer, source.op, source.onnx_nodes) if source else ("setup", "setup", ())
        rows.append(LayerStats(name, nodes, op, layer.cycles, seconds, energy, used))
    notes: dict[str, Any] = {
        "breakdown_joules": breakdown(every, end / arch.clock_hz, arch, ideal=ideal),
    }
    return Stats(
        target="epochcore",
        arch=arch.name,
        cycles=end,
        seconds=end / arch.clock_hz,
        energy_joules=total,
        instructions=account.issued,
        macs=sum(layer.macs for layer in account.layers.values()),
        batch=batch,
        steps=asked.steps,
        layers=tuple(rows),
        notes=notes,
    )
