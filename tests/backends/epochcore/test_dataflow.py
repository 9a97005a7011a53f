"""What stays in the array, weights or results: chosen for the whole program, the same numbers either way."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, load_arch
from backends.epochcore.clock.timing import measure
from isa import Program
from ssmc.diagnostics import UserError
from ssmc.ir import Graph, Piece, SequenceType, StreamType, Tensor, interpret
from ssmc.target import RunSettings
from tests.backends.epochcore.test_costs import with_changes

OURS = load_arch("epochcore-128")
PLAIN = load_arch("tpu-v1-256")
WIDE = 640


def graph(*widths: int, stream: bool = False, steps: int = 1) -> Graph:
    """Matrices one after the other."""
    rng, g = np.random.default_rng(0), Graph()
    kind = StreamType((widths[0],)) if stream else SequenceType((widths[0],))
    x = g.add("input", [], {"name": "x", "type": kind}, name="x")
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        weight = Tensor(rng.standard_normal((inputs, outputs)) / np.sqrt(inputs))
        attrs = {"weight": weight, "bias": Tensor(rng.standard_normal(outputs))}
        pieces = (Piece(0, inputs, 0, outputs),)
        x = g.add("tile.matmul", [x], {**attrs, "pieces": pieces}, name=f"layer{number}")
    g.add("output", [x], {"name": "y"})
    g.attributes["schedule"] = {"steps": steps}
    return g


def asked(g: Graph, dataflow: str) -> Graph:
    other = g.copy()
    other.attributes["schedule"] = {**g.attributes["schedule"], "dataflow": dataflow}
    return other


def modes(program: Program) -> set[str]:
    return {str(ins["mode"]) for ins in program.sections[0].code if ins.mnemonic == "preload"}


def chosen(program: Program) -> str:
    told: Any = program.meta["schedules"]
    (best,) = (s for s in told if s["chosen"])
    assert best["cycles"] == min(s["cycles"] for s in told)
    return str(best["schedule"])


def cycles(program: Program, arch: Arch, steps: int) -> int:
    found = measure(program, arch, 1, steps)[0].cycles
    assert found is not None
    return found


@pytest.mark.parametrize("ideal", [True, False])
@pytest.mark.parametrize(
    ("widths", "stream", "steps", "expected"),
    [
        # a head over what was pooled: its passes would wait for each other's sums
        ((WIDE, 10), False, 1, "results in place: layer0"),
        ((WIDE, 10), True, 5, "results in place: layer0"),
        # a step of a model: passes over other columns in between
        ((WIDE, WIDE, WIDE), True, 1, "weights in place, rows first: layer0, layer1"),
        ((512, 512, 10), True, 4, "weights in place, rows first: layer0; results in place: layer1"),
    ],
)
def test_short_sequences_do_not_wait_for_sums(
    widths: tuple[int, ...], stream: bool, steps: int, expected: str, ideal: bool
) -> None:
    g = graph(*widths, stream=stream, steps=steps)
    program, usual = (BACKEND.lower(other, OURS, ideal=ideal) for other in (g, asked(g, "weights")))
    assert chosen(program) == expected
    assert cycles(program, OURS, steps) < 0.9 * cycles(usual, OURS, steps)
    x = {"x": np.random.default_rng(1).standard_normal((2, steps, widths[0]) if stream else (2, widths[0]))}
    y, y_usual = (BACKEND.simulate(p, x, RunSettings()).outputs["y"] for p in (program, usual))
    expected_y = interpret(g, x)["y"]
    np.testing.assert_allclose(y, expected_y, rtol=0, atol=(1e-11 if ideal else 0.03) * np.abs(expected_y).max())
    # an input has the exponent of the largest one of its pass, and a longer pass has more of them
    np.testing.assert_allclose(y, y_usual, rtol=0, atol=(1e-12 if ideal else 1e-4) * np.abs(expected_y).max())


@pytest.mark.parametrize(
    ("widths", "steps"), [((128, 256), 1), ((256, 512), 4000), ((512, 10), 4000), ((128, 10), 1), ((1024, 1024), 512)]
)
def test_nothing_is_compared_where_nothing_can_be_gained(widths: tuple[int, ...], steps: int) -> None:
    program = BACKEND.lower(graph(*widths, stream=True, steps=steps), OURS, ideal=False)
    assert modes(program) == {"mac"} and not compared(program)


def compared(program: Program) -> bool:
    schedules: Any = program.meta.get("schedules", ())
    return any(made["choice"] == "matrix products" for made in schedules)


def test_weights_that_take_long_to_come_in() -> None:
    """Without shadow registers, and where weights come in over few ports, which results in place wait for, too."""
    slow, narrow = with_changes(OURS, array__shadow=False), with_changes(OURS, array__port_words_in=8)
    g = graph(700, 130, stream=True, steps=5)
    for arch in (slow, narrow):
        program, usual = (BACKEND.lower(other, arch, ideal=True) for other in (g, asked(g, "weights")))
        told: Any = program.meta["schedules"]
        assert {s["schedule"].split(":")[0] for s in told} >= {"weights in place", "results in place"}
        assert cycles(program, arch, 5) < cycles(usual, arch, 5)


def test_the_pipeline_may_ask() -> None:
    g = graph(300, 200, 10, stream=True, steps=2000)
    for dataflow, expected in (("results", {"mac.os"}), ("weights", {"mac"}), ("weights-by-rows", {"mac"})):
        program = BACKEND.lower(asked(g, dataflow), OURS, ideal=True)
        assert modes(program) == expected and not compared(program)
    with pytest.raises(UserError, match="no dataflow is called 'inputs'"):
        BACKEND.lower(asked(g, "inputs"), OURS, ideal=True)
    with pytest.raises(UserError, match="cannot keep results in place"):
        BACKEND.lower(asked(g, "results"), PLAIN, ideal=True)


def test_what_a_matrix_does_not_hold_is_not_multiplied() -> None:
    """Blocks on a diagonal: results in place sum up the terms of their columns only."""
    g = graph(1024, 256, steps=1)
    pieces = (Piece(0, 512, 0, 128), Piece(512, 1024, 128, 256))
    weight = np.random.default_rng(2).standard_normal((1024, 256)) / 32
    weight[512:, :128] = weight[:512, 128:] = 0
    g.set_op("layer0", g.op("layer0").with_attrs(weight=Tensor(weight), pieces=pieces))
    program = BACKEND.lower(asked(g, "results"), OURS, ideal=True)
    loads = [ins for ins in program.sections[0].code if ins.mnemonic == "preload"]
    assert [(int(ins["rows"]), int(ins["cols"])) for ins in loads] == [(512, 128), (512, 128)]
    x = {"x": np.random.default_rng(3).standard_normal((2, 1024))}
    np.testing.assert_allclose(
        BACKEND.simulate(program, x, RunSettings()).outputs["y"], interpret(g, x)["y"], rtol=1e-9
    )


@pytest.mark.parametrize("ideal", [True, False])
def test_an_array_that_keeps_results_only(ideal: bool) -> None:
    arch = with_changes(load_arch("epochcore-small"), array__modes=["mac.os", "fri"])
    g = graph(40, 20, 3, stream=True, steps=9)
    program = BACKEND.lower(g, arch, ideal=ideal)
    assert modes(program) == {"mac.os"}
    x = {"x": np.random.default_rng(1).standard_normal((2, 9, 40))}
    y, expected = BACKEND.simulate(program, x, RunSettings()).outputs["y"], interpret(g, x)["y"]
    np.testing.assert_allclose(y, expected, rtol=0, atol=(1e-11 if ideal else 0.03) * np.abs(expected).max())
    with pytest.raises(UserError, match="cannot keep weights in place"):
        BACKEND.lower(asked(g, "weights"), arch, ideal=True)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dataflow", ["weights-by-rows", "weights"])
def test_the_first_columns_may_be_missing_in_the_first_rows(dataflow: str, stream: bool) -> None:
    """A matrix with holes: by rows its first piece is not where a row of the result begins."""
    rng, g = np.random.default_rng(0), Graph()
    x = g.add("input", [], {"name": "x", "type": (StreamType if stream else SequenceType)((4,))}, name="x")
    weight = rng.standard_normal((4, 5))
    weight[:3, :3] = 0.0
    pieces = (Piece(0, 3, 3, 5), Piece(3, 4, 0, 3), Piece(3, 4, 3, 5))
    y = g.add("tile.matmul", [x], {"weight": Tensor(weight), "bias": None, "pieces": pieces}, name="layer")
    g.add("output", [y], {"name": "y"})
    g.attributes["schedule"] = {"steps": 1, "dataflow": dataflow}
    given = {"x": rng.standard_normal((2, 7, 4) if stream else (2, 4))}
    program = BACKEND.lower(g, OURS, ideal=True)
    np.testing.assert_allclose(BACKEND.simulate(program, given, RunSettings()).outputs["y"], given["x"] @ weight)
