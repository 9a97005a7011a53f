"""Arrows of a trace: which push released which pop."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pytest

from backends.epochcore import BACKEND
from backends.epochcore.arch import load_arch
from backends.epochcore.program.dispatch import POPS
from ssmc.ir import Graph, Piece, StreamType, Tensor
from ssmc.target import RunSettings
from tests.backends.epochcore.test_costs import with_changes


@pytest.mark.parametrize("shadow", [True, False])
@pytest.mark.parametrize("handover", [0, 16])
def test_an_arrow_goes_from_the_slice_that_pushes_to_the_one_that_pops(handover: int, shadow: bool) -> None:
    changes = {"array__handover_steps": handover, "array__shadow": shadow, "memory__scratchpad_words": 2048}
    arch, graph = with_changes(load_arch("epochcore-small"), **changes), Graph()
    value = graph.add("input", attrs={"name": "x", "type": StreamType((20,))})
    for n in range(2):
        attrs = {"weight": Tensor(np.ones((20, 20)) / 20), "pieces": (Piece(0, 16, 0, 16), Piece(16, 20, 0, 16))}
        attrs["pieces"] += (Piece(0, 16, 16, 20), Piece(16, 20, 16, 20))
        value = graph.add("unary", [graph.add("tile.matmul", [value], attrs, name=f"m{n}")], {"fn": "gelu"})
    graph.add("output", [value], {"name": "y"})
    program = BACKEND.lower(graph, arch, ideal=True)
    run = BACKEND.simulate(program, {"x": np.ones((2, 300, 20))}, RunSettings(trace=True))
    cycle, code = 1e6 / arch.clock_hz, program.sections[0].code
    slices = [event for event in run.trace if event["ph"] == "X"]
    arrows: defaultdict[int, dict[str, dict[str, float]]] = defaultdict(dict)
    for event in run.trace:
        if event["ph"] in "sf":
            assert set(event) - {"bp"} == {"name", "cat", "id", "pid", "ph", "ts", "tid"}
            assert (event["ph"] == "f") == (event.get("bp") == "e")  # it is bound to the slice that it lies in
            assert event["ph"] not in arrows[event["id"]]
            arrows[event["id"]][event["ph"]] = event  # type: ignore[assignment]
    assert arrows and all(set(ends) == {"s", "f"} for ends in arrows.values())
    came = defaultdict(set)
    for ends in arrows.values():
        source, target = (_around(slices, ends[end]) for end in ("s", "f"))
        assert ends["s"]["ts"] <= ends["f"]["ts"] == target["ts"]
        came[id(target)].add(source["cat"])
        if not handover:  # there a token is given at the end
            assert source["ts"] + source["dur"] <= target["ts"] + 1e-9 * cycle
    if not handover:
        for one in slices:
            ins = code[one["args"]["index"]]
            assert came[id(one)] == {engine for engine, name in POPS if name in ins.operands and ins[name]}
    others = [event for event in run.trace if event["ph"] not in "sf"]
    assert len(json.dumps(run.trace)) < 2.5 * len(json.dumps(others))


def _around(slices: list[dict[str, float]], end: dict[str, float]) -> dict[str, float]:
    (found,) = (s for s in slices if s["tid"] == end["tid"] and s["ts"] <= end["ts"] < s["ts"] + s["dur"] - 1e-9)
    return found
