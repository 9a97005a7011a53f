"""Both clocks on whole programs as the compiler makes them, for small arrays of all kinds: equal cycles and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, load_arch
from backends.epochcore.program.rates import totals
from backends.epochcore.stepped import run
from isa import Program
from ssmc.diagnostics import UserError
from ssmc.ir import Graph
from ssmc.target import RunSettings
from tests.backends.epochcore.graphs import OPS, build, inputs
from tests.backends.epochcore.test_costs import with_changes
from tests.backends.epochcore.test_directions import Shape as Directed
from tests.backends.epochcore.test_directions import graph as both_ways
from tests.backends.epochcore.test_forms import Shape, arrays, graph
from tests.backends.epochcore.test_segments import shapes
from tests.backends.epochcore.test_stepped import PHASES
from tests.examples import examples

SLOW = load_arch("epochcore-small").model_copy(update={"clock_hz": 1e3})
directed = st.builds(
    Directed,
    channels=st.integers(1, 9),
    states=st.integers(1, 5),
    layers=st.integers(1, 2),
    is_complex=st.booleans(),
    liquid=st.booleans(),
    inputs=st.integers(0, 7),
    seed=st.integers(0, 9),
)
archs = st.fixed_dictionaries(
    {
        "array__rows": st.integers(2, 6),
        "array__cols": st.sampled_from([2, 3, 5, 8, 12]),
        "array__complex": st.sampled_from(["native", "ganged"]),
        "array__states_per_element": st.integers(1, 3),
        "array__column_words": st.integers(1, 3),
        "array__mac_depth": st.integers(1, 4),
        "array__port_words_in": st.sampled_from([1, 3, 8, 24]),
        "array__port_words_out": st.sampled_from([1, 3, 8, 24]),
        "array__shadow": st.booleans(),
        "array__handover_steps": st.sampled_from([0, 0, 1, 3, 5, 16]),
        "vector__width": st.sampled_from([1, 3, 8]),
        "vector__pipes": st.integers(1, 3),
        "dram__bytes_per_second": st.sampled_from([3e3, 40e3]),
        "dram__latency_cycles": st.integers(0, 5),
        "memory__scratchpad_words": st.sampled_from([400, 2000]),
        "memory__parameter_words": st.sampled_from([512, 4096]),
        "memory__stream_words": st.sampled_from([0, 0, 50, 5000]),
        "memory__banks": st.sampled_from([0, 0, 24]),
    }
).map(lambda drawn: with_changes(SLOW, **drawn))


def agree(g: Graph, arch: Arch, x: dict[str, np.ndarray]) -> None:
    try:
        program = BACKEND.lower(g, arch, ideal=True)
    except UserError:  # too small a scratchpad
        return
    same(program, arch, x)


def same(program: Program, arch: Arch, x: dict[str, np.ndarray], *, digits: float = 1e-9) -> None:
    """Cycles, and numbers."""
    given_, shapes_, steps = _streams(program, x)
    outputs, cycles = run(program, arch, given_, shapes_, steps)
    fast = BACKEND.simulate(program, {port.name: x[port.name] for port in program.inputs}, RunSettings())
    assert fast.stats.cycles == cycles
    for port in program.outputs:
        found = outputs[_number(port)]
        np.testing.assert_allclose(fast.outputs[port.name].reshape(found.shape), found, rtol=100 * digits, atol=digits)


def _number(port: Any) -> int:
    return int(port.binding["stream"])


def _streams(program: Program, x: dict[str, np.ndarray]) -> tuple[dict[int, np.ndarray], dict[int, Any], int]:
    """Inputs, and parts of them, by stream number, the shapes of the streams that are written, and the steps."""
    streams: Any = program.meta["streams"]
    every = {
        _number(p): np.asarray(x[p.name], float).reshape(*x[p.name].shape[: 1 + _stepped(streams, p)], -1)
        for p in program.inputs
    }
    batch = len(next(iter(every.values())))
    steps = next(x[p.name].shape[1] for p in program.inputs if _stepped(streams, p))
    for n, one in enumerate(streams):
        if "part_of" in one:
            whole, first = one["part_of"]
            every[n] = every[whole][..., first : first + one["words"]]
    total = totals(program, steps)
    rows = {n: [] if e["register"] == "one" else [total[e["register"]]] for n, e in enumerate(streams)}
    return every, {n: (batch, *own, streams[n]["words"]) for n, own in rows.items() if n not in every}, steps


def _stepped(streams: Any, port: Any) -> bool:
    return bool(streams[_number(port)]["register"] != "one")


@settings(max_examples=examples(25), deadline=None, phases=PHASES)
@given(archs, st.integers(0, 2**32), st.lists(st.sampled_from(sorted(OPS)), min_size=1, max_size=5), st.integers(1, 3))
def test_both_clocks_agree_on_random_graphs(arch: Arch, seed: int, ops: list[str], batch: int) -> None:
    agree(build(seed, ops), arch, inputs(seed, batch, 1 + seed % 13))


@settings(max_examples=examples(25), deadline=None, phases=PHASES)
@given(archs, shapes, st.integers(1, 3), st.integers(1, 24), st.booleans(), st.booleans())
def test_both_clocks_agree_on_systems(arch: Arch, s: Shape, batch: int, steps: int, segments: bool, last: bool) -> None:
    s = Shape(**{**s.__dict__, "stride": 1})
    asked = {"form": "segmented", "chunk": 8} if segments else {"steps": 64}
    agree(graph(s, asked, last=last), arch, arrays(s, batch, steps))


@settings(max_examples=12, deadline=None, phases=PHASES)
@given(archs, directed, st.booleans(), st.integers(1, 2), st.integers(1, 20))
def test_both_clocks_agree_on_both_directions(arch: Arch, s: Directed, before: bool, batch: int, steps: int) -> None:
    g = both_ways(Directed(**{**s.__dict__, "before": (before, before)}))
    g.attributes["schedule"] = {"directions": "together", "steps": 64}
    agree(g, arch, {"x": np.random.default_rng(0).standard_normal((batch, steps, s.width))})
