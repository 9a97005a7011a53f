"""Cycles against closed forms; energies and cycles add up; costs know nothing of data or blocks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, arch_text, load_arch, parse_arch
from backends.epochcore.clock.cost import Context
from backends.epochcore.clock.energy import breakdown
from backends.epochcore.clock.gemm import ceil_div, output_stationary, weight_stationary
from backends.epochcore.clock.pricing import RULES
from backends.epochcore.clock.timing import measure, timed_by_tokens
from backends.epochcore.simulate.run import CONTROL
from backends.epochcore.simulate.run import RULES as SIMULATION
from isa import Instruction, Program, instruction
from isa.epochcore import EPOCHCORE
from ssmc.ir import Graph, Piece, StreamType, Tensor
from ssmc.target import RunSettings
from tests.backends.epochcore.test_end_to_end import model


def with_changes(arch: Arch, **changes: object) -> Arch:
    """The architecture with `part__field=value` changed."""
    content = arch.model_dump(mode="json")
    for path, value in changes.items():
        part, name = path.split("__")
        content[part][name] = value
    return Arch.model_validate(content)


STREAMING = load_arch("epochcore-128")
ARCH = with_changes(STREAMING, array__handover_steps=0)  # one instruction after the other: closed forms hold


def ins(mnemonic: str, **operands: object) -> Instruction:
    return instruction(EPOCHCORE, mnemonic, None, **operands)


def preload(mode: str, rows: int, cols: int, is_complex: bool = False) -> Instruction:
    fields: Mapping[str, object] = {"src": 0, "scale": 0, "bias": 0, "rows": rows, "cols": cols, "complex": is_complex}
    return ins("preload", mode=mode, **fields)


def stream(mnemonic: str, **more: object) -> Instruction:
    return ins(mnemonic, **{"dst": 0, "dst_pitch": 1, "src": 0, "src_pitch": 1, "steps": "n0", **more})


def test_every_instruction_has_a_cost_and_a_meaning() -> None:
    costed = set(EPOCHCORE.by_mnemonic) - set(CONTROL) - {"rate"}
    assert set(RULES) == costed
    assert set(SIMULATION) == costed | {"rate"}


@settings(max_examples=200)
@given(*(st.integers(1, 60) for _ in range(3)), st.integers(5, 40), st.integers(5, 40))
def test_matrix_products_take_scale_sims_cycles(m: int, k: int, n: int, rows: int, cols: int) -> None:
    """Preload and pass of every fold, one after the other, are ceil(K/R) ceil(N/C) (2R + M + C - 2) - 1 cycles."""
    wide = {"array__port_words_in": 40, "array__port_words_out": 40, "array__mac_depth": 1}
    arch = with_changes(ARCH, array__rows=rows, array__cols=cols, **wide)
    total = 0
    for k0 in range(0, k, rows):
        for n0 in range(0, n, cols):
            weights = preload("mac", min(rows, k - k0), min(cols, n - n0))
            at = Context(arch, m, weights, {})
            total += RULES["preload"](weights, at).cycles + RULES["mac"](stream("mac"), at).cycles
    # the formula counts from the first cycle to the last one, not past it
    assert total - 1 == weight_stationary(m, k, n, rows, cols)


@settings(max_examples=200)
@given(*(st.integers(1, 60) for _ in range(3)), st.integers(5, 40), st.integers(5, 40))
def test_products_whose_results_stay_take_scale_sims_cycles(m: int, k: int, n: int, rows: int, cols: int) -> None:
    """Folds one after the other are ceil(M/R) ceil(N/C) (K + R + C - 2) - 1 cycles, without those in which the last
    results of a pass are shifted out, which SCALE-Sim does not count: R, a row after the other."""
    wide = {"array__port_words_in": 40, "array__port_words_out": 40, "array__mac_depth": 1}
    arch = with_changes(ARCH, array__rows=rows, array__cols=cols, **wide)
    total = 0
    for n0 in range(0, n, cols):
        at = Context(arch, m, preload("mac.os", k, min(cols, n - n0)), {})
        total += RULES["mac"](stream("mac"), at).cycles - rows
    assert total - 1 == output_stationary(m, k, n, rows, cols)


@given(st.integers(1, 20000), st.integers(1, 128), st.integers(1, 128), st.integers(1, 4))
def test_states_in_place_take_a_cycle_a_step(steps: int, rows: int, cols: int, depth: int) -> None:
    """(L - 1) I + R + depth - 1: L + R - 1 cycles at depth 1, whatever is used of the array."""
    arch = with_changes(ARCH, array__mac_depth=depth)
    at = Context(arch, steps, preload("fri", rows, cols, True), {})
    assert RULES["fri"](stream("fri"), at).cycles == (steps - 1) * depth + arch.array.rows + depth - 1


@given(st.integers(2, 500), st.integers(1, 64), st.integers(1, 128))
def test_narrow_ports_slow_the_array(steps: int, ports: int, cols: int) -> None:
    arch = with_changes(ARCH, array__port_words_in=ports, array__port_words_out=ports)
    at = Context(arch, steps, preload("fri", 4, cols), {})
    cycles = RULES["fri"](stream("fri"), at).cycles
    words = ceil_div(cols, ports)
    assert cycles == (steps - 1) * words + arch.array.rows + 2 * (words - 1)
    assert cycles >= steps * cols / ports - ceil_div(cols, ports)


def test_a_step_at_a_time_pays_fill_and_drain() -> None:
    """Why states stay in place: a matrix-vector product a step costs R + C - 1 cycles, 255 at 128 x 128."""
    one = RULES["mac"](stream("mac"), Context(ARCH, 1, preload("mac", 128, 128), {})).cycles
    assert one == 255
    at = Context(ARCH, 1024, preload("fri", 64, 128, True), {})
    assert 1024 * one / RULES["fri"](stream("fri"), at).cycles > 220


def program(arch: Arch = ARCH, *, ideal: bool = True) -> Program:
    return BACKEND.lower(model(), arch, ideal=ideal)


@pytest.mark.parametrize("name", BACKEND.architectures())
def test_layers_add_up(name: str) -> None:
    arch = load_arch(name)
    stats, _ = measure(program(arch), arch, 3, 40)
    assert stats.cycles == sum(layer.cycles or 0 for layer in stats.layers)
    assert stats.energy_joules == pytest.approx(sum(layer.energy_joules or 0 for layer in stats.layers), rel=1e-12)
    assert stats.energy_joules == pytest.approx(sum(stats.notes["breakdown_joules"].values()), rel=1e-12)
    assert stats.seconds == pytest.approx(stats.cycles / arch.clock_hz)
    assert all(layer.utilization is None or 0 <= layer.utilization <= 1 for layer in stats.layers)
    by_name = {layer.name: layer for layer in stats.layers}
    # directions that share their passes are one layer
    assert by_name.get("forward", by_name.get("forward_backward")).onnx_nodes == ("/scan",)
    assert by_name["unary"].utilization is None


def test_samples_follow_each_other_evenly() -> None:
    cycles = [measure(program(), ARCH, batch, 33)[0].cycles or 0 for batch in range(1, 6)]
    steps = np.diff(cycles)
    assert len(set(steps[1:].tolist())) == 1
    # a sample overlaps with the one before
    assert 0 < steps[0] <= cycles[0]


def test_macs_are_those_of_the_model() -> None:
    stats, _ = measure(program(), ARCH, 2, 10)
    encoder, system, decoder = 5 * 8, 8 * 3 * 8, 8 * 3
    assert stats.macs == 2 * (10 * (encoder + 2 * system) + decoder)
    assert stats.instructions == 2 * measure(program(), ARCH, 1, 10)[0].instructions


def test_time_grows_with_the_sequence_and_the_program_does_not() -> None:
    small = load_arch("epochcore-small")
    code = program(small)
    counts: list[int] = []
    issued: list[int] = []
    for steps in (64, 16384):
        stats, _ = measure(code, small, 1, steps)
        counts.append(stats.cycles or 0)
        issued.append(stats.instructions)
    assert 0 < issued[0] < issued[1]  # a chunk after the other, by the same loop
    assert counts[1] > 100 * counts[0] / 4


def test_costs_do_not_depend_on_data_or_blocks() -> None:
    code, rng = program(ideal=False), np.random.default_rng(0)
    runs = [
        BACKEND.simulate(code, {"x": rng.standard_normal((2, 9, 5))}, RunSettings(block=block)).stats
        for block in (None, 1, 4)
    ]
    assert runs[0] == runs[1] == runs[2]


def test_trace_covers_the_run() -> None:
    result = BACKEND.simulate(program(), {"x": np.zeros((1, 9, 5))}, RunSettings(trace=True))
    slices = [event for event in result.trace if event["ph"] == "X"]
    end = max(event["ts"] + event["dur"] for event in slices)
    assert end == pytest.approx((result.stats.seconds or 0) * 1e6)
    by_engine: dict[str, float] = {}
    for event in slices:
        assert event["ts"] >= by_engine.get(event["cat"], 0.0) - 1e-9
        by_engine[event["cat"]] = event["ts"] + event["dur"]
    assert {"load", "store", "compute", "vector", "preload"} == set(by_engine)


@pytest.mark.parametrize(("handover", "pipes"), [(0, 1), (1, 1), (16, 1), (16, 2), (4, 3)])
def test_a_trace_is_one_that_viewers_read(handover: int, pipes: int) -> None:
    """Every track has its name, slices last some time and lie one after the other, engines that hand over included and
    a later instruction that another pipe of the vector unit begins first."""
    small = with_changes(load_arch("epochcore-small"), array__handover_steps=handover, vector__pipes=pipes)
    graph = Graph()
    x = graph.add("input", attrs={"name": "x", "type": StreamType((32,))})
    ways = [
        graph.add("unary", [graph.add("unary", [x], {"fn": fn})], {"fn": "sigmoid"}) for fn in ("neg", "exp", "abs")
    ]
    last = graph.add("binary", [graph.add("binary", ways[:2], {"fn": "add"}), ways[2]], {"fn": "mul"})
    graph.add("output", [last], {"name": "y"})
    stats, trace = measure(BACKEND.lower(graph, small, ideal=True), small, 1, 50, trace=True)
    named = {event["name"]: event["args"]["name"] for event in trace if event["ph"] == "M"}
    assert named["process_name"] == "epochcore (epochcore-small)"
    tracks = [event["args"]["name"] for event in trace if event["name"] == "thread_name"]
    assert len({*tracks}) == len(tracks) == 5 + pipes
    assert {event["tid"] for event in trace if event["ph"] == "X"} <= {*range(len(tracks))}
    ends: dict[int, float] = {}
    for event in (event for event in trace if event["ph"] == "X"):
        assert event["dur"] > 0 and event["ts"] >= ends.get(event["tid"], 0.0) - 1e-9
        ends[event["tid"]] = event["ts"] + event["dur"]
    assert max(ends.values()) <= (stats.seconds or 0) * 1e6 * (1 + 1e-9)


@pytest.mark.parametrize("handover", [0, 1, 16])
def test_no_more_is_used_than_there_is(handover: int) -> None:
    """Not of layers either that add less to the run than their passes last, as they run beside others'."""
    graph = Graph()
    value = graph.add("input", attrs={"name": "x", "type": StreamType((16,))})
    for _ in range(3):
        attrs = {"weight": Tensor(np.ones((16, 16))), "pieces": (Piece(0, 16, 0, 16),)}
        value = graph.add("unary", [graph.add("tile.matmul", [value], attrs)], {"fn": "gelu"})
    graph.add("output", [value], {"name": "y"})
    arch = with_changes(load_arch("epochcore-small"), array__handover_steps=handover)
    stats, _ = measure(BACKEND.lower(graph, arch, ideal=True), arch, 4, 40)
    used = [layer.utilization for layer in stats.layers if layer.utilization is not None]
    assert len(used) >= 3 and all(0 <= share <= 1 for share in used)


