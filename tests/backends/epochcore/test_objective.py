"""What a schedule is chosen for: cycles, energy, or both."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import load_arch
from backends.epochcore.clock.timing import measure
from backends.epochcore.lower import forms, objective
from backends.epochcore.lower.objective import NAMES, NEAR, best, hopeless
from ssmc.diagnostics import UserError
from ssmc.passes import parse_pipeline
from tests.backends.epochcore.test_costs import with_changes
from tests.backends.epochcore.test_directions import Shape as Layers
from tests.backends.epochcore.test_directions import graph as layers
from tests.backends.epochcore.test_directions import program
from tests.backends.epochcore.test_forms import Shape, graph

PLAIN, WIDE = load_arch("tpu-like-128"), load_arch("epochcore-128")
COSTS = st.lists(st.tuples(st.integers(1, 10**6), st.floats(1e-9, 1.0)), min_size=1, max_size=6)


@given(COSTS)
def test_best_of_some(costs: list[tuple[float, float]]) -> None:
    fewest = min(cycles for cycles, _ in costs)
    chosen = {name: costs[best(costs, name)] for name in NAMES}
    assert chosen["energy"][1] == min(joules for _, joules in costs)
    assert chosen["edp"][0] * chosen["edp"][1] == min(cycles * joules for cycles, joules in costs)
    assert fewest <= chosen["cycles"][0] <= (1 + NEAR) * fewest
    # slower than the fastest only where that saves a larger share of the energy
    for cycles, joules in costs:
        if cycles == fewest:
            assert chosen["cycles"][0] * chosen["cycles"][1] <= cycles * joules


@given(COSTS, st.tuples(st.integers(1, 10**6), st.floats(1e-9, 1.0)), st.sampled_from(NAMES))
def test_what_is_hopeless_is_not_chosen(costs: list[tuple[float, float]], bound: Any, name: str) -> None:
    """Nor anything that costs more than the bound."""
    if hopeless(bound, costs, name):
        for more in (1.0, 1.5):
            assert best([*costs, (bound[0] * more, bound[1] * more)], name) < len(costs)
    assert not hopeless(bound, [], name)


def told(name: str, **shape: Any) -> list[dict[str, Any]]:
    g = graph(Shape(**shape), {"steps": 700, "objective": name})
    (found,) = BACKEND.lower(g, PLAIN, ideal=True).meta["forms"].values()  # type: ignore[union-attr]
    return list(found)


@pytest.mark.parametrize("shape", [{"channels": 16, "states": 4}, {"channels": 3, "states": 30, "is_complex": False}])
def test_the_form_is_the_best_of_all(shape: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of those that bounds spare the timing."""
    chosen = {name: next(form for form in told(name, **shape) if form["chosen"]) for name in NAMES}
    monkeypatch.setattr(forms, "hopeless", lambda *_: False)
    forms._answers.cache_clear()
    for name in NAMES:
        every = told(name, **shape)
        costs = [(form["cycles"], form["joules"]) for form in every if form["joules"] is not None]
        assert not any(form["least"] for form in every) and len(costs) > 5
        assert (chosen[name]["cycles"], chosen[name]["joules"]) == costs[best(costs, name)]
    forms._answers.cache_clear()


def test_energy_may_cost_time() -> None:
    """On an array whose leakage is small a scan takes a multiple of the energy of matrix products, or of the time."""
    shape = {"channels": 16, "states": 4}
    cycles, joules = (next(form for form in told(name, **shape) if form["chosen"]) for name in ("cycles", "energy"))
    assert joules["joules"] < cycles["joules"] and cycles["cycles"] < joules["cycles"]


def test_bounds_are_told_as_bounds() -> None:
    every = told("cycles", channels=16, states=4)
    timed = [form for form in every if form["joules"] is not None and not form["least"]]
    bounds = [form for form in every if form["least"]]
    assert timed and bounds
    for form in bounds:
        assert form["cycles"] > min(other["cycles"] for other in timed) and form["joules"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_whole_programs_are_chosen_by_the_objective(name: str) -> None:
    """Directions, samples together and residuals."""
    arch = with_changes(WIDE, array__mac_depth=4, array__states_per_element=4)
    p = program(layers(Layers(128, 4, layers=1)), arch, steps=300, batch=4, objective=name)
    found: Any = p.meta["schedules"]
    assert {made["choice"] for made in found} >= {"samples", "directions"}
    for choice in ("samples", "directions"):
        several = [made for made in found if made["choice"] == choice]
        costs = [(made["cycles"], made["joules"]) for made in several]
        assert [made["chosen"] for made in several] == [n == best(costs, name) for n in range(len(costs))]
    (samples,) = (made for made in found if made["choice"] == "samples" and made["chosen"])
    stats, _ = measure(p, arch, 4, 300)
    assert samples["batch"] == 4 and (stats.cycles, stats.energy_joules) == (samples["cycles"], samples["joules"])


def test_only_these_objectives() -> None:
    with pytest.raises(UserError, match="objective is one of cycles, energy, edp, not 'speed'"):
        parse_pipeline("schedule{objective=speed}")
    assert objective.NAMES == ("cycles", "energy", "edp")
