"""States that arrays charge and that drive arrays, without conversions: from models, through the target's pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.cim import BACKEND
from isa import Program
from isa.cim_fields import LINES
from ssmc.ir import Graph, StreamType, Tensor, Value, interpret
from ssmc.passes import Context, PassManager
from ssmc.passes.coupling_errors import scale_of
from ssmc.statespace import StateSpace
from ssmc.target import RunSettings

from .chips import changed

CALM = {"product_bits": 0.0, "decay_sigma": 0.0, "latency_scale": 0.0, "line_gain": 0.0}
BOX = {"rows": 12, "cols": 32, "per_core": 12}  # 16 weights wide, so that rows and columns are both cut


def chip(devices: dict[str, Any] | None = None, **sections: dict[str, Any]) -> Any:
    own = {name: dict(values) for name, values in sections.items()}
    box = {**BOX, **own.pop("crossbar", {})}
    return changed(crossbar=box, devices={**CALM, **(devices or {})}, **own)


def layer(seed: int = 0, width: int = 20, states: int = 18, high: int = 17, **system: Any) -> Graph:
    """u -> ssm -> gelu -> output, events with their own times."""
    rng = np.random.default_rng(seed)
    graph = Graph("layer", {"form": "sequence"})
    u = graph.add("input", [], {"name": "u", "type": StreamType((width,)), "role": "data"}, name="u")
    dt = graph.add("input", [], {"name": "dt", "type": StreamType(()), "role": "dt"}, name="dt")
    b = rng.standard_normal((1, states, width)) * np.exp(rng.normal(size=(1, states, 1)))
    c = rng.standard_normal((1, high, states)) / np.sqrt(states)
    values = {"A": np.full((1, states), -0.2), "B": b, "C": c, "D": np.zeros((1, high, width)), **system}
    made = StateSpace(*(values[name] for name in "ABCD"), np.ones((1, 1)), asynchronous=True)
    y = graph.add("ssm", [u, dt], {"system": made}, name="ssm")
    y = graph.add("unary", [y], {"fn": "gelu"}, name="gelu")
    graph.add("output", [y], {"name": "y", "role": "data"}, name="out")
    return graph


def data(batch: int = 3, steps: int = 40, width: int = 20, seed: int = 1) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"u": rng.standard_normal((batch, steps, width)), "dt": rng.exponential(size=(batch, steps))}


def compiled(
    graph: Graph, arch: Any, *, ideal: bool, sides: str = "both", known: bool = True, worse: float = 1.5
) -> tuple[Any, Any, Any]:
    """(program, tiled graph, context)"""
    context = Context(BACKEND.machine(arch, ideal=ideal), data() if known else None, ideal=ideal)
    pipeline = BACKEND.pipeline(arch, ideal=ideal).replace("couple,", f"couple{{sides={sides},worse={worse}}},")
    tiled = PassManager(pipeline).run(graph, context)
    return BACKEND.lower(tiled, arch, ideal=ideal), tiled, context


def on_lines(program: Program) -> dict[str, int]:
    """Instructions that take or give lines."""
    found: dict[str, int] = {}
    for section in program.sections:
        for code in section.code:
            for side in ("src", "dst"):
                value = code.operands.get(side)
                if code.mnemonic in ("mvm", "charge") and isinstance(value, int) and value >= LINES:
                    found[f"{code.mnemonic} {side}"] = found.get(f"{code.mnemonic} {side}", 0) + 1
    return found


@pytest.mark.parametrize("sides", ["both", "in", "out"])
@pytest.mark.parametrize("block", [None, 1, 7])
def test_coupling_changes_no_number_of_perfect_devices(sides: str, block: int | None) -> None:
    """Split rows and columns included: to the bit what converters give, and what the interpreter does."""
    arch, given = chip(), data(seed=5)
    off, tiled, _ = compiled(layer(), arch, ideal=True, sides="off")
    on, _, _ = compiled(layer(), arch, ideal=True, sides=sides)
    want = BACKEND.simulate(off, given, RunSettings()).outputs["y"]
    got = BACKEND.simulate(on, given, RunSettings(block=block)).outputs["y"]
    assert np.array_equal(got, want)
    assert np.allclose(got, interpret(tiled, given)["y"], rtol=0, atol=1e-11)
    lines = on_lines(on)
    assert not on_lines(off)
    assert lines.get("mvm dst", 0) == (4 if sides != "out" else 0)  # two cuts of rows, two of columns
    assert lines.get("mvm src", 0) == (4 if sides != "in" else 0)
    assert lines.get("charge src", 0) == (sides != "out") and lines.get("charge dst", 0) == (sides != "in")


@pytest.mark.parametrize("sides", ["both", "in", "out", "off"])
def test_rounding_alone_stays_small_whoever_converts(sides: str) -> None:
    program, tiled, _ = compiled(layer(), chip(), ideal=False, sides=sides)
    given = data(seed=5)
    want = interpret(tiled, given)["y"]
    got = BACKEND.simulate(program, given, RunSettings()).outputs["y"]
    assert np.sqrt(np.square(got - want).mean() / np.square(want).mean()) < 0.02
    for block in (1, 7):
        assert np.array_equal(BACKEND.simulate(program, given, RunSettings(block=block)).outputs["y"], got)


@pytest.mark.parametrize("bits", [(5, 14), (14, 5), (8, 8)])
@pytest.mark.parametrize(("side", "product"), [("in", "ssm.drive"), ("out", "ssm")])
def test_the_expected_errors_of_rounding_are_those_that_come(bits: tuple[int, int], side: str, product: str) -> None:
    arch = chip(crossbar={"dac_bits": bits[0], "adc_bits": bits[1]})
    on, tiled, context = compiled(layer(), arch, ideal=False, sides=side, worse=999)
    off, plain, _ = compiled(layer(), arch, ideal=False, sides="off")
    told = next(choice for choice in context.couplings if choice.side == side)
    assert told.chosen and told.coupled is not None and told.converted is not None
    assert alone(on, tiled, product, data(), 0) == pytest.approx(told.coupled, rel=0.25, abs=2e-4)
    assert alone(off, plain, product, data(), 0) == pytest.approx(told.converted, rel=0.25)


@pytest.mark.parametrize(("side", "seen"), [("in", "ssm.x"), ("out", "ssm")])
def test_the_expected_error_of_gains_is_the_one_that_comes(side: str, seen: str) -> None:
    """Beside the same program on lines without a spread of gains."""
    arch = chip({"line_gain": 0.05}, crossbar={"dac_bits": 14, "adc_bits": 14})
    program, _, context = compiled(layer(), arch, ideal=False, sides=side, worse=999)
    told = next(choice for choice in context.couplings if choice.side == side)
    found = []
    for seed in range(8):
        settings = [RunSettings(taps=True, seed=seed, noise=noise) for noise in ("arch", "arch{line_gain=0}")]
        y, exact = (BACKEND.simulate(program, data(), each).taps[seen] for each in settings)
        found.append(np.square(y - exact).mean((0, 1)) / np.square(exact).mean((0, 1)))
    assert told.coupled == pytest.approx(float(np.sqrt(np.mean(found))), rel=0.2)


def alone(program: Program, tiled: Graph, name: str, given: dict[str, Any], seed: int) -> float:
    """The error of one product by itself: of its own output for the inputs that it was given, rms over the columns."""
    taps = BACKEND.simulate(program, given, RunSettings(taps=True, seed=seed)).taps
    node = tiled.node(name)
    source = tiled.operand(name, 0).node
    x = taps[source] if source in taps else given["u"]
    error = np.square(taps[name] - x @ node.op["weight"].array).reshape(-1, taps[name].shape[-1]).mean(0)
    power = np.square(taps[name]).reshape(-1, taps[name].shape[-1]).mean(0)
    return float(np.sqrt((error / power).mean()))


def test_states_in_units_of_their_columns_lose_no_level() -> None:
    """Rows of B as different as e^3: all columns stand for the same, and their weights keep all their levels."""
    graph, arch = layer(), chip()
    tiled = compiled(graph, arch, ideal=False)[1]
    drive = tiled.node("ssm.drive")
    scale = scale_of(drive)
    assert np.ptp(scale) < 1e-12 * scale.max()
    system = graph.node("ssm").op["system"]
    unit = np.abs(system.B[0]).max(1)
    exact = (system.B[0] / unit[:, None]).T
    assert np.abs(drive.op["weight"].array - exact).max() <= 0.5 / 127 + 1e-12
    context = Context(BACKEND.machine(arch, ideal=False))
    scaled = PassManager("scale-states").run(graph, context)
    want, got = (interpret(g, data()) for g in (graph, scaled))
    assert np.allclose(want["y"], got["y"], rtol=0, atol=1e-12 * np.abs(want["y"]).max())
    for machine, ideal in ((BACKEND.machine(arch, ideal=True), True), (None, False)):
        assert PassManager("scale-states").run(graph, Context(machine, ideal=ideal)) is graph
    off = BACKEND.machine(chip(crossbar={"coupling": "out"}), ideal=False)
    assert PassManager("scale-states").run(graph, Context(off)) is graph


def test_unequal_columns_share_the_largest_scale_and_the_choice_counts_what_that_costs() -> None:
    """Without `scale-states`: the program still means the same, and its levels are those of the largest column."""
    arch = chip()
    context = Context(BACKEND.machine(arch, ideal=False), data())
    pipeline = BACKEND.pipeline(arch, ideal=False).replace("scale-states,", "").replace("couple,", "couple{worse=99},")
    tiled = PassManager(pipeline).run(layer(), context)
    program = BACKEND.lower(tiled, arch, ideal=False)
    scales = [array for name, array in program.data.items() if name.startswith("ssm.drive.scale")]
    assert len({float(value) for array in scales for value in array}) == 1
    told = next(choice for choice in context.couplings if choice.side == "in")
    assert told.coupled is not None and told.converted is not None and told.coupled > 2 * told.converted
    assert alone(program, tiled, "ssm.drive", data(), 0) == pytest.approx(told.coupled, rel=0.25)
    cautious = Context(BACKEND.machine(arch, ideal=False), data())
    PassManager(pipeline.replace("worse=99", "worse=1.5")).run(layer(), cautious)
    assert [choice.chosen for choice in cautious.couplings] == [False, True]


def refused(graph: Graph, arch: Any | None = None, side: str = "in", **options: Any) -> str:
    context = compiled(graph, chip() if arch is None else arch, **{"ideal": False, **options})[2]
    found = [choice for choice in context.couplings if choice.side == side]
    assert found and not any(choice.chosen for choice in found)
    return str(found[0].objection)


def test_what_stands_in_between_is_told() -> None:
    turning = np.full((1, 18), -0.2 + 1j)
    assert refused(layer(A=turning)) == "its states turn: rotating frames are digital"
    assert refused(layer(B=np.ones((1, 18, 1)), D=np.zeros((1, 17, 1)), width=1), known=False).startswith(
        "its drive comes from "
    )
    through = np.random.default_rng(0).standard_normal((1, 17, 20))
    assert not [c for c in compiled(layer(D=through), chip(), ideal=False)[2].couplings if c.objection]
    assert refused(layer(), known=False) == "nothing tells what drives a row fully: --calibrate"
    assert refused(layer(), chip(crossbar={"coupling": "out"})) == "the target does not couple this side"
    assert refused(layer(), chip(crossbar={"coupling": "in"}), "out") == "the target does not couple this side"
    few = refused(layer(), chip(volatile={"per_core": 17, "time_constants": 8}))
    assert few == "core 0 has too few nodes left"
    several = refused(layer(), chip(crossbar={"per_core": 2}), "out")
    assert "several cores" in several or "its states on core" in several
    slow = refused(layer(A=np.full((1, 18), -1e-9)))
    assert slow == "its states are in bank 'digital'"


def with_output(graph: Graph, value: str) -> Graph:
    graph.add("output", [Value(value)], {"name": value, "role": "data"}, name=f"out_{value}")
    return graph


def tile_graph(**changes: Any) -> Graph:
    """A tile graph around one state, to change piece by piece."""
    from ssmc.ir import Piece

    rng = np.random.default_rng(0)
    graph = Graph("tiles", {"form": "sequence"})
    u = graph.add("input", [], {"name": "u", "type": StreamType((6,)), "role": "data"}, name="u")
    weight = {"weight": Tensor(rng.standard_normal((6, 6)))}
    pieces = changes.get("pieces", (Piece(0, 6, 0, 6),))
    v = graph.add("tile.matmul", [u], {**weight, "bias": changes.get("bias"), "pieces": pieces}, name="v")
    state = {"decay": Tensor(np.full(6, 0.9)), "pieces": (Piece(0, 6, 0, 1),), "reverse": changes.get("reverse", False)}
    elapsed: list[Value] = []
    if changes.get("waiting"):  # time steps that the first input of the sequence tells
        first = graph.add("reduce", [graph.add("pool", [u], {"kind": "first"})], {"fn": "max", "axes": (-1,)})
        one = graph.add("reshape", [graph.add("unary", [first], {"fn": "sigmoid"})], {"shape": ()})
        elapsed = [graph.add("spread", [one, u])]
        state |= {"decay": Tensor(np.full(6, -0.1)), "asynchronous": True}
    x = graph.add("tile.state", [v, *elapsed], state, name="x")
    y = graph.add("tile.matmul", [x], {**weight, "pieces": (Piece(0, 6, 0, 6),)}, name="y")
    graph.add("output", [y], {"name": "y", "role": "data"}, name="out")
    return graph


@pytest.mark.parametrize(
    ("graph", "side", "objection"),
    [
        (lambda: tile_graph(bias=Tensor(np.ones(6))), "in", "its drive has a bias"),
        (lambda: with_output(tile_graph(), "v"), "in", "its drive is read elsewhere, too"),
        (lambda: with_output(tile_graph(), "x"), "out", "its states are read by output, tile.matmul, not by one "),
        (lambda: tile_graph(waiting=True), "in", "its states wait for what a whole sequence gives"),
        (lambda: tile_graph(reverse=True), "in", "its stream is turned round on the way"),
        (lambda: tile_graph(pieces=pieces((0, 6, 0, 5))), "in", "its drive leaves states out"),
        (lambda: tile_graph(pieces=pieces((0, 3, 0, 6), (3, 6, 0, 4), (3, 6, 4, 6))), "in", "its drive leaves states"),
    ],
)
def test_each_thing_in_between(graph: Any, side: str, objection: str) -> None:
    arch = chip()
    context = Context(BACKEND.machine(arch, ideal=True), ideal=True)
    tiled = PassManager("map-weights,couple,schedule").run(graph(), context)
    found = {choice.side: choice for choice in context.couplings}
    assert found[side].objection.startswith(objection) and not found[side].chosen
    given = {"u": np.random.default_rng(2).standard_normal((2, 9, 6))}
    got = BACKEND.simulate(BACKEND.lower(tiled, arch, ideal=True), given, RunSettings()).outputs
    for name, want in interpret(tiled, given).items():
        assert np.allclose(got[name], want, rtol=0, atol=1e-12)


def pieces(*every: tuple[int, int, int, int]) -> Any:
    from ssmc.ir import Piece

    return tuple(Piece(*piece) for piece in every)


def test_several_layers_share_the_nodes_and_lines_of_a_core() -> None:
    """Two layers in one core that has nodes for one and a half: the second goes through converters."""
    graph = layer()
    y = graph.operand("out", 0)
    again = layer(seed=1, width=17, high=5).node("ssm").op["system"]
    z = graph.add("ssm", [y, Value("dt")], {"system": again}, name="second")
    graph.add("output", [z], {"name": "z", "role": "data"}, name="out_z")
    for nodes, coupled in ((36, ["ssm.x", "second.x"]), (35, ["ssm.x"])):
        arch = chip(volatile={"per_core": nodes})
        program, tiled, context = compiled(graph, arch, ideal=False)
        assert list(tiled.attributes["coupling"]) == coupled
        assert ("too few nodes" in str([c.objection for c in context.couplings])) == (nodes == 35)
        given = data(seed=5)
        want = interpret(tiled, given)
        got = BACKEND.simulate(program, given, RunSettings()).outputs
        for name in want:
            assert np.sqrt(np.square(got[name] - want[name]).mean() / np.square(want[name]).mean()) < 0.05


def test_energy_and_time_that_coupling_spares() -> None:
    stats = {}
    for sides in ("both", "off"):
        program, _, context = compiled(layer(), chip(), ideal=False, sides=sides)
        stats[sides] = BACKEND.simulate(program, data(), RunSettings()).stats
    told = sum(choice.joules for choice in context.couplings) * 120  # events
    notes = stats["both"].notes
    assert notes["conversions_spared_joules"] == pytest.approx(told)
    assert notes["conversions spared"] == {"ADC": 120 * 2 * 18, "DAC": 120 * 2 * 18}
    assert stats["off"].energy_joules > stats["both"].energy_joules + told
    assert notes["event_latency_seconds"] < stats["off"].notes["event_latency_seconds"]
    assert "conversions spared" not in stats["off"].notes
