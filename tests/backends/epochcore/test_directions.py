"""Both directions of a layer in one pass: in columns that idle otherwise, or in turn while the pipelines work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, load_arch
from backends.epochcore.clock.timing import measure
from isa import Program
from ssmc.diagnostics import UserError
from ssmc.ir import Graph, Piece, StreamType, Tensor, Value, interpret
from ssmc.passes import Context, PassManager
from ssmc.passes.validation import relative_error
from ssmc.target import RunSettings
from tests.backends.epochcore.test_costs import with_changes
from tests.examples import examples

WIDE, SMALL = load_arch("epochcore-128"), load_arch("epochcore-small")


@dataclass(frozen=True)
class Shape:
    """Layers of bidirectional systems, each behind the one before and a matrix."""

    channels: int = 4
    states: int = 3
    layers: int = 2
    is_complex: bool = True
    liquid: bool = False
    before: tuple[bool, bool] = (False, True)
    seed: int = 0
    inputs: int = 0  # of systems with matrices around `channels` states; 0: a system a channel
    biased: bool = True  # whether some matrices are
    halves: bool = False  # whether what drives states is given another shape on its way

    @property
    def width(self) -> int:
        return self.inputs or self.channels


def graph(s: Shape) -> Graph:
    """At the tile level."""
    rng, g = np.random.default_rng(s.seed), Graph()
    x = g.add("input", [], {"name": "x", "type": StreamType((s.width,))}, name="x")
    shape = (s.channels, s.states)

    def matrix(u: Value, inputs: int, outputs: int, biased: bool, **more: Any) -> Value:
        weight = Tensor(rng.standard_normal((inputs, outputs)) / inputs)
        bias = Tensor(rng.standard_normal(outputs)) if s.biased and biased and rng.integers(2) else None
        attrs = {"weight": weight, "bias": bias, "pieces": (Piece(0, inputs, 0, outputs),)}
        return g.add("tile.matmul", [u], attrs, **more)

    def wide(u: Value, name: str, reverse: bool) -> Value:
        a = rng.uniform(0.3, 0.95, s.channels) * np.exp(1j * s.is_complex * rng.uniform(-1, 1, s.channels))
        words, flags = s.channels * (1 + s.is_complex), {"reverse": reverse, "read_before": s.before[reverse]}
        attrs = {"decay": Tensor(a if s.is_complex else a.real), "pieces": (Piece(0, s.channels, 0, 1),), **flags}
        drive = matrix(u, s.inputs, words, s.before[0] == s.before[1])
        for shape in ((2, words // 2), (words,)) if s.halves else ():
            drive = g.add("reshape", [drive], {"shape": shape})
        return matrix(g.add("tile.state", [drive, None, None], attrs), words, s.inputs, True, name=name)

    def system(u: Value, name: str, reverse: bool) -> Value:
        a = rng.uniform(0.3, 0.7 if s.liquid else 0.95, shape) * np.exp(1j * s.is_complex * rng.uniform(-1, 1, shape))
        b, c = (rng.standard_normal(shape) + 1j * s.is_complex * rng.standard_normal(shape) for _ in range(2))
        values = {"decay": a, "b": b * 0.1, "c": c, "d": rng.standard_normal(s.channels)}
        tensors = {name: Tensor(v if s.is_complex else v.real) for name, v in values.items()}
        flags = {"liquid": s.liquid, "reverse": reverse, "read_before": s.before[reverse]}
        pieces = (Piece(0, s.channels, 0, s.states),)
        return g.add("tile.ssm", [u], {**tensors, **flags, "pieces": pieces}, name=name)

    one = wide if s.inputs else system
    for layer in range(s.layers):
        y = g.add("binary", [one(x, f"f{layer}", False), one(x, f"g{layer}", True)], {"fn": "add"})
        w = rng.standard_normal((s.width, s.width)) / s.width
        pieces = (Piece(0, s.width, 0, s.width),)
        y = g.add("tile.matmul", [y], {"weight": Tensor(w), "bias": None, "pieces": pieces})
        x = g.add("binary", [x, g.add("unary", [y], {"fn": "tanh"})], {"fn": "add"})
    g.add("output", [x], {"name": "y"})
    return g


def program(g: Graph, arch: Arch, *, ideal: bool = True, **asked: Any) -> Program:
    context = Context(machine=BACKEND.machine(arch, ideal=ideal), ideal=ideal)
    options = ",".join(f"{name}={value}" for name, value in asked.items())
    return BACKEND.lower(PassManager(f"schedule{{{options}}}").run(g, context), arch, ideal=ideal)


def passes(p: Program) -> list[int]:
    """Columns of the passes over states, in the code's order."""
    code, modes = p.sections[0].code, ("fri", "tri", "fri.x")
    return [int(i["cols"]) for i in code if i.mnemonic == "preload" and i["mode"] in modes]


