"""Time and energy: a slow model that steps one instruction at a time must agree with the closed form."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.cim import BACKEND
from backends.cim.clock.costs import cost
from backends.cim.clock.statistics import trace
from backends.cim.clock.timing import Busy, Schedule, schedule
from backends.cim.program.decode import Item, cores, decode, walk
from ssmc.target import RunSettings
from tests.examples import examples

from .chips import changed, small
from .graphs import arrays, random_graph
from .programs import program, run


def slow_operations(code: Any, arch: Any, steps: int, batch: int) -> dict[str, float]:
    """Instructions, products and energy of a run, by walking through every step of every sample."""
    total: dict[str, float] = defaultdict(float)

    def execute(core: int, item: Item, step: int) -> None:
        if item.code.mnemonic == "loop":
            count(core, item)
            for k in range(steps):
                if k % item.integer("stride") == item.integer("offset") % item.integer("stride") and k >= item.integer(
                    "offset"
                ):
                    for inner in item.body:
                        execute(core, inner, k)
        elif item.code.mnemonic == "every":
            count(core, item)
            if step % item.integer("stride") == item.integer("offset") % item.integer(
                "stride"
            ) and step >= item.integer("offset"):
                for inner in item.body:
                    execute(core, inner, step)
        else:
            count(core, item)

    def count(core: int, item: Item) -> None:
        one = cost(item, arch, code.data)
        total["instructions"] += 1
        total["macs"] += one.macs
        total["picojoules"] += one.picojoules
        if item.code.mnemonic == "send":
            extra = max(arch.hops(core, item.integer("core")) - 1, 0)
            total["picojoules"] += extra * item.integer("words") * arch.energy.mesh_word_hop

    for _ in range(batch):
        for number, section in cores(code).items():
            for item in decode(section):
                execute(number, item, 0)
    return total


@settings(max_examples=examples(20), deadline=None)
@given(seed=st.integers(0, 2**32 - 1), layers=st.integers(1, 10), steps=st.integers(1, 9), batch=st.integers(1, 2))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_operations_and_energy_are_counted_right(seed: int, layers: int, steps: int, batch: int) -> None:
    t = random_graph(seed, layers)
    code = BACKEND.lower(t.graph, small(), ideal=True)
    got = BACKEND.simulate(code, arrays(t, batch, 2 * steps, seed), RunSettings()).stats
    slow = slow_operations(code, small(), 2 * steps, batch) if got.steps else slow_operations(code, small(), 0, batch)
    # a guard is stepped over at every step, but counted with the body around it
    assert got.macs == slow["macs"]
    assert got.instructions == slow["instructions"]
    assert got.energy_joules == pytest.approx(slow["picojoules"] * 1e-12 + got.notes["idle_joules"])
    assert got.energy_joules == pytest.approx(sum(got.notes["breakdown_joules"].values()))
    of_layers = sum(layer.energy_joules or 0 for layer in got.layers)
    assert got.energy_joules == pytest.approx(of_layers + got.notes["idle_joules"])
    assert got.cycles and got.seconds == got.cycles / small().vector.clock_hertz


def pipeline_of_two(work: int) -> Any:
    """Core 0 does a little and sends, core 5 does `work` words of it."""
    return program(
        f"""
.section core0
    loop rT, done
    recv v[0], words=4, channel=0
    unary v[0], v[0], words=4, tanh
    send v[0], words=4, channel=1, core=5
done:
    halt
.section core5
    loop rT, done
    recv v[0], words=4, channel=1
    unary v[4], v[0], words=4, exp
    fill v[8], words={work}
    emit v[4], words=4, channel=2
done:
    halt
