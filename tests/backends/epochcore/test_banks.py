"""Banks of the scratchpad: against one that serves its words cycle by cycle, and what conflicts cost."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.epochcore.arch import Arch, arch_text, load_arch, parse_arch
from backends.epochcore.banks import beats, jumping
from backends.epochcore.clock.array import through_ports
from backends.epochcore.clock.cost import Context
from backends.epochcore.clock.pricing import RULES
from backends.epochcore.stepped.ports import reserved
from backends.epochcore.stepped.ports import served as in_cycles
from ssmc.diagnostics import UserError
from tests.backends.epochcore.test_costs import ins, with_changes

SMALL = load_arch("epochcore-small")


def banked(width: int, banks: int, ports: int) -> Arch:
    return SMALL.model_copy(
        update={
            "vector": SMALL.vector.model_copy(update={"width": width}),
            "memory": SMALL.memory.model_copy(update={"banks": banks, "bank_ports": ports}),
        }
    )


def served(places: list[int], pitch: int, steps: int, arch: Arch) -> int:
    """Cycles for all rows, word by word: a bank gives `ports` words in a cycle."""
    width, cycles = arch.vector.width, 0
    rows = max(1, width // len(places))
    for first in range(0, steps, rows):
        wanted = [r * pitch + p for r in range(first, min(first + rows, steps)) for p in places]
        for start in range(0, len(wanted), width):
            waiting = set(wanted[start : start + width])
            while waiting:
                given, cycles = Counter[int](), cycles + 1
                for word in sorted(waiting):
                    if given[word % arch.memory.banks] < arch.memory.bank_ports:
                        given[word % arch.memory.banks] += 1
                        waiting.discard(word)
    return cycles


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=12),
    st.integers(0, 20),
    st.integers(1, 9),
    st.integers(1, 8),
    st.integers(1, 8),
    st.integers(1, 3),
)
def test_words_are_served_bank_by_bank(
    places: list[int], pitch: int, steps: int, width: int, banks: int, ports: int
) -> None:
    arch = banked(width, banks, ports)
    assert beats([jumping(np.array(places), pitch)], steps, arch) == served(places, pitch, steps, arch)


@given(st.integers(1, 5), st.integers(1, 20), st.integers(1, 9), st.integers(0, 9), st.integers(1, 3))
def test_ports_are_reserved_for_the_worst_of_banks(copies: int, words: int, port: int, banks: int, ports: int) -> None:
    """As many cycles as it takes to serve runs that all begin in one bank, and enough wherever they begin."""
    arch = banked(1, max(banks, port) if banks else 0, ports)
    assert through_ports(copies, arch, words, port) == reserved(copies, words, port, arch)
    runs = [(0, 7 * n * n + w) for n in range(copies) for w in range(words)]
    assert max(in_cycles(runs, port, arch)) < reserved(copies, words, port, arch)


def test_words_in_a_row_never_wait() -> None:
    arch = banked(16, 16, 1)
    for words, cycles in ((1, 7), (5, 34), (16, 100), (40, 300)):
        assert beats([jumping(np.arange(words), words)], 100, arch) == cycles


def test_a_column_waits_for_its_bank() -> None:
    """One word of each of 16 rows of 16 words: all in one bank."""
    copy = {"dst": 0, "dst_pitch": 1, "src": 0, "src_pitch": 16, "words": 1, "steps": "n0", "src_held": False}
    apart, together = (
        RULES["copy"](ins("copy", **copy), Context(with_changes(SMALL, memory__banks=n), 16, None, {})).cycles
        for n in (0, 16)
    )
    assert together - apart == 15


def test_another_order_waits_where_it_jumps() -> None:
    data = {"swap": np.arange(32).reshape(16, 2).T.ravel(), "same": np.arange(32)}
    cycles = {}
    for name in data:
        gather = ins("gather", dst=0, src=0, index=name, src_pitch=32, words=32, steps="n0")
        cycles[name] = RULES["gather"](gather, Context(SMALL, 3, None, {}, 0, data)).cycles
    # the even words lie in every second bank, two in each: a cycle more for each of two groups a step
    assert cycles["swap"] - cycles["same"] == 3 * 2


def test_banks_must_feed_the_ports() -> None:
    with pytest.raises(UserError, match="the scratchpad's banks give 8 words a cycle"):
        parse_arch(arch_text(SMALL).replace("banks: 16", "banks: 8"))
