"""Where things lie and what is kept for whom: rows in one place, copies of residuals, streams that stay on the chip."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, load_arch
from backends.epochcore.clock.timing import measure
from backends.epochcore.lower import placement
from isa import Program
from ssmc.diagnostics import Misfit
from ssmc.ir import Graph, Piece, StreamType, Tensor, Value, interpret
from ssmc.target import RunSettings
from tests.backends.epochcore.test_costs import with_changes

LARGE = load_arch("epochcore-128")
SLOW = {"dram__bytes_per_second": 40e9}
WIDTH = 24


def blocks(layers: int, steps: int, seed: int = 0) -> Graph:
    """Bidirectional layers with a matrix, a gate and a residual each."""
    rng, graph = np.random.default_rng(seed), Graph()
    x = graph.add("input", attrs={"name": "x", "type": StreamType((WIDTH,)), "axes": "btf"}, name="x")

    def system(u: Value, reverse: bool) -> Value:
        decay = np.exp(-rng.uniform(0.1, 0.5, (WIDTH, 2)) + 1j * rng.uniform(0, 2, (WIDTH, 2)))
        c = rng.standard_normal((WIDTH, 2)) + 1j * rng.standard_normal((WIDTH, 2))
        attrs = {"decay": Tensor(decay), "b": Tensor(0.1 * np.ones((WIDTH, 2), complex)), "c": Tensor(c)}
        attrs |= {"d": Tensor(rng.standard_normal(WIDTH)), "pieces": (Piece(0, WIDTH, 0, 2),)}
        return graph.add("tile.ssm", [u], {**attrs, "reverse": reverse, "read_before": reverse})

    for _ in range(layers):
        y = graph.add("binary", [system(x, False), system(x, True)], {"fn": "add"})
        weight = Tensor(rng.standard_normal((WIDTH, WIDTH)) / WIDTH)
        dense = graph.add("tile.matmul", [y], {"weight": weight, "pieces": (Piece(0, WIDTH, 0, WIDTH),)})
        x = graph.add("binary", [x, graph.add("unary", [dense], {"fn": "tanh"})], {"fn": "add"})
    graph.add("output", [x], {"name": "y"})
    graph.attributes["schedule"] = {"steps": steps, "form": "state in place", "directions": "apart"}
    return graph


def code(program: Program) -> list[str]:
    return [ins.mnemonic for ins in program.sections[0].code]


def check(graph: Graph, arch: Arch, steps: int) -> Program:
    """The graph's program, after its numbers are those of the interpreter."""
    program = BACKEND.lower(graph, arch, ideal=True)
    x = {"x": np.random.default_rng(1).standard_normal((2, steps, WIDTH))}
    found, expected = BACKEND.simulate(program, x, RunSettings()).outputs["y"], interpret(graph, x)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    return program


def test_rows_of_different_loops_share_their_places() -> None:
    """Six layers keep no more states at a time than two loops have, where the scratchpad is small."""
    places = []
    small = with_changes(LARGE, memory__scratchpad_words=4_000)
    for layers in (2, 6):
        program = check(blocks(layers, 64), small, 20)
        loads = [ins for ins in program.sections[0].code if ins.mnemonic == "state.load"]
        assert len(loads) == 2 * layers
        places.append(len({int(ins["src"]) for ins in loads}))
    assert places[1] <= places[0] + 1 <= 5


def test_sequences_do_not_wait_for_each_other_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    program = check(blocks(2, 64), LARGE, 20)
    loads = [ins for ins in program.sections[0].code if ins.mnemonic == "state.load"]
    assert len({int(ins["src"]) for ins in loads}) == len(loads)
    monkeypatch.setattr(placement, "APART", 10**9)
    shared = check(blocks(2, 64), LARGE, 20)
    apart, together = (measure(p, LARGE, 8, 20)[0].cycles for p in (program, shared))
    assert apart is not None and together is not None and apart <= together


def test_a_residual_is_copied_where_that_is_faster() -> None:
    """Where DRAM is slow and chunks are short, the next chunk is loaded while this one is in the array."""
    slow = with_changes(LARGE, memory__scratchpad_words=30_000, memory__stream_words=0, **SLOW)
    program = check(blocks(3, 4000), slow, 300)
    found: Any = program.meta["schedules"]
    cycles = {made["schedule"]: made["cycles"] for made in found}
    (chosen,) = (made["schedule"] for made in found if made["chosen"])
    assert chosen == "residuals copied" == min(cycles, key=lambda name: cycles[name]) and "copy" in code(program)
    assert cycles[chosen] < 0.97 * max(cycles.values())
    stats, _ = measure(program, slow, 1, 4000)
    assert stats.cycles == cycles[chosen]


@pytest.mark.parametrize(("words", "steps"), [(30_000, 100), (None, 4000)])
def test_there_is_nothing_to_choose_in_one_chunk(words: int | None, steps: int) -> None:
    arch = LARGE if words is None else with_changes(LARGE, memory__scratchpad_words=words)
    program = BACKEND.lower(blocks(2, steps), arch, ideal=True)
    told: Any = program.meta.get("schedules", ())
    assert not any(made["choice"] == "residuals" for made in told) and "copy" not in code(program)


def test_what_is_written_last_stays_on_the_chip() -> None:
    """A loop that turns round reads it first: faster than with the steps that it reads last."""
    arch = with_changes(LARGE, memory__scratchpad_words=30_000, memory__stream_words=96_000, **SLOW)
    program = check(blocks(3, 4000), arch, 300)
    streams: Any = program.meta["streams"]
    assert any(s["on_chip"] and s["from_end"] for s in streams)
    other = replace(program, meta={**program.meta, "streams": [{**s, "from_end": False} for s in streams]})
    (ours, _), (theirs, _) = (measure(p, arch, 1, 4000) for p in (program, other))
    assert ours.cycles is not None and theirs.cycles is not None and ours.cycles < 0.95 * theirs.cycles


def test_parameters_of_scans_come_before_their_loop_where_there_is_no_room_for_all() -> None:
    """Those of one loop lie where those of another have been; they are loaded again for every sequence."""
    graph = blocks(4, 40)
    graph.attributes["schedule"] = {"steps": 40, "form": "scan", "directions": "apart"}
    large = with_changes(load_arch("tpu-like-128"), memory__scratchpad_words=1 << 14)
    small = with_changes(large, memory__scratchpad_words=1800)
    at_once, in_turn = (code(check(graph, arch, 40)) for arch in (large, small))
    samples = at_once.index("samples"), in_turn.index("samples")
    # a, c and d of every system; b, which all have, for every loop
    assert "const" not in at_once[samples[0] :] and in_turn[samples[1] :].count("const") == 3 * 2 * 4 + 5
    with pytest.raises(Misfit, match="constants and carried values"):
        BACKEND.lower(graph, with_changes(large, memory__scratchpad_words=600), ideal=True)
