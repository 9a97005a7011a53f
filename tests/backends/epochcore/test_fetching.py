"""Parameters of which the memory does not hold all: what stays, what takes turns, and how often it comes from DRAM."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import load_arch
from backends.epochcore.clock.timing import measure
from backends.epochcore.lower.draft import Draft, Param
from backends.epochcore.lower.fetching import place_params
from ssmc.diagnostics import Misfit
from tests.backends.epochcore.test_costs import with_changes
from tests.backends.epochcore.test_placement import WIDTH, blocks

LOOP, BEFORE = 1, 0
PLAIN = load_arch("tpu-like-128")


def draft(words: int, sizes: dict[int, list[int]]) -> Draft:
    """Passes of a stage with parameters of so many words each, in a memory of so many words."""
    made = Draft(with_changes(PLAIN, memory__parameter_words=words))
    for stage, each in sizes.items():
        for number, size in enumerate(each):
            name = f"{stage}.{number}"
            made.data[name] = np.zeros(size)
            made.emit(stage, "preload", src=Param(name))
    return made


def moved(made: Draft, stage: int, turns: int) -> list[list[int]]:
    """By turn, the passes whose parameters come, each over what lay there before."""
    places, _ = place_params(made, lambda loop: True)
    lying: dict[int, tuple[int, int]] = {}  # by pass, the words that are there
    found: list[list[int]] = []
    for _ in range(turns):
        found.append([])
        for number, step in enumerate(made.blocks[stage]):
            name = f"{stage}.{number}"
            low = places[step.number, name]
            high = low + made.data[name].size
            assert low >= 0 and high <= made.arch.memory.parameter_words
            if lying.get(number) != (low, high):
                lying = {n: (a, b) for n, (a, b) in lying.items() if b <= low or high <= a}
                lying[number] = (low, high)
                found[-1].append(number)
    return found


def test_what_fits_a_loop_comes_once() -> None:
    made = draft(100, {LOOP: [30, 30, 30], 3: [20, 20]})
    assert moved(made, LOOP, 3) == [[0, 1, 2], [], []] and moved(made, 3, 3) == [[0, 1], [], []]


def test_of_what_does_not_fit_half_of_the_memory_stays() -> None:
    made = draft(80, {LOOP: [10] * 16})
    first, *others = moved(made, LOOP, 4)
    assert first == list(range(16)) and all(len(some) == 12 for some in others)
    assert all(b - a <= 2 for a, b in zip(others[0], others[0][1:], strict=False))  # at even distances
    places, _ = place_params(made, lambda loop: True)
    at = [places[step.number, f"{LOOP}.{n}"] for n, step in enumerate(made.blocks[LOOP])]
    assert at[others[0][0]] not in [at[n] for n in others[0][-3:]]  # the next turn begins in the place of the oldest


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(80, 300))
def test_parameters_lie_within_the_memory_and_what_fits_stays(sizes: list[int], words: int) -> None:
    made = draft(words, {BEFORE: sizes[:3], LOOP: sizes})
    first, second, third = moved(made, LOOP, 3)
    assert first == list(range(len(sizes))) and second == third
    if sum(sizes) <= words:
        assert not second


def test_a_pass_that_half_of_the_memory_does_not_hold() -> None:
    with pytest.raises(Misfit, match="half of the parameter memory"):
        place_params(draft(100, {LOOP: [51, 60]}), lambda loop: True)


def test_a_loop_of_several_chunks_fetches_its_parameters_once() -> None:
    """Where those of a loop fit, only streams add to what longer sequences move to and from DRAM."""
    graph = blocks(3, 400)
    graph.attributes["schedule"] = {"steps": 400, "form": "scan", "directions": "apart", "dataflow": "weights"}
    small = {"memory__scratchpad_words": 9000, "memory__parameter_words": 2 * WIDTH**2, "memory__stream_words": 0}
    arch = with_changes(PLAIN, **small)
    program = BACKEND.lower(graph, arch, ideal=True)
    code = program.sections[0].code
    constants = {ins["src"] for ins in code if ins.mnemonic == "fetch"}
    assert sum(program.data[str(name)].size for name in constants) > arch.memory.parameter_words
    assert 2 * max(int(ins["limit"]) for ins in code if ins.mnemonic == "chunks") < 200
    moving = (ins for ins in code if ins.mnemonic in ("load", "store") and ins["steps"] == "n0")
    each = 4 * sum(int(ins["words"]) for ins in moving)
    (short, _), (long, _) = (measure(program, arch, 1, steps) for steps in (200, 400))
    more = long.notes["breakdown_joules"]["dram_bytes"] - short.notes["breakdown_joules"]["dram_bytes"]
    assert more / arch.energy.dram_joules_per_byte == pytest.approx(200 * each)
