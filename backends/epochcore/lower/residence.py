"""Streams between two loops over time: how much of them stays on the chip."""

from __future__ import annotations

from collections.abc import Sequence

from backends.epochcore.lower.draft import Draft
from backends.epochcore.lower.lowering import Stream


def on_chip_steps(draft: Draft, streams: Sequence[Stream]) -> int:
    """How many steps of every stream that one loop leaves to another have room in `memory.stream_words`.

    A stream lives from the loop that writes it to the last one that reads it. The steps that stay are those that its
    loop writes last: where the next loop goes the other way it reads them first, with no DRAM in between. In the last
    loop that reads them they are given up before, or one by one as, those of the streams written there come: what must
    fit is what is alive between any two loops.
    """
    written: dict[int, int] = {}
    read: dict[int, int] = {}
    for stage, steps in draft.blocks.items():
        for step in steps:
            if step.mnemonic == "store":
                written[int(step.operands["dst"])] = stage
            elif step.mnemonic == "load":
                number = int(step.operands["src"])
                read[number] = max(read.get(number, stage), stage)
    spilled = [(n, s.words) for n, s in enumerate(streams) if s.kind == "spill" and n in written and n in read]
    alive = [sum(words for n, words in spilled if written[n] <= stage < read[n]) for stage in draft.blocks]
    return draft.arch.memory.stream_words // max([1, *alive])
