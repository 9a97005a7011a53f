"""The page about what moves when one number of an array changes."""

from __future__ import annotations

import pytest

from benchmarks.whatif import ARCH, DEEP, PAGE, TABLES, Question, arch_name, moved, small
from ssmc.target import backend

QUESTIONS = [question for questions in TABLES.values() for question in questions]
QUICK = ("array.rows=64", "array.rows=256", DEEP, "array.modes=[mac]", "array.shadow=false", "dram.latency_cycles=1000")


@pytest.mark.parametrize("question", [q for q in QUESTIONS if q.changes in QUICK or q.batch == 4], ids=lambda q: q.told)
def test_what_the_page_says_of_the_sample_is_so(question: Question) -> None:
    """Which way cycles and energy move."""
    assert moved(small(question), small(Question())) == question.moves[:3]


def test_the_page_has_every_question() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for title, questions in TABLES.items():
        assert f"## {title}" in text and all(f"| {question.told} | " in text for question in questions)


def test_every_change_is_one() -> None:
    target = backend("epochcore")
    usual = target.load_arch(ARCH)
    for question in QUESTIONS:
        assert (target.load_arch(arch_name(question)) == usual) == (not question.changes)
