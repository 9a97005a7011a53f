"""Decays that are given at every step, real and complex, in every form of a scan: what comes back is one recurrence."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssmc.frontend import Model, load_model
from tests.frontend import disguise_file
from tests.frontend import disguise_scans as disguise
from tests.frontend.disguise import LAYOUTS
from tests.frontend.net import save
from tests.frontend.test_disguised_files import ROUNDING, check_against_file
from tests.frontend.test_disguises import lifted

layers = st.builds(
    disguise.Varying,
    seed=st.integers(0, 1 << 16),
    states=st.integers(1, 4),
    decay=st.sampled_from(disguise.DECAYS),
    is_complex=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
    backward=st.booleans(),
)


def check(model: Model, layer: disguise.Varying) -> None:
    """One recurrence with the layer's states; a power of fixed poles by an elapsed time is seen as that."""
    (system,) = model.systems
    assert system.kind in ("selective", "asynchronous")
    assert system.groups * system.states == layer.states
    assert system.is_complex == layer.is_complex


@pytest.mark.parametrize("form", [form for form in disguise.FORMS if form != "powers"])
@settings(max_examples=4, deadline=None)
@example(layer=disguise.Varying(5955, 2, "liquid", True, "halves", True), length=4)  # parts that are constants join
@given(layer=layers, length=st.integers(4, 17))
def test_forms(form: str, layer: disguise.Varying, length: int) -> None:
    if form == "step":
        layer = disguise.Varying(layer.seed, layer.states, layer.decay, layer.is_complex, layer.layout)
    model = lifted(disguise.as_model(layer, form, length), length)
    check(model, layer)
    assert form == "step" or model.systems[0].reverse == layer.backward


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 1 << 16), st.integers(1, 3), st.sampled_from(["events", "gate", "mamba"]))
def test_powers(seed: int, states: int, decay: str) -> None:
    layer = disguise.Varying(seed, states, decay, is_complex=False)
    check(lifted(disguise.as_model(layer, "powers", 12), 12), layer)


@settings(max_examples=5, deadline=None)
@given(layers, st.sampled_from(["scan", "loop", "unrolled", "doubling", "tree"]), st.integers(4, 12), st.data())
def test_kinds_of_files(layer: disguise.Varying, form: str, length: int, data: st.DataObject) -> None:
    """Some nodes as a function, weights outside of the file, or in another number format."""
    model = disguise.as_model(layer, form, length)
    kind, tolerance = data.draw(st.sampled_from(["function", "outside", "stored", "whole"])), 1e-4
    with tempfile.TemporaryDirectory() as folder:
        if kind == "outside":
            path = disguise_file.saved_outside(model, Path(folder), data.draw(st.sampled_from(["w.bin", None])))
        elif kind == "function":
            count = len(model.graph.node)
            start = data.draw(st.integers(0, count - 1))
            path = save(disguise_file.as_function(model, start, data.draw(st.integers(start + 1, count))), Path(folder))
        else:
            dtype = data.draw(st.sampled_from(sorted(disguise_file.FORMATS)))
            change = disguise_file.computed_in if kind == "whole" else disguise_file.stored_in
            tolerance = 200 * ROUNDING[dtype] if kind == "whole" else tolerance
            path = save(change(model, dtype), Path(folder))
        found = load_model(path)
        check_against_file(found, length, tolerance)
    check(found, layer)
