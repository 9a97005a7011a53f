"""Every exact pass keeps every output within 1e-9 on random graphs, for every kind of machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssmc.ir import Graph, interpret
from ssmc.passes import Context, PassManager, StateBank, StateCost, Step
from ssmc.passes.probe import probe
from ssmc.passes.validation import relative_error
from tests.examples import examples

from .graphs import LAYERS, MACHINES, Model, build, graphs, linear

EXACT = (
    "fold-constants,fold-norms,discretize,diagonalize,halve-conjugates,fold-readout,choose-banks,"
    "tile,map-weights,schedule"
)
LOSSY = (
    "fold-constants,fold-norms,discretize,diagonalize,halve-conjugates,"
    "choose-banks,share-decays{levels=2},quantize{weights=6,decays=12},tile,map-weights,schedule"
)
PRICED = replace(  # where rotations make the one bank dear, which has no room for all
    MACHINES["crossbar"],
    banks=(
        StateBank("volatile", count=6, decay_only=True, spread=0.02, cost=StateCost(1.0, turn=9.0)),
        StateBank("digital", computed_decay=True, timed_decay=True, cost=StateCost(4.0, timed=4.0, keep=1.0)),
    ),
)
machines = st.sampled_from([*MACHINES.values(), PRICED])


def provenance(graph: Graph) -> set[str]:
    return {source for node in graph.nodes() for source in node.provenance}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_is_lowered_exactly(layer: Callable[[Model], None], machine: str) -> None:
    for seed in (1, 2, 3):
        graph = build(seed, [linear, layer, linear])
        lost: list[str] = []

        def watch(step: Step, lost: list[str] = lost) -> None:
            live = step.before.copy()
            live.prune()
            lost.extend(provenance(live) - provenance(step.after))

        result = PassManager(EXACT, observers=[watch]).run(graph, Context(MACHINES[machine], seed=seed))
        assert not lost, "the origin of some node was forgotten"
        inputs = probe(graph, 77)
        assert inputs is not None
        expected, found = interpret(graph, inputs), interpret(result, inputs)
        assert set(expected) == set(found)
        assert max(relative_error(expected[name], found[name]) for name in expected) < 1e-9


@given(graphs(), machines)
@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_models_are_lowered_exactly(graph: Graph, machine: object) -> None:
    result = PassManager(EXACT).run(graph, Context(machine))  # type: ignore[arg-type]
    inputs = probe(graph, 5)
    assert inputs is not None
    expected, found = interpret(graph, inputs), interpret(result, inputs)
    assert max(relative_error(expected[name], found[name]) for name in expected) < 1e-8


@given(graphs(), machines)
@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_lossy_passes_leave_what_the_exact_ones_can_lower(graph: Graph, machine: object) -> None:
    context = Context(machine)  # type: ignore[arg-type]
    PassManager(LOSSY).run(graph, context)
    assert [report.pass_text for report in context.losses][-1] == "quantize{weights=6,decays=12}"
