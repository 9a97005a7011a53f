"""Instructions to a program: addresses, tokens, and what the program file says beside its code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from backends.epochcore.arch import arch_text
from backends.epochcore.lower.draft import Draft
from backends.epochcore.lower.lowering import Lowering
from backends.epochcore.lower.placement import Chunks, place
from backends.epochcore.lower.residence import on_chip_steps
from backends.epochcore.program.parameters import param_words
from backends.epochcore.program.tokens import synchronised
from isa import Instruction, Port, Program, Section
from isa.epochcore import EPOCHCORE


@dataclass(eq=False)
class Assembly:
    """A lowered graph with one of the drafts of its instructions. `schedules` tells what else was compiled and timed.
    A sequence is cut into so many times `more` chunks than there is room for.

    Its properties raise Misfit where the architecture is too small.
    """

    low: Lowering
    draft: Draft
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    schedules: tuple[dict[str, Any], ...] = ()
    more: float = 1
    _of: dict[int, tuple[int, float]] = field(default_factory=dict, init=False)

    @property
    def costs(self) -> tuple[int, float]:
        """Cycles and joules of a round of sequences as long as those that forms are chosen for."""
        return self.costs_of(self.draft.together)

    def costs_of(self, batch: int) -> tuple[int, float]:
        """Cycles and joules of a batch of such sequences."""
        from backends.epochcore.clock.timing import measure

        if batch not in self._of:
            stats, _ = measure(self.to_time, self.low.arch, batch, self.low.request.steps)
            self._of[batch] = stats.cycles or 0, stats.energy_joules or 0.0
        return self._of[batch]

    def told(self, choice: str, name: str, *, chosen: bool, batch: int = 0) -> dict[str, Any]:
        """A line of `schedules`: an alternative of a `choice`, and what a batch or a round of sequences costs."""
        batch = batch or self.draft.together
        cycles, joules = self.costs_of(batch)
        costs = {"cycles": cycles, "joules": joules, "steps": self.low.request.steps, "batch": batch}
        return {"choice": choice, "schedule": name, **costs, "chosen": chosen}

    def superseded(self, by: str) -> tuple[dict[str, Any], ...]:
        """Its `schedules`, where a later choice takes another program than this one: they hold, but cost what they did
        before that."""
        return tuple({"superseded": by, **line} for line in self.schedules)

    @property
    def finished(self) -> Program:
        """The program with all that it tells."""
        told = {"schedules": list(self.schedules)} if self.schedules else {}
        return replace(self.program, meta={**self.program.meta, **told})

    @property
    def to_time(self) -> Program:
        """The program, without its tokens where engines hand over step by step: they take no time there."""
        return self._without_tokens if self.low.arch.array.handover_steps else self.program

    @cached_property
    def program(self) -> Program:
        words = {name: param_words(array, self.low.arch.memory.word_bits) for name, array in self.draft.data.items()}
        return self._program(*synchronised(self._placed.section, words))

    @cached_property
    def _without_tokens(self) -> Program:
        section = self._placed.section
        return self._program(section, range(len(section.code)))

    @cached_property
    def _placed(self) -> _Placed:
        placed = place(self.draft, _rates(self.low), Chunks(self.low.request.steps, self.more))
        addresses = tuple(buffer.address for _, buffer, _ in self.low.taps)
        return _Placed(placed.builder.build(), placed.position, addresses)

    def _program(self, section: Section, moved: Sequence[int]) -> Program:
        low, draft = self.low, self.draft
        on_chip = on_chip_steps(draft, low.streams) // draft.together
        used = sorted({ins.loc for ins in section.code if ins.loc is not None})
        number: dict[int | None, int | None] = {None: None, **{old: new for new, old in enumerate(used)}}
        locs = (number[ins.loc] for ins in section.code)
        code = tuple(
            i if i.loc == loc else Instruction(i.mnemonic, i.operands, loc)
            for i, loc in zip(section.code, locs, strict=True)
        )
        taps = zip(low.taps, self._placed.addresses, strict=True)
        meta = {
            "numbers": "ideal" if low.ideal else "integer" if low.arch.numbers.fixed else low.arch.numbers.format,
            "streams": [
                {
                    "kind": s.kind,
                    "words": s.words,
                    "register": s.register,
                    "on_chip": on_chip if s.kind == "spill" else 0,
                    "from_end": s.forward,
                    **({"part_of": list(s.part)} if s.part else {}),
                }
                for s in low.streams
            ],
            "rates": [list(map(list, rates)) for rates in low.registers],
            "taps": [
                {**tap, "at": moved[self._placed.position[step.number]], "address": address}
                for (step, _, tap), address in taps
            ],
            "step_by_step": bool(draft.single),
            "lowering": low.notes,
            "forms": {
                name: [{**a.told, "steps": low.request.steps} for a in found] for name, found in low.choices.items()
            },
        }
        return Program(
            target=EPOCHCORE.name,
            isa_version=EPOCHCORE.version,
            arch=arch_text(low.arch),
            sections=(replace(section, code=code),),
            data=draft.data,
            locs=tuple(draft.locs[old] for old in used),
            inputs=self.inputs,
            outputs=self.outputs,
            meta=meta,
        )


@dataclass(frozen=True)
class _Placed:
    """Code with addresses; where each step of the draft is in it, and where the taps are (a buffer's own address is
    that of the draft that was placed last)."""

    section: Section
    position: Mapping[int, int]
    addresses: tuple[int, ...]


def _rates(low: Lowering) -> list[dict[str, Any]]:
    """A `rate` instruction for every lower rate, the higher ones first."""
    rules = []
    for rates, register in low.registers.items():
        if rates:
            stride, offset, windows = rates[-1]
            source = low.registers[rates[:-1]]
            rules.append({"dst": register, "src": source, "stride": stride, "offset": offset, "windows": windows})
    return rules