""",
        inputs="u:stream:4:0",
        outputs="y:stream:4:2",
    )


def slow_cycles(code: Any, arch: Any, steps: int) -> int:
    """When the last core ends, every message and every instruction of every step in its place."""
    trees = {number: decode(section) for number, section in cores(code).items()}
    traces = {}
    for number, tree in trees.items():
        trace: list[Item] = []
        for item in tree:
            trace += list(item.body) * steps if item.body else [item]
        traces[number] = trace
    inside = {i.integer("channel") for tree in trees.values() for i in walk(tree) if i.code.mnemonic == "send"}
    arrived: dict[int, deque[int]] = defaultdict(deque)
    now, place = dict.fromkeys(traces, 0), dict.fromkeys(traces, 0)
    moved = True
    while moved:
        moved = False
        for core, trace in traces.items():
            while place[core] < len(trace):
                item = trace[place[core]]
                if item.code.mnemonic == "recv" and item.integer("channel") in inside:
                    if not arrived[item.integer("channel")]:
                        break
                    now[core] = max(now[core], arrived[item.integer("channel")].popleft())
                now[core] += cost(item, arch, code.data).cycles
                if item.code.mnemonic == "send":
                    arrived[item.integer("channel")].append(
                        now[core] + arch.hops(core, item.integer("core")) * arch.mesh.hop_cycles
                    )
                place[core] += 1
                moved = True
    return max(now.values())


@pytest.mark.parametrize("work", [1, 200])
@pytest.mark.parametrize("steps", [1, 2, 30])
def test_a_pipeline_of_cores_cycle_for_cycle(work: int, steps: int) -> None:
    arch = small()
    code = pipeline_of_two(work)
    got = schedule(code, arch, steps)
    halts = 1  # each core's last instruction
    assert abs(got.cycles - slow_cycles(code, arch, steps)) <= halts
    assert run(code, steps=steps, batch=3).stats.cycles == 3 * got.cycles


def test_products_by_hand() -> None:
    """Rows, columns, vectors of one product: cycles and energy as the architecture file says."""
    arch = changed(
        timing={"dac_cycles": 2, "read_cycles": 5, "adc_cycles": 3},
        vector={"lanes": 4},
        energy={"dac": 1.0, "device_read": 0.5, "adc": 10.0, "vector_word": 2.0, "control": 7.0},
    )
    code = program(
        """
.section core0
    fill v[0], words=64
    mvm v[64], v[0], array=0, row=0, rows=20, col=0, cols=10, vectors=2, src_step=32, dst_step=32
    halt
""",
        arch,
    )
    item = decode(code.section("core0"))[1]
    one = cost(item, arch, code.data)
    turns = 4  # eight device columns an ADC are four pairs
    assert one.cycles == 2 * (2 + 5 + turns * 3 + 3)
    assert one.picojoules == pytest.approx(2 * (20 * 1.0 + 2 * 20 * 10 * 0.5 + 10 * (10.0 + 2.0)) + 7.0)
    assert (one.macs, one.conversions) == (400, 20)


def test_slow_programs_are_told() -> None:
    """An event that takes long against the smallest time constant: the notes say so."""
    text = """
.section core0
    loop rT, done
    recv v[0], words=4, channel=0
    charge v[0], v[0], words=4, node=0, @r
    emit v[0], words=4, channel=1
done:
    halt
"""
    ports = ("u:stream:4:0", "y:stream:4:1")
    slow = changed(vector={"clock_hertz": 1e3})
    notes = run(program(text, slow, *ports, r=np.full(4, -1.0))).stats.notes
    assert "smallest time constant is 0.001 s" in notes["warning"]
    assert notes["smallest_tau_seconds"] == pytest.approx(1e-3)
    fast = run(program(text, changed(), *ports, r=np.full(4, -1.0))).stats.notes
    assert "warning" not in fast and fast["latency_over_smallest_tau"] < 1e-3


def test_slices_do_not_overlap_where_viewers_cut_them_to_nanoseconds() -> None:
    starts = [103117, 418742, 1666489]
    first = [Busy(0, n, "mvm", None, *span) for n, s in enumerate(starts) for span in ((s, 1167), (s + 1167, 623))]
    found = trace(pipeline_of_two(8), BACKEND.load_arch("cim-large"), Schedule(first=first))
    slices = [(int(1000 * e["ts"]), int(1000 * e["dur"])) for e in found if e["ph"] == "X"]
    assert slices == [(10 * busy.start, 10 * busy.cycles) for busy in first]


def test_trace_shows_the_first_event() -> None:
    code = pipeline_of_two(8)
    shown = run(code, trace=True).trace
    names = {event["tid"]: event["args"]["name"] for event in shown if event["ph"] == "M"}
    assert names == {0: "core0", 5: "core5"} == {event["tid"]: names[event["tid"]] for event in shown}
    sent = next(e for e in shown if e["name"] == "send")
    received = next(e for e in shown if e["name"] == "recv" and e["tid"] == 5)
    assert received["ts"] >= sent["ts"] + sent["dur"]
    assert not run(code).trace
