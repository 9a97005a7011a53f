"""The clock: the fast model against the one that steps every element, register and token, in cycles and in numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND, handover
from backends.epochcore.arch import Arch
from backends.epochcore.cost import Cost, Wave
from backends.epochcore.dispatch import Op
from backends.epochcore.stepped import run, streaming
from backends.epochcore.timing import measure
from isa import Program
from isa.epochcore_fields import ENGINES
from isa.frozen import FrozenMap
from ssmc.diagnostics import UserError
from ssmc.target import RunSettings
from tests.backends.epochcore.small_programs import archs, programs

# shrinking a program takes minutes: a failing one is printed as it was found
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


def stepped(program: Program, arch: Arch, x: np.ndarray) -> tuple[dict[str, np.ndarray], int]:
    batch, steps, _ = x.shape
    shapes = {n: (batch, steps, *port.shape) for n, port in enumerate(program.outputs, 1)}
    outputs, cycles = run(program, arch, {0: x}, shapes, steps)
    return {f"y{n}": values for n, values in outputs.items()}, cycles


@settings(max_examples=100, deadline=None, phases=PHASES)
@given(st.data())
def test_fast_and_slow_agree_exactly(data: st.DataObject) -> None:
    agree(data, data.draw(archs()), data.draw(st.integers(1, 7)))


def agree(data: st.DataObject, arch: Arch, steps: int) -> None:
    """A random program takes the same cycles in both models, and gives the same numbers."""
    program = data.draw(programs(arch))
    batch = data.draw(st.integers(1, 3))
    words = program.inputs[0].shape[0]
    count = batch * steps * words
    numbers = data.draw(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=count, max_size=count))
    x = np.array(numbers).reshape(batch, steps, words)
    fast = BACKEND.simulate(program, {"x": x}, RunSettings())
    outputs, cycles = stepped(program, arch, x)
    assert fast.stats.cycles == cycles
    for name, values in fast.outputs.items():
        np.testing.assert_array_equal(outputs[name], values)


@settings(max_examples=60, deadline=None, phases=PHASES)
@given(st.data())
def test_they_agree_where_engines_hand_over_step_by_step(data: st.DataObject) -> None:
    """Blocks, pipes of the vector unit, shares of the DRAM channel, states and parameters moved under passes."""
    plain = data.draw(archs())
    array = plain.array.model_copy(update={"handover_steps": data.draw(st.integers(1, 5))})
    vector = plain.vector.model_copy(update={"pipes": data.draw(st.integers(1, 3))})
    arch = plain.model_copy(update={"array": array, "vector": vector})
    agree(data, arch, data.draw(st.integers(1, 12)))


@pytest.mark.parametrize("rule", ["leads", "behind", "latency", "results"])
def test_a_clock_that_is_too_fast_is_noticed(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    """Without one of the rules of handing over, the slow model finds wrong numbers, words or collisions."""
    if rule == "behind":
        monkeypatch.setattr(Wave, "behind", lambda self, before: 0)
    elif rule == "results":
        whole = handover.conflicts
        monkeypatch.setattr(streaming, "conflicts", lambda *args: _without_results(whole(*args)))
    else:
        priced = streaming.pricing
        monkeypatch.setattr(streaming, "pricing", lambda *args: _changed(priced(*args), rule))

    @settings(max_examples=150, deadline=None, phases=PHASES, database=None, derandomize=True)
    @given(st.data())
    def search(data: st.DataObject) -> None:
        plain = data.draw(archs())
        array = plain.array.model_copy(update={"handover_steps": data.draw(st.integers(1, 3))})
        agree(data, plain.model_copy(update={"array": array}), data.draw(st.integers(1, 8)))

    with pytest.raises((AssertionError, IndexError)):
        search()


def _changed(price: Callable[[Op], Cost], field: str) -> Callable[[Op], Cost]:
    return lambda op: replace(price(op), **{field: 0})


def _without_results(known: handover.Conflicts) -> handover.Conflicts:
    return replace(known, results=[[] for _ in known.results])


@settings(max_examples=50, deadline=None, phases=PHASES)
@given(st.data())
def test_any_tokens_mean_the_same_to_both(data: st.DataObject) -> None:
    """Tokens at random: both models end at the same cycle, or in the same deadlock."""
    arch = data.draw(archs())
    program = data.draw(programs(arch))
    section = program.sections[0]
    at = data.draw(st.integers(0, len(section.code) - 1))
    ins = section.code[at]
    if "pop.load" not in ins.operands:
        return
    flag = data.draw(st.sampled_from([f"{what}.{engine}" for what in ("pop", "push") for engine in ENGINES]))
    changed = replace(ins, operands=FrozenMap({**ins.operands, flag: not ins[flag]}))
    code = (*section.code[:at], changed, *section.code[at + 1 :])
    other = replace(program, sections=(replace(section, code=code),))
    x = np.ones((2, 3, program.inputs[0].shape[0]))
    try:
        cycles = measure(other, arch, 2, 3)[0].cycles
    except UserError as error:
        assert "deadlock" in str(error)
        with pytest.raises(UserError, match="deadlock"):
            stepped(other, arch, x)
        return
    assert stepped(other, arch, x)[1] == cycles
