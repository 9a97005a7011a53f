"""What a plan tells of its instructions beyond their order: which follow each other step by step, and which streams a
loop is the last to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from backends.epochcore.simulate.buffers import Slot
from backends.epochcore.simulate.plan import Do, Item, Loop, Rows

# Each step of their results depends on the same step of their operands alone.
BY_STEP = frozenset(
    ("mac", "unary", "binary", "gate", "select", "norm", "reduce", "softmax", "copy", "gather", "contract", "lookup")
)
MOVES = frozenset(("load", "store"))
PRODUCT = 8  # operations elsewhere that a word of a product counts as (ours: how many terms it has is not looked at)
Results = Mapping[int, Mapping[int, Slot]]


def refined(items: Sequence[Item], kept: set[int], results: Results) -> tuple[Item, ...]:
    """The items, those of loops gathered into `Rows` where `results` tells of them; loops say which streams they are
    the last to read, but for those that are `kept`."""
    last: dict[int, int] = {}
    for place, item in enumerate(items):
        for do in item.body if isinstance(item, Loop) else (item,):
            if isinstance(do, Do) and do.ins.mnemonic == "load":
                last[int(do.ins["src"])] = place
    found: list[Item] = []
    for place, item in enumerate(items):
        if isinstance(item, Loop) and item.ins.mnemonic == "samples":
            item = replace(item, body=refined(item.body, kept, results))
        elif isinstance(item, Loop):
            spent = tuple(number for number, at in last.items() if at == place and number not in kept)
            item = replace(item, body=_gathered(item.body, results), spent=spent)
        found.append(item)
    return tuple(found)


def _gathered(items: Sequence[Item], results: Results) -> tuple[Item, ...]:
    """Neighbours whose steps are independent as one item."""
    found, run = list[Item](), list[Do]()
    for item in (*items, None):
        if isinstance(item, Do) and _by_step(item, results) and not _reads(item, run):
            run.append(item)
            continue
        # a transfer alone is no work
        if len(run) > 1 and any(do.ins.mnemonic in BY_STEP for do in run):
            found.append(Rows(tuple(run), sum(_work(do, results) for do in run)))
        else:
            found += run
        run = []
        if isinstance(item, Do) and _by_step(item, results):
            run.append(item)
        elif item is not None:
            found.append(item)
    return tuple(found)


def _by_step(do: Do, results: Results) -> bool:
    return bool(results) and do.ins.operands.get("steps") == "n0" and do.ins.mnemonic in BY_STEP | MOVES


def _reads(do: Do, run: Sequence[Do]) -> bool:
    """Whether it loads what has just been stored, which may be other steps."""
    stored = {int(other.ins["dst"]) for other in run if other.ins.mnemonic == "store"}
    return do.ins.mnemonic == "load" and int(do.ins["src"]) in stored


def _work(do: Do, results: Results) -> int:
    words: int = sum(slot.pitch for slot in results.get(do.index, {}).values())
    return words * PRODUCT if do.ins.mnemonic == "mac" else words
