"""A row of like layers: found whatever the numbers are, and scheduled as a few of them are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import load_arch
from backends.epochcore.clock.timing import measure
from backends.epochcore.lower import forms, repeats
from ssmc.ir import Graph, Piece, SequenceType, StreamType, Tensor, Value, interpret
from ssmc.ir.verify import verify
from ssmc.target import RunSettings
from tests.backends.epochcore.test_costs import with_changes
from tests.backends.epochcore.test_directions import Shape as Directed
from tests.backends.epochcore.test_directions import graph as both_ways
from tests.backends.epochcore.test_stepped import PHASES
from tests.examples import examples

OURS, PLAIN = load_arch("epochcore-128"), load_arch("tpu-like-128")


def matrix(g: Graph, x: Value, inputs: int, outputs: int, rng: np.random.Generator, unit: int = 0) -> Value:
    weight = Tensor(rng.standard_normal((inputs, outputs)) / np.sqrt(inputs))
    return g.add("tile.matmul", [x], {"weight": weight, "bias": None, "pieces": (Piece(0, inputs, 0, outputs, unit),)})


def layer(g: Graph, x: Value, width: int, inner: int, rng: np.random.Generator, number: int) -> Value:
    """A residual around two matrices, with a gate that every layer takes from a constant of its own, and a state that
    is given and left."""
    given_ = g.add("input", [], {"name": f"h{number}", "type": SequenceType((inner,)), "role": "state"})
    y = matrix(g, x, width, inner, rng, number)
    decay = Tensor(rng.uniform(0.5, 0.9, inner))
    y = g.add("tile.state", [y, None, given_], {"decay": decay, "pieces": (Piece(0, inner, 0, 1),)})
    g.add("output", [Value(y.node, 1)], {"name": f"h{number}_out", "role": "state"})
    scale = g.add("constant", [], {"value": Tensor(rng.uniform(0.5, 1, inner))})
    y = g.add("binary", [g.add("unary", [y], {"fn": "tanh"}), scale], {"fn": "mul"})
    return g.add("binary", [x, matrix(g, y, inner, width, rng, number)], {"fn": "add"})


def stack(width: int, inner: Sequence[int], seed: int = 0) -> Graph:
    rng, g = np.random.default_rng(seed), Graph()
    x = g.add("input", [], {"name": "u", "type": StreamType((3,))}, name="u")
    x = matrix(g, x, 3, width, rng)
    for number, size in enumerate(inner):
        x = layer(g, x, width, size, rng, number)
    g.add("output", [matrix(g, x, width, 5, rng)], {"name": "y"})
    return g


@settings(max_examples=examples(40), deadline=None, phases=PHASES)
@given(st.integers(0, 4), st.integers(3, 9), st.integers(0, 2), st.integers(0, 2**32))
def test_rows_are_found(before: int, count: int, after: int, seed: int) -> None:
    sizes = [*range(9, 9 + before), *[6] * count, *range(20, 20 + after)]
    g = stack(4, sizes, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeats, "LEAST_TILES", 0)
        short = repeats.shortened(g, OURS)
    assert short is not None
    assert (short.kept, short.count) == (2, count)
    verify(short.graph, where="a short row")
    inner = [node.op["decay"].shape[0] for node in short.graph.nodes("tile.state")]
    assert inner == [*sizes[:before], 6, 6, *sizes[before + count :]]
    assert len(short.graph.inputs()) == 1 + len(inner)
    for name, other in short.like.items():
        if g.op(name).name == "tile.matmul":
            assert g.op(name)["weight"].shape == short.graph.op(other)["weight"].shape


def cached(count: int) -> Graph:
    """Layers whose states go through other ops before the steps and after them, all of which stand before and after
    all layers in the graph's own order."""
    rng, g = np.random.default_rng(1), Graph()
    x = g.add("input", [], {"name": "u", "type": StreamType((6,))}, name="u")
    kind = SequenceType((2, 3))
    starts = [g.add("input", [], {"name": f"h{n}", "type": kind, "role": "state"}) for n in range(count)]
    starts = [g.add("reshape", [start], {"shape": (6,)}) for start in starts]
    x = matrix(g, x, 6, 6, rng)
    lasts = []
    for number in range(count):
        y = matrix(g, x, 6, 6, rng, number)
        decay = Tensor(rng.uniform(0.5, 0.9, 6))
        y = g.add("tile.state", [y, None, starts[number]], {"decay": decay, "pieces": (Piece(0, 6, 0, 1),)})
        lasts.append(Value(y.node, 1))
        x = g.add("binary", [x, matrix(g, y, 6, 6, rng, number)], {"fn": "add"})
    g.add("output", [matrix(g, x, 6, 5, rng)], {"name": "y"})
    for number, last in enumerate(lasts):
        turned = g.add("unary", [g.add("reshape", [last], {"shape": (2, 3)})], {"fn": "neg"})
        g.add("output", [turned], {"name": f"h{number}_out", "role": "state"})
    return g