def test_without_shadow_registers_preloads_take_their_turn() -> None:
    slow = with_changes(ARCH, array__shadow=False)
    assert (measure(program(slow), slow, 1, 9)[0].cycles or 0) > (measure(program(), ARCH, 1, 9)[0].cycles or 0)


def test_chunks_overlap() -> None:
    """A chunk is loaded while the one before is computed: less than one after the other, more than either."""
    arch = with_changes(ARCH, memory__scratchpad_words=2048)
    graph = Graph()
    x = graph.add("input", attrs={"name": "x", "type": StreamType((64,))})
    y = graph.add("tile.matmul", [x], {"weight": Tensor(np.ones((64, 16))), "pieces": (Piece(0, 64, 0, 16),)})
    graph.add("output", [y], {"name": "y"})
    code = BACKEND.lower(graph, arch, ideal=True)
    stats, trace = measure(code, arch, 1, 400, trace=True)
    busy: dict[str, float] = {}
    for event in trace:
        busy[event.get("cat", "")] = busy.get(event.get("cat", ""), 0.0) + event.get("dur", 0.0)
    assert max(busy.values()) < (stats.seconds or 0) * 1e6 < sum(busy.values())


def test_energy_is_priced_by_event() -> None:
    prices = breakdown({"macs": 2, "dram_bytes": 3}, 0.5, ARCH, ideal=False)
    assert prices["macs"] == 2 * ARCH.energy.mac_joules
    assert prices["dram_bytes"] == 3 * ARCH.energy.dram_joules_per_byte
    assert prices["static"] == 0.5 * ARCH.energy.static_watts


