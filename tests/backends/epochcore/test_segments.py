"""Stretches of time at once: the same results for any length, states and direction, and only where it is faster."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, load_arch
from backends.epochcore.clock.timing import measure
from backends.epochcore.stepped import run
from isa import Program
from ssmc.ir import Graph, Piece, SequenceType, StreamType, Tensor, Value, interpret
from ssmc.target import RunSettings
from tests.backends.epochcore.test_costs import with_changes
from tests.backends.epochcore.test_forms import Shape, arrays, graph
from tests.backends.epochcore.test_stepped import PHASES
from tests.examples import examples

LARGE, SMALL = load_arch("epochcore-128"), load_arch("epochcore-small")


def segmented(program: Program) -> list[Any]:
    """What a preload says of segments, where it says any."""
    code = program.sections[0].code
    return [(int(i["segments"]), int(i["span"])) for i in code if i.mnemonic == "preload" and int(i["segments"]) > 1]


def narrow(words: int = 1 << 20, **changes: Any) -> Arch:
    """An array with more columns than rows, and ports for all of them."""
    array = {"rows": 4, "cols": 12, "port_words_in": 24, "port_words_out": 24, "complex": "native", **changes}
    parts = {f"array__{name}": value for name, value in array.items()}
    return with_changes(SMALL, memory__scratchpad_words=words, memory__banks=0, **parts)


shapes = st.builds(
    Shape,
    channels=st.integers(1, 4),
    states=st.integers(1, 7),
    is_complex=st.booleans(),
    reverse=st.booleans(),
    before=st.booleans(),
    start=st.booleans(),
    stride=st.sampled_from([1, 1, 2]),
    seed=st.integers(0, 2**16),
)


@settings(max_examples=examples(40), deadline=None)
@given(shapes, st.integers(3, 12), st.integers(0, 700), st.booleans(), st.booleans(), st.sampled_from([1, 100, 300]))
def test_segments_of_a_system_mean_the_same(
    s: Shape, number: int, steps: int, last: bool, few: bool, block: int
) -> None:
    """Any length, many chunks, states given and left, more states than rows, in both directions and at lower rates."""
    number = min(number, 12 // s.channels)
    asked = {"form": "segmented", "segments": number, "steps": 256 if few else 700}
    g = graph(s, asked, last=last)
    program, x = BACKEND.lower(g, narrow(), ideal=True), arrays(s, 2, steps)
    assert {n for n, _ in segmented(program)} == {number}
    expected = interpret(g, x)
    results = [BACKEND.simulate(program, x, RunSettings(block=n)).outputs for n in (None, block)]
    for name, value in expected.items():
        assert np.abs(results[0][name] - value).max(initial=0.0) <= 1e-11 * max(1.0, np.abs(value).max(initial=0.0))
        np.testing.assert_array_equal(results[0][name], results[1][name])


@pytest.mark.parametrize("steps", [1, 3])
def test_a_chunk_of_no_steps_leaves_the_states(steps: int) -> None:
    """At a lower rate a sequence may end before the first step."""
    s = Shape(stride=2, start=True)
    g, x = graph(s, {"form": "segmented", "segments": 3, "steps": 256}, last=True), arrays(s, 2, steps)
    found = BACKEND.simulate(BACKEND.lower(g, narrow(), ideal=True), x, RunSettings()).outputs["last"]
    np.testing.assert_allclose(found, interpret(g, x)["last"], rtol=0, atol=1e-11)


@pytest.mark.parametrize(("channels", "is_complex"), [(1, False), (3, False), (3, True)])
def test_last_states_of_several_passes(channels: int, is_complex: bool) -> None:
    """More states than the array has rows: those of one channel are in order, but not in one place."""
    s = Shape(channels=channels, states=7, is_complex=is_complex)
    g, x = graph(s, {"form": "segmented", "segments": 3, "steps": 256}, last=True), arrays(s, 2, 100)
    found = BACKEND.simulate(BACKEND.lower(g, narrow(), ideal=True), x, RunSettings()).outputs["last"]
    np.testing.assert_allclose(found, interpret(g, x)["last"], rtol=0, atol=1e-11)


@pytest.mark.parametrize("states", [2, 4])
def test_segments_share_elements_that_wait_for_their_pipelines(states: int) -> None:
    """All columns are in use: copies lie in the same elements. Where nothing waits, there are none."""
    s = Shape(channels=12, states=states)
    g, x = graph(s, {"steps": 4096}), arrays(s, 1, 4096)
    ports = {"states_per_element": 4, "port_words_in": 48, "port_words_out": 48}
    deep, shallow = (with_changes(narrow(mac_depth=n, **ports), dram__bytes_per_second=1e12) for n in (12, 1))
    program = BACKEND.lower(g, deep, ideal=True)
    found, expected = BACKEND.simulate(program, x, RunSettings()), interpret(g, x)["y"]
    assert {n for n, _ in segmented(program)} <= {3, 4} and segmented(program)
    assert np.abs(found.outputs["y"] - expected).max() <= 1e-11 * np.abs(expected).max()
    whole = BACKEND.lower(graph(s, {"steps": 4096, "form": "state in place"}), deep, ideal=True)
    assert (found.stats.cycles or 0) < 0.75 * (measure(whole, deep, 1, 4096)[0].cycles or 0)
    assert not segmented(BACKEND.lower(g, shallow, ideal=True))


@settings(max_examples=15, deadline=None)
@given(shapes, st.integers(0, 600), st.booleans())
def test_segments_of_states_with_drives_of_their_own(s: Shape, steps: int, last: bool) -> None:
    """States in one row of the array, as those of many-input systems are."""
    rng, words = np.random.default_rng(s.seed), s.channels * (2 if s.is_complex else 1)
    g = Graph("states", {"schedule": {"form": "segmented", "segments": 3, "steps": 256}})
    v = g.add("input", [], {"name": "v", "type": StreamType((words,))}, name="v")
    x, start = {"v": rng.standard_normal((2, steps, words))}, None
    if s.start:
        start = g.add("input", [], {"name": "x0", "type": SequenceType((words,)), "role": "state"}, name="x0")
        x["x0"] = rng.standard_normal((2, words))
    phase = np.exp(1j * rng.uniform(-3, 3, s.channels)) if s.is_complex else 1.0
    attrs = {"decay": Tensor(rng.uniform(0.3, 0.99, s.channels) * phase), "pieces": (Piece(0, s.channels, 0, 1),)}
    attrs |= {"reverse": s.reverse, "read_before": s.before, "asynchronous": False}
    y = g.add("tile.state", [v, None, start], attrs, name="layer")
    g.add("output", [y], {"name": "y"})
    if last:
        g.add("output", [Value("layer", 1)], {"name": "last"})
    program, expected = BACKEND.lower(g, narrow(), ideal=True), interpret(g, x)
    assert segmented(program)
    found = BACKEND.simulate(program, x, RunSettings()).outputs
    for name, value in expected.items():
        assert np.abs(found[name] - value).max(initial=0.0) <= 1e-11 * max(1.0, np.abs(value).max(initial=0.0))


def dense(widths: tuple[int, ...], asked: dict[str, Any]) -> Graph:
    """input -> matrix -> tanh -> matrix ... -> output"""
    rng, g = np.random.default_rng(1), Graph("dense", {"schedule": asked})
    x = g.add("input", [], {"name": "u", "type": StreamType((widths[0],))}, name="u")
    for n, (inputs, outputs) in enumerate(pairwise(widths)):
        weight, bias = Tensor(rng.standard_normal((inputs, outputs)) / inputs), Tensor(rng.standard_normal(outputs))
        attrs = {"weight": weight, "bias": bias, "pieces": (Piece(0, inputs, 0, outputs),)}
        x = g.add("unary", [g.add("tile.matmul", [x], attrs, name=f"m{n}")], {"fn": "tanh"})
    g.add("output", [x], {"name": "y"})
    return g


@pytest.mark.parametrize("ideal", [True, False])
def test_segments_of_matrices_change_no_number(ideal: bool) -> None:
    """Narrow matrices lie on the diagonal of the array: a pass takes as many times fewer cycles, and no sum changes."""
    u = np.random.default_rng(0).standard_normal((2, 3001, 16))
    results, cycles = [], []
    for asked in ({"form": "weights in place"}, {"form": "segmented"}, {}):
        program = BACKEND.lower(dense((16, 32, 16), {**asked, "steps": 3001}), LARGE, ideal=ideal)
        assert segmented(program) == ([(4, 768), (4, 768)] if asked != {"form": "weights in place"} else [])
        results.append(BACKEND.simulate(program, {"u": u}, RunSettings()).outputs["y"])
        cycles.append(measure(program, LARGE, 1, 3001)[0].cycles or 0)
    np.testing.assert_array_equal(results[0], results[1])
    assert cycles[0] > 2 * 3001 > 1.8 * cycles[1] and cycles[1] == cycles[2]


def test_they_are_taken_where_the_array_idles() -> None:
    """Few channels over many steps; where the columns fill the ports there is nothing to gain: none are compared."""
    for channels, steps, wanted in ((16, 16384, True), (16, 256, False), (64, 16384, False), (128, 16384, False)):
        s = Shape(channels=channels, states=8)
        program = BACKEND.lower(graph(s, {"steps": steps}), LARGE, ideal=True)
        assert bool(segmented(program)) == wanted
        found: Any = program.meta["forms"]["layer"]  # type: ignore[index, call-overload]
        considered = [a for a in found if "segments" in a["form"]]
        assert bool(considered) == (channels < 64)
        whole = BACKEND.lower(graph(s, {"steps": steps, "form": "state in place"}), LARGE, ideal=True)
        times = [measure(p, LARGE, 1, steps)[0].cycles or 0 for p in (program, whole)]
        assert times[0] <= times[1] and (times[0] < 0.65 * times[1]) == wanted


def test_a_length_that_only_the_file_has_does_not_decide() -> None:
    """Nobody has said that sequences usually are as long."""
    program = BACKEND.lower(graph(Shape(channels=16, states=8), {"steps": 16384, "by_file": True}), LARGE, ideal=True)
    found: Any = program.meta["forms"]["layer"]  # type: ignore[index, call-overload]
    assert not segmented(program) and any("give calibration data" in (a["objection"] or "") for a in found)


def test_the_schedules_of_the_whole_program_are_told() -> None:
    program = BACKEND.lower(graph(Shape(channels=16, states=8), {"steps": 4096}), LARGE, ideal=True)
    told: Any = program.meta["schedules"]
    assert [made["chosen"] for made in told] == [True, False] and told[0]["cycles"] < told[1]["cycles"]
    assert told[0]["cycles"] == measure(program, LARGE, 1, 4096)[0].cycles


@pytest.mark.parametrize(("kind", "within"), [("fixed", 0.01), ("float32", 1e-5), ("float16", 0.02), ("bfloat16", 0.1)])
@pytest.mark.parametrize("steps", [100, 900, 5000])
def test_realistic_numbers_stay_near(steps: int, kind: str, within: float) -> None:
    s, arch = Shape(channels=8, states=6), with_changes(LARGE, numbers__format=kind)
    x, found = arrays(s, 2, steps), []
    for form in ("segmented", "state in place"):
        g = graph(s, {"form": form, "steps": 900})
        found.append(BACKEND.simulate(BACKEND.lower(g, arch, ideal=False), x, RunSettings()).outputs["y"])
    expected = interpret(g, x)["y"]
    errors = [np.abs(y - expected).max() / np.abs(expected).max() for y in found]
    assert 0 < errors[0] <= 1.5 * errors[1] <= within


def test_chunks_become_shorter_where_the_scratchpad_is_small() -> None:
    s = Shape(channels=4, states=2)
    for words, span in ((1 << 16, 1366), (20000, 683)):
        asked = {"form": "segmented", "segments": 3, "steps": 4096}
        program = BACKEND.lower(graph(s, asked), narrow(words), ideal=True)
        assert {n for _, n in segmented(program)} == {span}
        x = arrays(s, 1, 3000)
        expected = interpret(graph(s, {}), x)["y"]
        actual = BACKEND.simulate(program, x, RunSettings()).outputs["y"]
        assert np.abs(actual - expected).max() <= 1e-11 * np.abs(expected).max()


@settings(max_examples=15, deadline=None, phases=PHASES)
@given(shapes, st.integers(1, 40), st.booleans(), st.sampled_from([0, 4]))
def test_both_clocks_agree_on_what_is_compiled(s: Shape, steps: int, last: bool, handover: int) -> None:
    s = Shape(**{**s.__dict__, "start": False, "stride": 1})
    asked = {"form": "segmented", "segments": 12 // max(s.channels, 2), "chunk": 16}
    arch = narrow(4096, handover_steps=handover)
    program, x = BACKEND.lower(graph(s, asked, last=last and s.states <= 4), arch, ideal=True), arrays(s, 1, steps)
    assert segmented(program)
    streams: Any = program.meta["streams"]
    outputs = {n: (1, *([steps] if e["register"] == "n0" else []), e["words"]) for n, e in enumerate(streams) if n}
    found, cycles = run(program, arch, {0: x["u"]}, outputs, steps)
    fast = BACKEND.simulate(program, x, RunSettings())
    assert cycles == fast.stats.cycles
    for values, (_, mine) in zip(found.values(), fast.outputs.items(), strict=True):
        np.testing.assert_allclose(values, mine, rtol=1e-9, atol=1e-12)
