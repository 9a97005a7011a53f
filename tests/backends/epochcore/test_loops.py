"""Which loops over time ops are in, on arrays that hold no states: states and matrices crowd each other there."""

from __future__ import annotations

from typing import Any

import pytest

from backends.epochcore.arch import load_arch
from backends.epochcore.lower.flow import SYSTEMS, WORDS, is_backward, is_loop, plan_flow
from tests.backends.epochcore.test_costs import with_changes
from tests.backends.epochcore.test_placement import blocks, check

PLAIN = load_arch("tpu-like-128")
STEPS = 1000


def test_states_and_the_matrices_around_them_are_in_loops_of_their_own() -> None:
    graph = blocks(3, STEPS)
    together, apart = (plan_flow(graph, choice).stage for choice in (WORDS, SYSTEMS))
    kinds: dict[int, set[str]] = {}
    for name, stage in apart.items():
        if graph.op(name).name in ("tile.ssm", "tile.matmul"):
            assert is_loop(stage)
            kinds.setdefault(stage, set()).add(graph.op(name).name)
        if graph.op(name).name == "tile.ssm":
            assert is_backward(stage) == graph.op(name)["reverse"]
    assert all(len(some) == 1 for some in kinds.values())
    assert len(kinds) == 9  # forward, backward and a matrix, in each of three layers
    assert any(
        {graph.op(n).name for n, s in together.items() if s == stage} >= {"tile.ssm", "tile.matmul"}
        for stage in set(together.values())
    )


@pytest.mark.parametrize("words", [3000, 100_000])
def test_loops_are_cut_where_that_is_faster(words: int) -> None:
    """In a small scratchpad chunks are short: matrices wait for their weights, while states wait for nothing."""
    graph = blocks(1, STEPS)
    graph.attributes["schedule"] = {"steps": STEPS, "window": 16}
    program = check(graph, with_changes(PLAIN, memory__scratchpad_words=words), STEPS)
    told: Any = program.meta["schedules"]
    loops = {line["schedule"]: line for line in told if line["choice"] == "loops"}
    ways = ("steps where fewest words go through DRAM", "states and matrices in loops of their own")
    costs = [loops[way]["cycles"] for way in ways]
    assert loops[ways[costs[1] < costs[0]]]["chosen"]
