"""The clock: the fast model against the one that steps every element, register and token, in cycles and in numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch
from backends.epochcore.stepped import run
from backends.epochcore.timing import measure
from isa import Program
from isa.epochcore import ENGINES
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
    arch = data.draw(archs())
    program = data.draw(programs(arch))
    batch, steps = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 7))
    words = program.inputs[0].shape[0]
    count = batch * steps * words
    numbers = data.draw(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=count, max_size=count))
    x = np.array(numbers).reshape(batch, steps, words)
    fast = BACKEND.simulate(program, {"x": x}, RunSettings())
    outputs, cycles = stepped(program, arch, x)
    assert fast.stats.cycles == cycles
    for name, values in fast.outputs.items():
        np.testing.assert_array_equal(outputs[name], values)


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
