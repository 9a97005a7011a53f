"""The sequencer: a program's instructions in the order in which they enter the engines' queues, once for each time
that they are run. It costs no time, and the queues have room without limit (both ours).

It knows what goes together in the array: which preloads a pass takes over, and whose registers a preload needs. These
are bits that are full or empty in hardware, not tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.epochcore.program.rates import lower_rate, totals
from backends.epochcore.program.regions import PASSES
from backends.epochcore.program.rounds import rounds_of
from backends.epochcore.program.tokens import engine_of
from isa import Instruction, Program
from isa.epochcore_fields import ENGINES

POPS, PUSHES = (tuple((engine, f"{what}.{engine}") for engine in ENGINES) for what in ("pop", "push"))
Spans = Mapping[str, tuple[int, int]]


@dataclass(slots=True)  # not frozen, which takes several times as long to make
class Op:
    """One run of one instruction: the place of it in the code, and numbers of other ops that it depends on.

    `start` and `steps` are the span of its steps in the sequence. It begins when all of `finished` are finished and the
    first step of `passed` has left the array. `held` is the preload that the array works with. It is for so many
    `samples` at once, from `sample` on.
    """

    number: int
    index: int
    ins: Instruction
    engine: str
    sample: int
    start: int
    steps: int
    spans: Spans
    pops: tuple[str, ...]
    pushes: tuple[str, ...]
    held: Instruction | None
    finished: tuple[int, ...] = ()
    passed: int | None = None
    samples: int = 1


@dataclass
class _Registers:
    """Shadow registers of one kind: who filled them last, whether that is taken, and which pass took them."""

    filled: int | None = None
    taken: int | None = None

    def fill(self, number: int) -> int | None:
        """Returns the pass that must have taken over what was there."""
        self.filled = number
        return self.taken

    def take(self, number: int) -> tuple[int, ...]:
        """Returns the preload that must be finished."""
        if self.filled is None:
            return ()
        found, self.filled, self.taken = self.filled, None, number
        return (found,)


class Ahead:
    """What can be known of a loop's chunks before they run: how many of those that follow the one that has been
    `entered` last are `alike`; of these, `skip` are left out."""

    def __init__(self, program: Program, steps: int) -> None:
        self.entered = self.loop = self.alike = self.skip = 0
        self.number = 0  # of the chunk in its loop
        self._program, self._steps, self._total = program, steps, totals(program, steps)
        self._kinds: dict[int, list[tuple[int, ...]]] = {}

    def enters(self, loop: int, chunks: Sequence[tuple[int, int]], number: int) -> bool:
        """Whether a chunk of the loop at `loop` is to run."""
        if self.skip:
            self.skip -= 1
            return False
        if loop not in self._kinds:
            self._kinds[loop] = [self._kind(loop, *chunk) for chunk in chunks]
        kinds = self._kinds[loop]
        stop = next((n for n in range(number, len(kinds)) if kinds[n] != kinds[number]), len(kinds))
        self.entered, self.loop, self.number, self.alike = self.entered + 1, loop, number, stop - number - 1
        return True

    def _kind(self, loop: int, first: int, count: int) -> tuple[int, ...]:
        """All that costs of a chunk's instructions depend on: steps by register, and steps that stay on the chip."""
        section = self._program.sections[0]
        spans, kind = {"n0": (first, count)}, [count]
        for ins in section.code[loop + 1 : section.labels[str(section.code[loop]["end"])]]:
            if ins.mnemonic == "rate":
                spans[str(ins["dst"])] = span = _lower(ins, spans[str(ins["src"])])
                kind.append(span[1])
            elif ins.mnemonic in ("load", "store") and ins["steps"] != "one":
                kind.append(on_chip(self._program, ins, *spans[str(ins["steps"])], self._total))
        return tuple(kind)


def _lower(rate: Instruction, span: tuple[int, int]) -> tuple[int, int]:
    """A span of steps at a lower rate."""
    begin, count = span
    low = lower_rate(rate, begin)
    return low, lower_rate(rate, begin + count) - low


def on_chip(program: Program, ins: Instruction, start: int, steps: int, total: Mapping[str, int]) -> int:
    """Of a transfer of `steps` steps from `start` on those that do not leave the chip: of a stream between two loops
    that are written last."""
    if ins["steps"] == "one":
        return 0
    streams: Any = program.meta.get("streams", ())
    number = int(ins["src" if ins.mnemonic == "load" else "dst"])
    if number >= len(streams):
        return 0
    kept, whole = int(streams[number].get("on_chip", 0)), total[str(ins["steps"])]
    first = whole - kept if streams[number].get("from_end") else 0
    start = whole - start - steps if ins.operands.get("mirror") else start
    return max(0, min(start + steps, first + kept) - max(start, first))


