"""No form takes fewer cycles than its bound, and weights that come again with every chunk are in it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, load_arch
from backends.epochcore.lower import forms
from backends.epochcore.lower.compile import compared
from backends.epochcore.lower.draft import Draft
from backends.epochcore.lower.flow import plan_flow
from backends.epochcore.lower.form_bounds import least
from backends.epochcore.lower.lowering import Lowering
from backends.epochcore.lower.request import Alternative, request_of
from ssmc.ir import Graph
from tests.backends.epochcore import test_forms, test_mimo
from tests.backends.epochcore.test_costs import with_changes
from tests.examples import examples

PLAIN, FIRST = load_arch("tpu-like-128"), load_arch("tpu-v1-256")
GRAPHS = {"channels": test_forms, "many inputs": test_mimo}

architectures = st.builds(
    lambda base, size, words, parameters, bandwidth: with_changes(
        base,
        array__rows=size,
        array__cols=size,
        array__port_words_in=size,
        array__port_words_out=size,
        memory__scratchpad_words=words,
        memory__parameter_words=parameters,
        dram__bytes_per_second=bandwidth,
    ),
    st.sampled_from([PLAIN, FIRST]),
    st.sampled_from([4, 8, 16]),
    st.sampled_from([4000, 20_000, 1 << 20]),
    st.sampled_from([2000, 10_000, 1 << 20]),
    st.sampled_from([1e9, 1e12]),
)


def all_timed(g: Graph, arch: Arch, *, ideal: bool) -> tuple[Lowering, list[Alternative]]:
    """Every form that can be had, timed whatever its bound is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "hopeless", lambda *_: False)
        patch.setattr(forms, "_answers", lambda _: [])
        found = compared(g, arch, ideal=ideal)["layer"]
    low = Lowering(g, arch, ideal, plan_flow(g), Draft(arch), request_of(g), lambda *_: pytest.fail("lowered"))
    return low, [form for form in found if form.costs is not None]


@settings(max_examples=examples(6), deadline=None)
@given(architectures, st.sampled_from([*GRAPHS]), st.booleans(), st.integers(1, 9), st.integers(1, 5), st.data())
def test_no_form_is_faster_than_its_bound(
    arch: Arch, kind: str, ideal: bool, wide: int, states: int, data: st.DataObject
) -> None:
    of: Any = GRAPHS[kind]
    flags = {name: data.draw(st.booleans()) for name in ("is_complex", "reverse", "before")}
    sizes = {"channels": wide} if kind == "channels" else {"inputs": wide, "outputs": 2}
    g = of.graph(of.Shape(states=states, **sizes, **flags), {"steps": data.draw(st.sampled_from([16, 300, 1000]))})
    low, found = all_timed(g, arch, ideal=ideal)
    for one in found:
        # one fold's results may leave while the next one begins, of which the bound of those in place knows nothing
        if one.form.mode == "mac.os":
            continue
        assert one.cycles is not None and least(low, g.node("layer"), one.form) <= one.cycles, str(one.form)


def test_forms_whose_weights_come_with_every_chunk_are_not_lowered() -> None:
    """Matrices of long windows are larger than the parameter memory, and come for every few of the windows."""
    s = test_forms.Shape(channels=32, states=32)
    arch = with_changes(FIRST, memory__scratchpad_words=1 << 16, memory__parameter_words=1 << 16)
    found: Any = BACKEND.lower(test_forms.graph(s, {"steps": 16384}), arch, ideal=True).meta["forms"]["layer"]
    untimed = {one["form"] for one in found if one["least"]}
    assert {"chunked, windows of 256 steps", "chunked, windows of 128 steps"} <= untimed
    chosen = next(one for one in found if one["chosen"])
    assert not chosen["least"] and all(one["cycles"] > chosen["cycles"] for one in found if one["least"])