@pytest.mark.parametrize(
    ("numbers", "ideal", "mac", "state"),
    [
        ({}, False, "mac", "state_mac"),
        ({}, True, "float32_mac", "float32_mac"),  # what an ideal program stands for
        ({"format": "float32"}, False, "float32_mac", "float32_mac"),
        ({"format": "float16"}, False, "float16_mac", "float16_mac"),
        ({"format": "bfloat16", "state_format": "float32"}, False, "float16_mac", "float32_mac"),
    ],
)
def test_what_elements_multiply_in_has_its_price(numbers: dict[str, str], ideal: bool, mac: str, state: str) -> None:
    """Of a run: the energy of the same events is that of the format's multiply-accumulates."""
    arch = with_changes(ARCH, **{f"numbers__{name}": value for name, value in numbers.items()})
    stats, _ = measure(program(arch, ideal=ideal), arch, 2, 10)
    joules, (encoder, system, decoder) = stats.notes["breakdown_joules"], (5 * 8, 8 * 3 * 8, 8 * 3)
    assert joules["macs"] == pytest.approx(2 * (10 * encoder + decoder) * getattr(arch.energy, f"{mac}_joules"))
    assert joules["state_macs"] == pytest.approx(40 * system * getattr(arch.energy, f"{state}_joules"))
    assert stats.energy_joules == pytest.approx(sum(joules.values()), rel=1e-12)


