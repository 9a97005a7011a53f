"""Room for what comes from DRAM: a stream that a loop reads early and late is copied for those who read it late.

A chunk of a loop over time is loaded into the place of the chunk before, block by block as that is given up. A residual
is given up only by the last instructions of a chunk, so that the next one would wait for DRAM at its beginning; with
the copy the load is as far ahead as those who read it early allow.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from backends.epochcore.lower.assembly import Assembly
from backends.epochcore.lower.draft import Buffer, Draft, Ref, Step
from backends.epochcore.lower.flow import is_loop
from backends.epochcore.lower.objective import best
from backends.epochcore.program.passes import PASSES
from ssmc.diagnostics import Misfit


def fastest(made: Assembly) -> Assembly:
    """The program as it is or with copies, whichever serves sequences best that are as long as those that forms are
    chosen for. There is a choice where these are longer than a chunk; `schedules` in the program's data tells it."""
    steps, draft = made.low.request.steps, with_copies(made.draft)
    if draft is made.draft:
        return made
    chunks = [int(ins["limit"]) for ins in made.to_time.sections[0].code if ins.mnemonic == "chunks"]
    if steps <= min(chunks):
        return made
    found = {"residuals where they were loaded": made}
    other = replace(made, draft=draft)
    with suppress(Misfit):
        if other.costs:
            found["residuals copied"] = other
    chosen = list(found)[best([other.costs for other in found.values()], made.low.request.objective)]
    told = (other.told("residuals", name, chosen=name == chosen) for name, other in found.items())
    found[chosen].schedules = tuple(told)
    return found[chosen]


def with_copies(draft: Draft) -> Draft:
    """The draft with what its loops read early and late copied; `draft` itself where there is no such thing."""
    blocks = {stage: _copied(draft, steps) if is_loop(stage) else steps for stage, steps in draft.blocks.items()}
    return draft if blocks == draft.blocks else replace(draft, blocks=blocks)


def _copied(draft: Draft, steps: list[Step]) -> list[Step]:
    found = list(steps)
    for load in steps:
        if load.mnemonic != "load" or load.operands["steps"] == "one":
            continue
        buffer: Buffer = load.operands["dst"].buffer
        late = _late(found, buffer)
        if not late:
            continue
        copy, words = Buffer(buffer.words, buffer.loop, buffer.every), buffer.words
        for index in late:
            found[index] = _redirected(found[index], buffer, copy)
        fields = {"words": words, "dst_pitch": words, "src_pitch": words, "src_held": False}
        where = {"dst": copy.at(), "src": buffer.at(), "steps": load.operands["steps"]}
        found.insert(found.index(load) + 1, draft.step("copy", {**where, **fields}, load.loc))
    return found


def _late(steps: list[Step], buffer: Buffer) -> list[int]:
    """Who reads what is loaded into `buffer` after passes over the array that follow its last pass."""
    readers = [index for index, step in enumerate(steps) if step.mnemonic != "load" and _reads(step, buffer)]
    passes = [index for index, step in enumerate(steps) if step.mnemonic in PASSES]
    early = [index for index in passes if index in readers]
    after = [index for index in passes if early and index > early[-1]]
    return [index for index in readers if after and index > after[0]]


def _reads(step: Step, buffer: Buffer) -> bool:
    return any(isinstance(value, Ref) and value.buffer is buffer for value in step.operands.values())


def _redirected(step: Step, buffer: Buffer, copy: Buffer) -> Step:
    operands = {
        name: Ref(copy, value.offset) if isinstance(value, Ref) and value.buffer is buffer else value
        for name, value in step.operands.items()
    }
    return replace(step, operands=operands)