def test_rows_are_found_whatever_is_done_to_their_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "LEAST_TILES", 0)
    short = repeats.shortened(cached(7), OURS)
    assert short is not None
    assert (short.kept, short.count) == (2, 7)
    verify(short.graph, where="a short row")
    assert len(short.graph.inputs()) == 3
    assert len(list(short.graph.nodes("output"))) == 3


def test_joined_directions_are_scheduled_as_their_like(monkeypatch: pytest.MonkeyPatch) -> None:
    """Block matrices of both directions, whatever they are called."""
    g = both_ways(Directed(100, layers=5, inputs=300, before=(False, False), biased=False))
    g.attributes["schedule"] = {"steps": 40, "directions": "together"}
    whole = BACKEND.lower(g, OURS, ideal=True)
    monkeypatch.setattr(repeats, "LEAST_TILES", 1)
    few = BACKEND.lower(g, OURS, ideal=True)
    told: Any = few.meta["schedules"]
    assert all("of 3 like layers" in line["schedule"] for line in told)
    assert any(line["chosen"] and "rows first" in line["schedule"] for line in told)
    assert measure(few, OURS, 1, 40)[0].cycles == measure(whole, OURS, 1, 40)[0].cycles


def test_layers_that_differ_are_no_row() -> None:
    assert repeats.shortened(stack(200, [150, 151, 152, 153, 154, 155]), OURS) is None


def test_small_models_stay_whole() -> None:
    assert repeats.shortened(stack(4, [6] * 20), OURS) is None


def test_the_whole_model_is_scheduled_as_a_few_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    g = stack(300, [260] * 5)
    g.attributes["schedule"] = {"steps": 40}
    whole = BACKEND.lower(g, OURS, ideal=True)
    monkeypatch.setattr(repeats, "LEAST_TILES", 1)
    few = BACKEND.lower(g, OURS, ideal=True)
    told: Any = few.meta["schedules"]
    assert all("timed with 2 of 5 like layers" in line["schedule"] for line in told)
    assert measure(few, OURS, 1, 40)[0].cycles == measure(whole, OURS, 1, 40)[0].cycles
    rng = np.random.default_rng(1)
    x = {"u": rng.standard_normal((2, 7, 3)), **{f"h{n}": rng.standard_normal((2, 260)) for n in range(5)}}
    expected, found = interpret(g, x), BACKEND.simulate(few, x, RunSettings()).outputs
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5)


def liquid(count: int) -> Graph:
    """Residuals around a matrix and two liquid systems, one of which goes backward."""
    rng, g, shape = np.random.default_rng(3), Graph(), (24, 64)
    x = g.add("input", [], {"name": "u", "type": StreamType((shape[0],))}, name="u")
    x = matrix(g, x, *shape[:1] * 2, rng)
    for _ in range(count):
        y = matrix(g, x, *shape[:1] * 2, rng)
        for reverse in (False, True):
            numbers = {name: rng.standard_normal(shape) + 1j * rng.standard_normal(shape) for name in ("b", "c")}
            attrs = {
                "decay": Tensor(rng.uniform(0.3, 0.6, shape) * np.exp(1j * rng.uniform(-3, 3, shape))),
                **{name: Tensor(array / 100) for name, array in numbers.items()},
                "d": Tensor(rng.standard_normal(shape[0])),
                "liquid": True,
                "reverse": reverse,
                "pieces": (Piece(0, shape[0], 0, shape[1]),),
            }
            y = g.add("tile.ssm", [y], attrs)
        x = g.add("binary", [x, y], {"fn": "add"})
    g.add("output", [matrix(g, x, *shape[:1] * 2, rng)], {"name": "y"})
    return g


def test_scans_that_crowd_the_scratchpad_are_scheduled_as_a_few_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Constants of few layers would have room for all programs to come, those of all layers have not."""
    arch = with_changes(PLAIN, memory__scratchpad_words=60_000)
    g, timed = liquid(4), list[Any]()
    g.attributes["schedule"] = {"steps": 40}
    measured = forms._timed
    monkeypatch.setattr(forms, "_timed", lambda low, node, form: timed.append(form) or measured(low, node, form))
    forms._answers.cache_clear()
    whole = BACKEND.lower(g, arch, ideal=True)
    assert len(timed) == len(set(timed)) > 1  # also where all constants at once were tried first
    monkeypatch.setattr(repeats, "LEAST_TILES", 30)
    short = repeats.shortened(g, arch)
    assert short is not None and short.crowded and (short.kept, short.count) == (2, 4)
    roomy = repeats.shortened(g, PLAIN)
    assert roomy is not None and not roomy.crowded
    few = BACKEND.lower(g, arch, ideal=True)
    assert measure(few, arch, 1, 40)[0].cycles == measure(whole, arch, 1, 40)[0].cycles
    x = {"u": np.random.default_rng(4).standard_normal((1, 45, 24))}
    found, expected = BACKEND.simulate(few, x, RunSettings()).outputs["y"], interpret(g, x)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