def dispatch(program: Program, batch: int, steps: int, *, shadow: bool, ahead: Ahead | None = None) -> Iterator[Op]:
    """Ops in the program's order, for `batch` samples of `steps` steps; `shadow` as in the architecture. Chunks are
    left out as `ahead` says."""
    section = program.sections[0]
    static = [_static(ins) for ins in section.code]
    parameters, states = _Registers(), _Registers()
    coming: Instruction | None = None
    active: Instruction | None = None
    last_compute: int | None = None
    taken: tuple[int, int] = (0, 0)
    number = 0
    for sample, samples, index, spans in _runs(program, batch, steps, ahead):
        ins = section.code[index]
        engine, register, pops, pushes = static[index]
        if engine is None:
            continue
        finished: tuple[int, ...] = ()
        passed: int | None = None
        name = ins.mnemonic
        if name == "preload":
            coming, passed = ins, parameters.fill(number)
        elif name == "state.load":
            passed = states.fill(number)
        elif name in PASSES:
            if coming is not None:
                active, coming = coming, None
            finished = (*parameters.take(number), *states.take(number))
            taken = spans[register]
        if not shadow and name in ("preload", "state.load"):
            finished, passed = () if last_compute is None else (last_compute,), None
        # states go out behind the last step of a pass
        start, count = taken if name == "state.store" else spans[register]
        held = ins if name == "preload" else active or coming
        if name == "state.load":
            held = coming or active
        last_compute = number if engine == "compute" else last_compute
        yield Op(number, index, ins, engine, sample, start, count, spans, pops, pushes, held, finished, passed, samples)
        number += 1


def _static(ins: Instruction) -> tuple[str | None, str, tuple[str, ...], tuple[str, ...]]:
    """Engine, register of its steps, tokens taken and given."""
    engine, operands = engine_of(ins), ins.operands
    if engine is None:
        return None, "one", (), ()
    pops, pushes = (tuple(e for e, flag in flags if operands[flag]) for flags in (POPS, PUSHES))
    return engine, str(operands.get("steps", "one")), pops, pushes


def _runs(program: Program, batch: int, steps: int, ahead: Ahead | None) -> Iterator[tuple[int, int, int, Spans]]:
    """First sample of a round (-1 outside the loop over samples) and how many it has, place in the code, and the
    registers' spans, in the order of runs."""
    code, (first, last) = program.sections[0].code, sample_body(program)
    each = rounds_of(program).together
    rounds = [(sample, min(each, batch - sample), first, last) for sample in range(0, batch, each)]
    for sample, samples, start, end in [(-1, 1, 0, first), *rounds, (batch, 1, last, len(code))]:
        for index, spans in _walk(program, steps, start, end, ahead):
            yield sample, samples, index, spans


def even(steps: int, limit: int, multiple: int = 1) -> int:
    """Steps of a chunk: as few chunks as `limit` allows, all about the same, of whole multiples."""
    each = -(-steps // -(-steps // limit)) if steps else limit
    return -(-each // multiple) * multiple


def sample_body(program: Program) -> tuple[int, int]:
    """The code between `samples` and its label; all of it where there is none."""
    section = program.sections[0]
    for index, ins in enumerate(section.code):
        if ins.mnemonic == "samples":
            return index + 1, section.labels[str(ins["end"])]
    return 0, len(section.code)


def _walk(program: Program, steps: int, start: int, end: int, ahead: Ahead | None) -> Iterator[tuple[int, Spans]]:
    section = program.sections[0]
    spans: dict[str, tuple[int, int]] = {"one": (0, 1), "n0": (0, 0), **{f"n{i}": (0, 0) for i in range(1, 8)}}
    index = start
    while index < end:
        ins = section.code[index]
        if ins.mnemonic == "halt":
            return
        if ins.mnemonic == "chunks":
            stop, limit = section.labels[str(ins["end"])], int(ins["limit"])
            limit = even(steps, limit, int(ins["multiple"]))
            starts = range(0, steps, limit)
            chunks = [(n, min(limit, steps - n)) for n in (reversed(starts) if ins["backward"] else starts)]
            for number, chunk in enumerate(chunks):
                if ahead is not None and not ahead.enters(index, chunks, number):
                    continue
                spans = {**spans, "n0": chunk}
                for place in range(index + 1, stop):
                    inner = section.code[place]
                    if inner.mnemonic == "rate":
                        spans = {**spans, str(inner["dst"]): _lower(inner, spans[str(inner["src"])])}
                    else:
                        yield place, spans
            index = stop
            continue
        if ins.mnemonic != "samples":
            yield index, spans
        index += 1