def test_clocks_are_gated_by_phase() -> None:
    """Computing and filling the shadow registers are counted as long as they last, and no longer than the run."""
    small = load_arch("epochcore-small")
    gated = with_changes(small, energy__compute_watts=1.0, energy__preload_watts=2.0)
    stats, trace = measure(program(gated), gated, 1, 50, trace=True)
    joules = stats.notes["breakdown_joules"]
    assert 0 < joules["compute_cycles"] < 1.0 * (stats.seconds or 0)
    assert 0 < joules["preload_cycles"] < 2.0 * (stats.seconds or 0)
    filled = sum(e["dur"] for e in trace if e.get("cat") == "preload" and e["args"]["instruction"] != "sync")
    assert joules["preload_cycles"] == pytest.approx(2.0 * filled * 1e-6)
    assert stats.energy_joules == pytest.approx(sum(joules.values()), rel=1e-12)


def test_arch_text_is_what_a_program_carries() -> None:
    assert parse_arch(arch_text(ARCH)) == ARCH
    assert parse_arch(program().arch) == ARCH


@pytest.mark.parametrize("ideal", [True, False])
def test_constants_that_lie_side_by_side_move_once(ideal: bool) -> None:
    """Several 8-bit weights are a word; of a batch the first sample alone waits for them."""
    program = BACKEND.lower(model(), STREAMING, ideal=ideal)
    timed = timed_by_tokens(program, STREAMING, 3, 50)
    moved = [str(op.ins["src"]) for op, _, cost in timed if op.ins.mnemonic == "fetch" and cost.cycles]
    assert sorted(moved) == sorted({str(i["src"]) for i in program.sections[0].code if i.mnemonic == "fetch"})
