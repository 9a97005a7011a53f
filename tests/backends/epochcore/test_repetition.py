"""Chunks that are left out while a program is timed change none of its costs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch
from backends.epochcore.clock import handover
from backends.epochcore.clock.repetition import Repetition
from backends.epochcore.clock.timing import measure
from isa import Program
from ssmc.diagnostics import UserError
from ssmc.target import Stats
from tests.backends.epochcore.graphs import OPS, build
from tests.backends.epochcore.test_clocks_of_compiled import SLOW, archs
from tests.backends.epochcore.test_costs import with_changes
from tests.backends.epochcore.test_stepped import PHASES
from tests.examples import examples


def figures(stats: Stats) -> tuple[object, ...]:
    layers = [(layer.name, layer.cycles, layer.utilization) for layer in stats.layers]
    return stats.cycles, stats.instructions, stats.macs, layers


def agree(program: Program, arch: Arch, batch: int, steps: int) -> None:
    """A traced run is timed op by op."""
    (fast, _), (slow, _) = (measure(program, arch, batch, steps, trace=trace) for trace in (False, True))
    assert figures(fast) == figures(slow)
    assert fast.energy_joules == pytest.approx(slow.energy_joules, rel=1e-12)


@settings(max_examples=examples(30), deadline=None, phases=PHASES)
@given(archs, st.integers(0, 2**32), st.lists(st.sampled_from(sorted(OPS)), min_size=1, max_size=5), st.data())
def test_costs_of_random_graphs(arch: Arch, seed: int, ops: list[str], data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, 3000))
    hands_over = with_changes(arch, array__handover_steps=data.draw(st.sampled_from([1, 3, 16])))
    try:
        program = BACKEND.lower(build(seed, ops), hands_over, ideal=True)
    except UserError:  # too small a scratchpad
        return
    agree(program, hands_over, data.draw(st.integers(1, 3)), steps)


@settings(max_examples=15, deadline=None, phases=PHASES)
@given(archs, st.integers(0, 2**32), st.lists(st.sampled_from(sorted(OPS)), min_size=1, max_size=4), st.data())
def test_room_for_the_channel_grows(arch: Arch, seed: int, ops: list[str], data: st.DataObject) -> None:
    hands_over = with_changes(arch, array__handover_steps=data.draw(st.sampled_from([1, 3])))
    try:
        program = BACKEND.lower(build(seed, ops), hands_over, ideal=True)
    except UserError:  # too small a scratchpad
        return
    steps, batch = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 2))
    wide, _ = measure(program, hands_over, batch, steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handover, "ROOM", 1)
        narrow, _ = measure(program, hands_over, batch, steps)
    assert figures(wide) == figures(narrow)


def test_chunks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    arch = with_changes(SLOW, array__handover_steps=4, memory__banks=0, memory__scratchpad_words=400)
    program = BACKEND.lower(build(3, ["matmul", "state", "unary"]), arch, ideal=True)
    agree(program, arch, 2, 5003)
    left = []

    def counted(self: Repetition, *rest: object) -> None:
        left.append(rest[-1])
        shift(self, *rest)  # type: ignore[arg-type]

    shift = Repetition._shift
    monkeypatch.setattr(Repetition, "_shift", counted)
    measure(program, arch, 1, 5003)
    assert left
