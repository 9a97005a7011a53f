"""Decays that are given at every step, real and complex, in every form of a scan: what comes back is one recurrence."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssmc.frontend import Model
from tests.frontend import disguise_scans as disguise
from tests.frontend.disguise import LAYOUTS
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