shapes = st.builds(
    Shape,
    channels=st.integers(1, 20),
    states=st.integers(1, 9),
    layers=st.integers(1, 3),
    is_complex=st.booleans(),
    before=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 9),
)
liquid = st.builds(lambda s: Shape(**{**s.__dict__, "liquid": True}), shapes)
many = st.builds(lambda s, inputs: Shape(**{**s.__dict__, "inputs": inputs}), shapes, st.integers(1, 20))


@settings(max_examples=examples(20), deadline=None)
@given(s=shapes | liquid | many, limit=st.integers(1, 12), per=st.integers(1, 4), block=st.sampled_from([None, 1]))
def test_together_they_compute_the_same(s: Shape, limit: int, per: int, block: int | None) -> None:
    """Also where a sequence takes several chunks, which come from both its ends."""
    arch = with_changes(SMALL, array__states_per_element=per, array__mac_depth=3)
    arch = with_changes(arch, memory__scratchpad_words=s.layers * 400 + 16 * (s.channels + s.width) * limit)
    g, x = graph(s), np.random.default_rng(1).standard_normal((2, 30, s.width))
    p, pitch = program(g, arch, directions="together"), s.channels * (1 + (s.is_complex and s.inputs > 0))
    assert not any(i.mnemonic in ("fri", "tri", "fri.x") and i["dst_pitch"] == pitch for i in p.sections[0].code)
    found = BACKEND.simulate(p, {"x": x}, RunSettings(block=block, taps=True))
    expected = interpret(g, {"x": x})["y"]
    assert relative_error(expected, found.outputs["y"]) < 1e-6


@pytest.mark.parametrize("inputs", [0, 8])
def test_realistic_numbers_stay_as_good(inputs: int) -> None:
    g, x = (
        graph(Shape(8, 6, 2, inputs=inputs, before=(False, inputs == 0))),
        np.random.default_rng(1).standard_normal((2, 200, 8)),
    )
    expected, errors = interpret(g, {"x": x})["y"], {}
    for directions in ("apart", "together"):
        p = program(g, WIDE, ideal=False, directions=directions)
        errors[directions] = relative_error(expected, BACKEND.simulate(p, {"x": x}, RunSettings()).outputs["y"])
    assert errors["together"] < 1.2 * errors["apart"] < 1e-2


@pytest.mark.parametrize(
    ("changes", "channels"),
    [
        ({"array__mac_depth": 1}, 64),  # idle columns
        ({"array__mac_depth": 4, "array__states_per_element": 4}, 128),  # idle cycles
    ],
)
def test_it_is_done_where_it_pays_and_told(changes: dict[str, int], channels: int) -> None:
    arch, g = with_changes(WIDE, **changes), graph(Shape(channels, 4))
    cycles = {}
    x = {"x": np.zeros((1, 4096, channels))}
    for directions in ("apart", "together", ""):
        p = program(g, arch, steps=4096, **({"directions": directions} if directions else {}))
        cycles[directions] = BACKEND.simulate(p, x, RunSettings()).stats.cycles or 0
    assert cycles[""] == cycles["together"] < 0.9 * cycles["apart"]
    told = {made["schedule"]: made for made in p.meta["schedules"]}
    assert told["both directions in one pass"]["chosen"]
    assert told["directions in loops of their own"]["cycles"] == cycles["apart"]
    assert max(passes(p)) == 2 * channels


@pytest.mark.parametrize("changes", [{}, {"array__states_per_element": 4}])
def test_full_columns_are_left_alone(changes: dict[str, int]) -> None:
    """One product a cycle is all that an element does, and a word a column all that the ports bring."""
    p = program(graph(Shape(128, 4)), with_changes(WIDE, **changes))
    assert set(passes(p)) == {128} and "schedules" not in p.meta


@pytest.mark.parametrize("before", [(False, False), (False, True)])
def test_systems_with_many_inputs_share_a_pass_where_it_pays(before: tuple[bool, bool]) -> None:
    """32 complex states are 64 words: half of what the ports bring; their matrices fill half of the array."""
    g, cycles = graph(Shape(32, inputs=64, before=before)), {}
    for directions in ("apart", "together", ""):
        p = program(g, WIDE, steps=4096, **({"directions": directions} if directions else {}))
        cycles[directions] = BACKEND.simulate(p, {"x": np.zeros((1, 4096, 64))}, RunSettings()).stats.cycles or 0
    assert cycles[""] == cycles["together"] < 0.9 * cycles["apart"]
    told = {made["schedule"]: made for made in p.meta["schedules"]}
    assert told["both directions in one pass"]["chosen"] and set(passes(p)) == {64}
    full = program(graph(Shape(64, inputs=64, before=before)), WIDE)
    assert set(passes(full)) == {64} and "directions" not in {made["choice"] for made in full.meta["schedules"]}


@pytest.mark.parametrize(
    ("states", "inputs", "halves", "where"),
    [
        (64, 64, False, "where fewest words"),
        (64, 64, True, "in the loop of their readers"),
        (16, 128, False, "in the loop of their operands"),
    ],
)
def test_what_drives_reversed_states_is_in_the_loop_that_serves_best(
    states: int, inputs: int, halves: bool, where: str
) -> None:
    """With the states fewer words go through DRAM, also where they get another shape on the way; with what it reads the
    loop of the states is shorter."""
    g = graph(Shape(states, inputs=inputs, before=(False, False), halves=halves))
    p = program(g, WIDE, steps=1024, directions="apart")
    told = [made for made in p.meta["schedules"] if made["choice"] == "loops"]
    (chosen,) = (made for made in told if made["chosen"])
    assert where in chosen["schedule"] and len(told) == 2
    assert chosen["cycles"] == min(made["cycles"] for made in told)
    x = {"x": np.random.default_rng(0).standard_normal((1, 50, inputs))}
    assert relative_error(interpret(g, x)["y"], BACKEND.simulate(p, x, RunSettings()).outputs["y"]) < 1e-5


@pytest.mark.parametrize("halves", [False, True])
def test_choices_that_were_made_before_another_one_changed_the_program_say_so(halves: bool) -> None:
    g = graph(Shape(64, inputs=64, before=(False, False), halves=halves))
    p = program(g, WIDE, steps=1024)
    cycles = measure(p, WIDE, 1, 1024)[0].cycles
    told = {made["choice"]: made for made in p.meta["schedules"] if made["chosen"]}
    assert set(told) == {"loops", "time"} and told["loops"]["cycles"] == cycles
    assert (told["time"]["cycles"] == cycles) == ("superseded" not in told["time"]) == (not halves)
    assert told["time"].get("superseded", "loops") == "loops"


def test_what_is_read_before_an_update_comes_a_step_later() -> None:
    """Liquid outputs before an update are no sums of states after it: the stream is shifted, and what it passes on by
    itself is not."""
    g = graph(Shape(liquid=True, before=(False, True)))
    p = program(g, WIDE, directions="together")
    code = p.sections[0].code
    assert set(passes(p)) == {8} and sum(i.mnemonic == "fir" for i in code) == 2
    x = {"x": np.random.default_rng(1).standard_normal((2, 30, 4))}
    found, expected = BACKEND.simulate(p, x, RunSettings()).outputs["y"], interpret(g, x)["y"]
    assert relative_error(expected, found) < 1e-6


def test_what_cannot_be_together_stays_apart() -> None:
    """States that somebody else reads, and directions of other streams."""
    g = graph(Shape(8, inputs=4, layers=1))
    g.add("output", [g.operand("f0", 0)], {"name": "states"})
    p = program(g, WIDE, directions="together")
    assert set(passes(p)) == {8}
    with pytest.raises(UserError, match="apart, together"):
        program(graph(Shape()), WIDE, directions="sideways")
